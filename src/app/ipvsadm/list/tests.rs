//! Listings as ipvsadm 1.31 prints them; the texts are those of `tests/data/ipvsadm`.

use super::*;
use crate::model::director::{Conduct, Flags, Forwarding, OnDown, Scheduler};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server(text: &str, method: Method, weight: u32, load: (u32, u32)) -> ServerReport {
    ServerReport {
        address: address(text),
        name: None,
        method,
        weight,
        upper: if weight == 9 { 2000 } else { 0 },
        lower: if weight == 9 { 1000 } else { 0 },
        active: load.0,
        inactive: load.1,
        persistent: if weight == 9 { 6 } else { 0 },
        counted: Counted::default(),
        rates: Rates::default(),
    }
}

fn service(key: ServiceKey, scheduler: Scheduler, servers: Vec<ServerReport>) -> ServiceReport {
    let conduct = Conduct {
        scheduler,
        flags: Flags::default(),
        persistence: None,
        one_packet: false,
        forwarding: Forwarding::Fast,
        on_down: OnDown::Drop,
    };
    ServiceReport {
        key,
        name: None,
        pool: None,
        conduct,
        counted: Counted::default(),
        rates: Rates::default(),
        servers,
    }
}

fn of(protocol: Protocol, text: &str) -> ServiceKey {
    ServiceKey::Address { protocol, address: address(text) }
}

/// The example table, in an order of its own.
fn example() -> Vec<ServiceReport> {
    let one = |text: &str, method| server(text, method, 1, (12, 345));
    let five = |text: &str, method| server(text, method, 5, (13, 346));
    let nine = |text: &str, method| server(text, method, 9, (14, 347));
    let (nat, dr, tun) = (Method::Nat, Method::Dr, Method::Tun);
    let mut all_ports = service(of(Protocol::Tcp, "192.0.2.10:0"), Scheduler::Rr, vec![one("10.0.0.3:8080", nat)]);
    all_ports.conduct.persistence = Some(Persistence { seconds: 360, mask: "255.255.255.0".parse().unwrap() });
    let web = vec![one("10.0.0.3:80", dr), nine("10.0.0.1:8080", nat)];
    let mut web = service(of(Protocol::Tcp, "192.0.2.10:80"), Scheduler::Wlc, web);
    web.counted = Counted {
        connections: 1_234_567,
        packets_in: 8_641_969,
        packets_out: 7_407_402,
        bytes_in: 1_111_110_300,
        bytes_out: 18_518_505_000,
    };
    web.rates =
        Rates { connections: 1234, packets_in: 8818, packets_out: 7716, bytes_in: 14_814_804, bytes_out: 209_876_390 };
    for server in &mut web.servers {
        server.counted = Counted {
            connections: 411_522,
            packets_in: 2_880_654,
            packets_out: 2_469_132,
            bytes_in: 370_369_800,
            bytes_out: 6_172_830_000,
        };
        server.rates =
            Rates { connections: 411, packets_in: 2939, packets_out: 2572, bytes_in: 4_938_264, bytes_out: 69_958_740 };
    }
    let sealed = vec![one("10.0.0.3:8080", nat), five("10.0.0.2:8080", nat)];
    let mut sealed = service(of(Protocol::Tcp, "192.0.2.10:443"), Scheduler::Sh, sealed);
    sealed.conduct.flags = Flags { fallback: true, port: true };
    let mut sip = service(of(Protocol::Udp, "192.0.2.10:5060"), Scheduler::Rr, vec![one("10.0.0.3:8080", nat)]);
    sip.conduct.persistence = Some(Persistence { seconds: 60, mask: "255.255.255.255".parse().unwrap() });
    sip.conduct.one_packet = true;
    let diameter = vec![one("10.0.0.3:2905", tun), five("10.0.0.2:2905", tun), nine("10.0.0.1:2905", tun)];
    let mut diameter = service(of(Protocol::Sctp, "192.0.2.10:2905"), Scheduler::Mh, diameter);
    diameter.conduct.flags.port = true;
    let mut six = service(of(Protocol::Tcp, "[2001:db8::80]:80"), Scheduler::Wrr, vec![one("[2001:db8::a0a0]:80", dr)]);
    six.conduct.persistence = Some(Persistence { seconds: 300, mask: Persistence::mask(Family::Ipv6, 64) });
    six.counted = Counted {
        connections: 123_456_789_012,
        packets_in: 864_197_523_084,
        packets_out: 740_740_734_072,
        bytes_in: 111_111_110_110_800,
        bytes_out: 1_851_851_835_180_000,
    };
    six.rates = Rates {
        connections: 123_456_789,
        packets_in: 881_834_207,
        packets_out: 771_604_931,
        bytes_in: 1_481_481_468_144,
        bytes_out: 20_987_654_132_040,
    };
    six.servers[0].counted = Counted {
        connections: 41_152_263_004,
        packets_in: 288_065_841_028,
        packets_out: 246_913_578_024,
        bytes_in: 37_037_036_703_600,
        bytes_out: 617_283_945_060_000,
    };
    six.servers[0].rates = Rates {
        connections: 41_152_263,
        packets_in: 293_944_735,
        packets_out: 257_201_643,
        bytes_in: 493_827_156_048,
        bytes_out: 6_995_884_710_680,
    };
    let mark = ServiceKey::Mark { mark: 7, family: Family::Ipv6 };
    let mark = service(mark, Scheduler::Lblcr, vec![one("[2001:db8::a0a0]:0", dr)]);
    vec![mark, six, diameter, sip, sealed, web, all_ports]
}

fn listing(mode: Mode, exact: bool) -> Listing {
    Listing { only: None, numeric: true, exact, sorted: true, mode }
}

