//! Packets by nat and dr, TCP and UDP; servers that die, drain and come back.

use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::farm::until;

use super::net::{DR, NAT, Net, good, rows};

const WEB: &str = "[pool.web]\ncheck = { tcp = true, interval = \"200ms\", timeout = \"100ms\", rise = 1, fall = 1 }\nservers = [\n\
    { name = \"one\", address = \"10.2.0.11:8080\" },\n{ name = \"two\", address = \"10.2.0.12:8080\" }]\n";

fn service(more: &str) -> String {
    format!("{WEB}[director.service.web]\naddress = \"{NAT}:80\"\nscheduler = \"rr\"\npool = \"web\"\n{more}")
}

/// What the client gets, until it has got each of these.
fn hears(net: &Net, url: &str, wanted: &[&str]) {
    let mut heard = Vec::new();
    until(&format!("{wanted:?} answer at {url}"), || {
        heard.push(net.curl(url));
        wanted.iter().all(|who| heard.iter().any(|answer| answer.starts_with(who))).then_some(())
    });
}

#[test]
fn web_by_nat_and_by_dr() {
    let Some(mut net) = Net::new("l4-web", &["curl", "nginx"]) else { return };
    for role in ["s1", "s2"] {
        net.web(role, 8080);
    }
    let direct = format!(
        "[pool.direct]\nservers = [{{ name = \"one\", address = \"10.1.0.11:80\" }}, {{ name = \"two\", address = \"10.1.0.12:80\" }}]\n\
         [director.service.direct]\naddress = \"{DR}:80\"\nscheduler = \"wrr\"\nmethod = \"dr\"\npool = \"direct\"\n"
    );
    let reeve = net.reeve(&(service("") + &direct));
    let nat = format!("http://{NAT}/");
    hears(&net, &nat, &["s1", "s2"]);
    // Both see the client's own address.
    assert!(net.curl(&nat).contains("10.1.0.2"));
    hears(&net, &format!("http://{DR}/"), &["s1", "s2"]);
    // rr takes turns.
    let turns: Vec<String> = (0..6).map(|_| net.curl(&nat)).collect();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    let listed = rows(&reeve.ipvsadm(&net, "-Ln"));
    assert!(
        listed[0] == format!("TCP {NAT}:80 rr") && listed[1].starts_with("-> 10.2.0.11:8080 Masq 1 "),
        "{listed:?}"
    );
    assert!(listed[3] == format!("TCP {DR}:80 wrr") && listed[4].starts_with("-> 10.1.0.11:80 Route 1 "), "{listed:?}");
    let stats = reeve.ipvsadm(&net, &format!("-Ln -t {NAT}:80 --stats"));
    let service = stats.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>();
    let number = |at: usize| service[at].parse::<u64>().unwrap();
    assert!(number(2) >= 8 && number(3) > number(2) && number(4) > 0 && number(5) > 0, "{stats}");
    // By dr answers do not pass here.
    let stats = reeve.ipvsadm(&net, &format!("-Ln -t {DR}:80 --stats"));
    let service = stats.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>();
    assert!(service[2] != "0" && service[4] == "0", "{stats}");
    let flows = reeve.ipvsadm(&net, "-Lnc");
    assert!(
        flows.lines().skip(2).all(|line| line.starts_with("TCP ")) && flows.contains(&format!("{NAT}:80")),
        "{flows}"
    );
    let said = good(reeve.order(&net, &["connections"]));
    assert!(said.contains("flows of layer 4 shown") && said.contains("web/one"), "{said}");
    let said = good(reeve.order(&net, &["servers"]));
    assert!(said.contains("L4 ACT/INACT"), "{said}");
    let (_, metrics, _) = net.output("d", "curl", &["-s", "http://127.0.0.1:9901/metrics"]);
    for line in [
        "reeve_director_up 1",
        "reeve_director_connections_total{service=\"web\"}",
        "reeve_director_server_flows{service=\"web\",server=\"one\",state=\"active\"}",
        "reeve_director_packets_total{service=\"web\",direction=\"out\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn a_dead_server_leaves_and_comes_back() {
    let Some(mut net) = Net::new("l4-dead", &["curl", "nginx"]) else { return };
    let first = net.web("s1", 8080);
    net.web("s2", 8080);
    let mut reeve = net.reeve(&service("on-down = \"reset\"\n"));
    let url = format!("http://{NAT}/");
    hears(&net, &url, &["s1", "s2"]);
    net.peer(first).kill();
    // In the one listing it is there, in the next it is not: with every flow of it.
    until("the dead one is off the list", || {
        let listed = reeve.ipvsadm(&net, "-Ln");
        (!listed.contains("10.2.0.11")).then_some(())
    });
    assert!(!reeve.ipvsadm(&net, "-Lnc").contains("10.2.0.11"));
    for _ in 0..10 {
        assert!(net.curl(&url).starts_with("s2"));
    }
    // Another process, which has not checked it yet, does not take it for good.
    reeve.kill();
    reeve.begin(&net);
    for _ in 0..4 {
        assert!(!reeve.ipvsadm(&net, "-Ln").contains("10.2.0.11"));
        assert!(net.curl(&url).starts_with("s2"));
    }
    net.web("s1", 8080);
    hears(&net, &url, &["s1", "s2"]);
}

#[test]
fn a_drained_server_gets_nobody_new() {
    let Some(mut net) = Net::new("l4-drain", &["curl", "nginx"]) else { return };
    for role in ["s1", "s2"] {
        net.web(role, 8080);
    }
    let reeve = net.reeve(&service(""));
    let url = format!("http://{NAT}/");
    hears(&net, &url, &["s1", "s2"]);
    good(reeve.order(&net, &["drain", "web/one"]));
    until("its weight is 0", || {
        rows(&reeve.ipvsadm(&net, "-Ln")).iter().any(|row| row.starts_with("-> 10.2.0.11:8080 Masq 0 ")).then_some(())
    });
    for _ in 0..6 {
        assert!(net.curl(&url).starts_with("s2"));
    }
    good(reeve.order(&net, &["ready", "web/one"]));
    hears(&net, &url, &["s1", "s2"]);
}

#[test]
fn names_by_udp_and_each_packet_by_itself() {
    let Some(mut net) = Net::new("l4-dns", &["dig", "dnsmasq"]) else { return };
    for (role, answer) in [("s1", "192.0.2.1"), ("s2", "192.0.2.2")] {
        let words = [
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--pid-file=",
            "--user=root",
            "--port=5353",
            &format!("--address=/farm.test/{answer}"),
        ];
        let process = net.start(role, "dnsmasq", &words);
        net.keep(process);
        net.listens(role, 5353);
    }
    let pool = "servers = [{ name = \"one\", address = \"10.2.0.11:5353\" }, { name = \"two\", address = \"10.2.0.12:5353\" }]\n";
    let reeve = net.reeve(&format!(
        "[pool.dns]\n{pool}[director.service.dns]\naddress = \"{NAT}:53\"\nprotocol = \"udp\"\nscheduler = \"rr\"\npool = \"dns\"\n\
         [pool.single]\n{single}[director.service.single]\naddress = \"{DR}:53\"\nprotocol = \"udp\"\nscheduler = \"rr\"\n\
         one-packet = true\npool = \"single\"\n",
        single = pool
    ));
    let dig = |at: &str, port: &str| {
        let words = ["+short", "+tries=1", "+time=1", "-b", port, &format!("@{at}"), "web.farm.test"];
        net.output("c", "dig", &words).1.trim().to_owned()
    };
    let both = |at: &str, port: &str| {
        let answers: Vec<String> = (0..6).map(|_| dig(at, port)).collect();
        assert!(answers.iter().all(|answer| answer.starts_with("192.0.2.")), "{answers:?}");
        answers
    };
    // A flow stays where it is; without flows each question is scheduled.
    let answers = both(NAT, "10.1.0.2#40000");
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let answers = both(DR, "10.1.0.2#40001");
    assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "{answers:?}");
    let flows = reeve.ipvsadm(&net, "-Lnc");
    assert_eq!(flows.lines().filter(|line| line.starts_with("UDP ")).count(), 1, "{flows}");
    assert!(flows.contains("UDP         10.1.0.2:40000"), "{flows}");
    assert!(reeve.ipvsadm(&net, "-Ln").contains(&format!("UDP  {DR}:53 rr ops\n")));
    until("rates are estimated", || {
        let rates = reeve.ipvsadm(&net, &format!("-Ln -u {DR}:53 --rate"));
        let row = rates.lines().nth(2).unwrap_or_default();
        (row.split_whitespace().nth(2) != Some("0")).then_some(())
    });
}

