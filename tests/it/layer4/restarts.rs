//! The control plane comes and goes; packets do not notice.

use std::time::Duration;

use reeve::sys::bpf::{self, Direction, Loaded, OBJECT};

use crate::farm::process::{Process, Successor};
use crate::farm::{observe, until};

use super::net::{NAT, Net, Running, good};

/// A TCP connection and a UDP stream, measured by iperf3 for some seconds.
struct Load {
    tcp: Process,
    udp: Process,
}

impl Load {
    fn start(net: &Net, seconds: u32) -> Load {
        let seconds = seconds.to_string();
        let common = ["-c", NAT, "-t", &seconds, "-J", "--connect-timeout", "2000"];
        let tcp = net.start("c", "iperf3", &[&common[..], &["-p", "5201", "-b", "20M"]].concat());
        let udp = net.start("c", "iperf3", &[&common[..], &["-p", "5202", "-u", "-b", "2M", "-l", "400"]].concat());
        Load { tcp, udp }
    }

    /// No packet was lost, and no connection reset.
    fn ends_well(mut self) {
        for process in [&mut self.tcp, &mut self.udp] {
            let status = process.exit(Duration::from_secs(30));
            let out = process.stdout();
            let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
            assert!(status.success() && report["error"].is_null(), "{}", report["error"]);
        }
        let report: serde_json::Value = serde_json::from_str(&self.udp.stdout()).unwrap();
        let sum = &report["end"]["sum"];
        assert!(sum["packets"].as_u64().unwrap() > 1000, "{sum}");
        assert_eq!(sum["lost_packets"], 0, "{sum}");
    }
}

/// iperf3's servers, one for each stream, and services for them: each has a TCP and a UDP side.
fn farm(label: &str) -> Option<(Net, Running)> {
    let mut net = Net::new(label, &["iperf3"])?;
    for port in [5201, 5202] {
        let process = net.start("s1", "iperf3", &["-s", "-B", "10.2.0.11", "-p", &port.to_string(), "--forceflush"]);
        net.keep(process);
        net.listens("s1", port);
    }
    let mut config = String::new();
    for port in [5201, 5202] {
        config += &format!("[pool.p{port}]\nservers = [\"10.2.0.11:{port}\"]\n");
        for protocol in ["tcp", "udp"] {
            config += &format!(
                "[director.service.{protocol}{port}]\naddress = \"{NAT}:{port}\"\nprotocol = \"{protocol}\"\npool = \"p{port}\"\n"
            );
        }
    }
    let reeve = net.reeve(&config);
    Some((net, reeve))
}

#[test]
fn killed_restarted_and_upgraded_under_load_nothing_is_lost() {
    let Some((net, mut reeve)) = farm("l4-restart") else { return };
    let mut load = Load::start(&net, 6);
    until("both are under way", || {
        let flows = reeve.ipvsadm(&net, "-Lnc");
        (flows.contains("UDP ") && flows.matches("ESTABLISHED").count() >= 2).then_some(())
    });
    reeve.kill();
    // The kernel goes on by itself.
    observe(Duration::from_millis(500), "the load goes on", || load.tcp.running() && load.udp.running());
    reeve.begin(&net);
    let flows = reeve.ipvsadm(&net, "-Lnc");
    assert!(flows.matches("ESTABLISHED").count() >= 2, "what is under way is known again: {flows}");
    let _next = Successor::of(&good(reeve.order(&net, &["upgrade", "--format", "json"])));
    until("the new process has the director", || {
        let (code, ..) = reeve.order(&net, &["ipvsadm", "-Ln"]);
        (code == 0).then_some(())
    });
    load.ends_well();
}

#[test]
fn filters_of_clsact_are_found_again_and_taken_off() {
    let Some(net) = Net::new("l4-clsact", &["tc"]) else { return };
    let pins = net.pin();
    let open = || {
        let load = bpf::Load { object: OBJECT, pins: Some(&pins), sizes: &[], programs: &["director_in"] };
        let mut loaded = Loaded::open(load).expect("the object");
        loaded.use_clsact();
        loaded
    };
    let filters = || net.output("d", "tc", &["filter", "show", "dev", "front", "ingress"]).1;
    net.within("d", || {
        bpf::mount("/sys/fs/bpf".as_ref()).expect("a bpf file system");
        open().attach("director_in", "front", Direction::In).expect("it is put there");
    });
    // That process has ended.
    assert!(filters().contains("director_in"), "{}", filters());
    net.within("d", || {
        let mut next = open();
        assert_eq!(next.attached(), ["front"]);
        next.attach("director_in", "front", Direction::In).expect("it is exchanged");
        assert_eq!(filters().matches("name director_in").count(), 1, "{}", filters());
        assert_eq!((next.detach("front", Direction::In).ok(), next.attached().len()), (Some(true), 0));
    });
    assert!(!filters().contains("director_in"), "{}", filters());
    std::fs::remove_dir_all(&pins).expect("its folder");
}
