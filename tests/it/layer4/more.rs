//! Clients that are held, marks, tunnels; explicit flows.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use reeve::config::load_text;
use reeve::director::{Start, run};
use reeve::model::director::Protocol;
use reeve::state::Farm;
use reeve::state::director::{Command, Commands, Explicit, NotPut, QUEUE, Tally, Tuple};
use tokio::sync::{mpsc, oneshot, watch};

use crate::farm::until;

use super::net::{NAT, Net};

#[test]
fn a_client_is_held_by_its_network_over_all_ports() {
    let Some(mut net) = Net::new("l4-held", &["curl", "nginx"]) else { return };
    for role in ["s1", "s2"] {
        net.web(role, 8080);
    }
    let reeve = net.reeve("");
    reeve.ipvsadm(&net, &format!("-A -t {NAT}:0 -s rr -p 60 -M 255.255.255.0"));
    for last in [11, 12] {
        reeve.ipvsadm(&net, &format!("-a -t {NAT}:0 -r 10.2.0.{last}:0 -m"));
    }
    let url = format!("http://{NAT}:8080/");
    let first = net.curl(&url);
    assert!(first.starts_with('s'), "{first}");
    let who = &first[..2];
    net.ip("c", "addr add 10.1.0.77/24 dev front");
    for from in ["10.1.0.2", "10.1.0.77"] {
        let (_, heard, _) = net.output("c", "curl", &["-s", "--max-time", "1", "--interface", from, &url]);
        assert!(heard.starts_with(who), "{from}: {heard} after {first}");
    }
    assert!(reeve.ipvsadm(&net, "-Ln").contains("persistent 60 mask 255.255.255.0\n"));
    let template = format!("10.1.0.0:0         {NAT}:0");
    let flows = reeve.ipvsadm(&net, "-Lnc");
    assert!(flows.contains(&template), "{flows}");
    let held = reeve.ipvsadm(&net, "-Ln --persistent-conn");
    assert_eq!(held.lines().filter(|line| line.contains("1         1           ")).count(), 1, "{held}");
    // Quiet for good, it is let go: the server that is deleted has nothing left but its template.
    let server = if who == "s1" { 11 } else { 12 };
    reeve.ipvsadm(&net, &format!("-d -t {NAT}:0 -r 10.2.0.{server}:0"));
    let other = if who == "s1" { "s2" } else { "s1" };
    until("the other one serves", || net.curl(&url).starts_with(other).then_some(()));
    let next = net.curl(&url);
    assert!(next.starts_with(other), "{next}");
}

/// The director's loop in a namespace, as the process has it, with its commands at hand.
struct Loop {
    commands: Commands,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    pin: PathBuf,
}

impl Loop {
    fn start(net: &Net) -> Loop {
        let pin = net.pin();
        let text =
            format!("[director]\ninterfaces = [\"front\", \"back\"]\nflows = 1024\npin = \"{}\"\n", pin.display());
        let load = load_text("reeve.toml", &text);
        let farm = Farm::new(Arc::new(load.config.expect("a configuration")), Vec::new());
        let (commands, queue) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let (folder, space) = (net.folder.path().join("state"), net.space("d"));
        let thread = std::thread::spawn(move || {
            let within = std::fs::File::open(space).expect("a namespace");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&within), kind).expect("the namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(Start { farm, folder, commands: queue, stop: stopped }));
        });
        Loop { commands, stop, thread: Some(thread), pin }
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.commands.blocking_send(command(reply)).expect("the loop");
        answer.blocking_recv().expect("an answer")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let ended = self.thread.take().map(JoinHandle::join);
        for folder in ["links", "maps"] {
            let _ = std::fs::remove_dir_all(self.pin.join(folder));
        }
        let _ = std::fs::remove_dir(&self.pin);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

#[test]
fn explicit_flows_carry_what_they_are_told_to_and_no_more() {
    let Some(mut net) = Net::new("l4-explicit", &["dig", "dnsmasq"]) else { return };
    let words =
        ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file=", "--user=root"];
    let words = [&words[..], &["--port=5353", "--address=/farm.test/192.0.2.1"]].concat();
    let server = net.start("s1", "dnsmasq", &words);
    net.keep(server);
    net.listens("s1", 5353);
    let director = Loop::start(&net);
    let address = |text: &str| text.parse().expect("an address");
    let (client, virtual_address) = (address("10.1.0.2:41000"), address(&format!("{NAT}:53")));
    let (director_end, origin) = (address("10.2.0.1:42000"), address("10.2.0.11:5353"));
    let protocol = Protocol::Udp;
    // A session has two: the client's packets go to the server as the director's own, and back.
    let there = Tuple { protocol, source: client, destination: virtual_address };
    let back = Tuple { protocol, source: origin, destination: director_end };
    let tally = Arc::new(Tally::default());
    let put = |comes, leaves_from, leaves_to| {
        let flow = Explicit { comes, leaves_from, leaves_to };
        let tally = if comes == there { tally.clone() } else { Arc::default() };
        director.ask(|reply| Command::Put { flow, tally, reply })
    };
    assert_eq!(put(there, director_end, origin), Ok(()));
    assert_eq!(put(back, virtual_address, client), Ok(()));
    let dig = || {
        let at = format!("@{NAT}");
        let words = ["+short", "+tries=1", "+time=1", "-b", "10.1.0.2#41000", &at, "web.farm.test"];
        net.output("c", "dig", &words).1.trim().to_owned()
    };
    assert_eq!(dig(), "192.0.2.1");
    let take = |of| director.ask(|reply| Command::Take { of, reply }).expect("the kernel's word");
    assert!(!tally.has_left());
    let (sent, answered) = (take(there).expect("it is there"), take(back).expect("it is there"));
    assert!(sent.packets == 1 && answered.packets == 1 && answered.bytes > sent.bytes, "{sent:?} {answered:?}");
    assert!(tally.packets() == 1 && tally.has_left());
    assert!(take(back).is_none());
    assert!(dig() != "192.0.2.1");
    let wrong = Tuple { protocol: Protocol::Sctp, ..there };
    let is_unfit = |refused| matches!(refused, Err(NotPut::Unfit(_)));
    assert!(is_unfit(put(wrong, director_end, origin)));
    assert!(is_unfit(put(there, address("[2001:db8::1]:1"), address("[2001:db8::2]:1"))));
    assert!(is_unfit(put(there, director_end, address("10.2.0.1:9"))), "the machine's own address");
    // Nobody could come back through an interface that forwards nothing; it is looked at every two seconds.
    net.sysctl("d", &["net.ipv4.conf.front.forwarding=0"]);
    until("no flow is put in", || put(there, director_end, origin).is_err().then_some(()));
}