#[test]
fn a_tunnel_begins_at_the_directors_own_address() {
    let Some(mut net) = Net::new("l4-tun", &["curl", "nginx"]) else { return };
    net.web("s1", 8080);
    let _reeve = net.reeve(&format!(
        "[pool.far]\nservers = [\"10.1.0.11:80\"]\n[director.service.far]\naddress = \"{DR}:80\"\nmethod = \"tun\"\npool = \"far\"\n"
    ));
    let raw = net.within("s1", || {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(4))).expect("a raw socket");
        raw.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        raw
    });
    // Those with the server's own address as their source, as the service's is, would be dropped before they came here.
    net.curl(&format!("http://{DR}/"));
    let mut packet = [0; 2048];
    let length = std::io::Read::read(&mut &raw, &mut packet).expect("a packet within another");
    assert!(length >= 40 && packet[12..16] == [10, 1, 0, 1] && packet[16..20] == [10, 1, 0, 11], "{:?}", &packet[..40]);
    assert_eq!(packet[36..40], [10, 1, 0, 101]);
    if !net.tries("s1", "link add ipip0 type ipip local 10.1.0.11") {
        eprintln!("this kernel has no ipip device: that the server unpacks it is not seen");
        return;
    }
    net.sysctl("s1", &["net.ipv4.conf.ipip0.rp_filter=0"]);
    net.ip("s1", "link set ipip0 up");
    until("it answers", || net.curl(&format!("http://{DR}/")).starts_with("s1").then_some(()));
}