/// Services and servers whose rows the golden text has.
fn rows(text: &str, golden: &str) -> String {
    let (title, first) = text.split_at(text.match_indices('\n').nth(2).unwrap().0 + 1);
    let name = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let names: Vec<_> = golden.lines().skip(3).map(name).collect();
    let mut own = title.to_owned();
    let mut inside = false;
    for line in first.lines() {
        if !line.starts_with("  ->") {
            inside = names.contains(&name(line));
        }
        if inside {
            own += &format!("{line}\n");
        }
    }
    own
}

#[test]
fn listings_are_ipvsadms_to_the_byte() {
    let example = example();
    for (mode, exact, golden) in [
        (Mode::Plain, false, include_str!("../../../../tests/data/ipvsadm/plain.txt")),
        (Mode::Stats, false, include_str!("../../../../tests/data/ipvsadm/stats.txt")),
        (Mode::Stats, true, include_str!("../../../../tests/data/ipvsadm/stats-exact.txt")),
        (Mode::Rate, false, include_str!("../../../../tests/data/ipvsadm/rate.txt")),
        (Mode::Rate, true, include_str!("../../../../tests/data/ipvsadm/rate-exact.txt")),
    ] {
        let text = table(&example, &listing(mode, exact), &Shown::Numbers);
        assert_eq!(rows(&text, golden), golden, "{mode:?} {exact}");
    }
    let plain = table(&example, &listing(Mode::Plain, false), &Shown::Numbers);
    assert_eq!(plain, include_str!("../../../../tests/data/ipvsadm/plain.txt"), "every row of it");
    assert_eq!(save(&example, &Shown::Numbers), include_str!("../../../../tests/data/ipvsadm/save.txt"));
    let web = &example[5..6];
    let row = |mode| table(web, &listing(mode, false), &Shown::Numbers).lines().nth(4).unwrap().to_owned();
    assert_eq!(row(Mode::Thresholds), "  -> 10.0.0.1:8080                2000       1000       14         347       ");
    assert_eq!(
        row(Mode::PersistentConn),
        "  -> 10.0.0.1:8080                9         6           14         347       "
    );
    assert_eq!(
        row(Mode::TunInfo),
        "  -> 10.0.0.1:8080                Masq    n/a           9      14         347       "
    );
    let only = Listing { only: Some(web[0].key), ..listing(Mode::Plain, false) };
    assert!(table(web, &only, &Shown::Numbers).starts_with("Prot LocalAddress:Port Scheduler Flags\n"));
}

/// Seen with ipvsadm 1.31 itself: nine services in this order of the kernel's.
#[test]
fn the_order_is_that_of_differences_in_32_bits() {
    let tcp = |text| service(of(Protocol::Tcp, text), Scheduler::Wlc, Vec::new());
    let mark = |mark| service(ServiceKey::Mark { mark, family: Family::Ipv4 }, Scheduler::Wlc, Vec::new());
    let all = [
        tcp("10.0.0.1:80"),
        tcp("192.0.2.10:81"),
        tcp("203.0.113.1:82"),
        service(of(Protocol::Udp, "172.16.0.1:83"), Scheduler::Wlc, Vec::new()),
        tcp("1.2.3.4:84"),
        tcp("255.1.1.1:85"),
        mark(7),
        mark(0x9000_0000),
        tcp("128.0.0.1:88"),
    ];
    let text = table(&all, &listing(Mode::Plain, false), &Shown::Numbers);
    let names: Vec<&str> = text.lines().skip(3).map(|line| line.trim_end_matches(" wlc")).collect();
    assert_eq!(
        names,
        [
            "FWM  -1879048192",
            "TCP  128.0.0.1:88",
            "TCP  192.0.2.10:81",
            "TCP  203.0.113.1:82",
            "TCP  255.1.1.1:85",
            "TCP  1.2.3.4:84",
            "TCP  10.0.0.1:80",
            "UDP  172.16.0.1:83",
            "FWM  7"
        ]
    );
}

#[test]
fn connections_in_their_columns() {
    let flow = |protocol, state: &str, client: &str, at: &str, to: &str, seconds| FlowReport {
        protocol,
        state: state.to_owned(),
        client: address(client),
        virtual_address: address(at),
        server: address(to),
        identity: None,
        seconds,
        template: false,
    };
    let (tcp, udp, sctp) = (Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp));
    let flows = [
        flow(tcp, "ESTABLISHED", "203.0.113.5:49153", "192.0.2.10:80", "10.0.0.1:8080", 899),
        flow(tcp, "FIN_WAIT", "203.0.113.5:49154", "192.0.2.10:80", "10.0.0.2:80", 91),
        flow(udp, "UDP", "203.0.113.9:5060", "192.0.2.10:5060", "10.0.0.3:5060", 299),
        flow(None, "NONE", "203.0.113.0:0", "0.0.0.7:0", "10.0.0.3:0", 322),
        flow(tcp, "ASSURED", "203.0.113.0:0", "192.0.2.10:0", "10.0.0.3:0", 322),
        flow(udp, "NONE", "203.0.113.9:0", "192.0.2.10:5060", "10.0.0.3:5060", 59),
        flow(sctp, "C-ECHOED", "203.0.113.7:49157", "192.0.2.10:2905", "10.0.0.3:2905", 60),
        flow(tcp, "SYN_RECV", "[2001:db8::5]:49155", "[2001:db8::80]:80", "[2001:db8::a0a0]:80", 59),
    ];
    assert_eq!(
        connections(&flows, false, &Shown::Numbers),
        include_str!("../../../../tests/data/ipvsadm/connections.txt")
    );
}
