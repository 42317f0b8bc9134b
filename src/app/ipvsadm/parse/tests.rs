//! What ipvsadm 1.31 made of a few hundred command lines, and what this makes of them.

use super::*;

const CASES: &str = include_str!("../../../../tests/data/ipvsadm/command-lines.txt");

/// Words of a shell's line with double quotes.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut some) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, some) = (!quoted, true),
            ' ' if !quoted => {
                if some || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                some = false;
            }
            c => word.push(c),
        }
    }
    if some || !word.is_empty() {
        words.push(word);
    }
    words
}

/// A change as the kernel is told of it by the tool.
fn told(change: &Change) -> Option<String> {
    let service = |number: u32, key: &ServiceKey, scheduler: &str, conduct: Option<&Conduct>| {
        let (protocol, address, mark) = match key {
            ServiceKey::Address { protocol, address } => (protocol.number(), address.to_string(), 0),
            ServiceKey::Mark { mark, .. } => (6, "0.0.0.0:0".to_owned(), *mark),
        };
        let held = conduct.and_then(|conduct| conduct.persistence);
        let flags = conduct.map_or(0, |conduct| {
            u32::from(held.is_some())
                | u32::from(conduct.one_packet) << 2
                | u32::from(conduct.flags.fallback) << 3
                | u32::from(conduct.flags.port) << 4
        });
        let (time, mask) = held.map_or((0, "255.255.255.255".to_owned()), |held| (held.seconds, held.mask.to_string()));
        format!("SET {number} proto={protocol} addr={address} fw={mark} s={scheduler} fl={flags:x} to={time} nm={mask}")
    };
    let server = |number: u32, key: &ServiceKey, server: &Dest| {
        let method = match server.method {
            Method::Nat => 0,
            Method::Tun => 2,
            Method::Dr => 3,
        };
        let Dest { address, weight, upper, lower, .. } = server;
        format!("{} dest={address} cf={method:x} w={weight} u={upper} l={lower}", service(number, key, "", None))
    };
    match change {
        Change::AddService { key, conduct } => Some(service(2, key, &conduct.scheduler, Some(&conduct.conduct))),
        Change::EditService { key, conduct } => Some(service(3, key, &conduct.scheduler, Some(&conduct.conduct))),
        Change::DeleteService { key } => Some(service(4, key, "", None)),
        Change::AddServer { key, server: it } => Some(server(7, key, it)),
        Change::EditServer { key, server: it } => Some(server(9, key, it)),
        Change::DeleteServer { key, server: address } => {
            let it = Dest { address: *address, method: Method::Dr, weight: 1, upper: 0, lower: 0 };
            Some(server(8, key, &it))
        }
        Change::Clear => Some("SET 5".to_owned()),
        Change::Timeouts(_) => Some("SET 10".to_owned()),
        Change::Zero { key: Some(key) } => Some(service(15, key, "", None)),
        Change::Zero { key: None } => {
            Some("SET 15 proto=0 addr=0.0.0.0:0 fw=0 s= fl=0 to=0 nm=255.255.255.255".to_owned())
        }
    }
}

#[test]
fn command_lines_are_taken_as_ipvsadm_takes_them() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in CASES.split("\n$ ").skip(1) {
        let (line, rest) = case.split_once('\n').unwrap();
        let (kernel, rest): (Vec<&str>, Vec<&str>) = rest.lines().partition(|line| line.starts_with("SET"));
        let stderr: Vec<&str> = rest.iter().filter_map(|line| line.strip_prefix("2 ")).collect();
        let code: i32 = rest.iter().find_map(|line| line.strip_prefix("= ")).unwrap().trim().parse().unwrap();
        let asked = parse(&split(line), false);
        let (own_kernel, own_stderr, own_code) = match &asked {
            Ok(Asked::Change(change)) => (told(change), None, 0),
            Ok(_) => (None, None, 0),
            Err(Wrong::Fail(text)) => (None, Some(text.trim_end().to_owned()), 2),
            Err(Wrong::Bad(text)) => (None, Some(text.clone()), 255),
            Err(Wrong::TryHelp) => {
                (None, Some("Try `ipvsadm -h' or 'ipvsadm --help' for more information.".to_owned()), 255)
            }
        };
        // Features that this director lacks are refused later, by the words of a kernel that lacks them. A mask without
        // persistence means nothing, to the kernel too.
        let kernel = kernel.first().filter(|_| asked != Ok(Asked::NotAvailable)).map(|line| {
            if line.contains(" to=0 ") && line.contains("SET 2") {
                let (front, _) = line.split_once(" nm=").unwrap();
                format!("{front} nm=255.255.255.255")
            } else {
                (*line).to_owned()
            }
        });
        let expected = (kernel, stderr.first().map(|text| (*text).to_owned()), code);
        if (own_kernel.clone(), own_stderr.clone(), own_code) != expected {
            wrong.push(format!("{line}\n  ipvsadm: {expected:?}\n  here:    {:?}", (own_kernel, own_stderr, own_code)));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 250, "{cases}");
}

#[test]
fn ipv6_is_taken_too() {
    let asked = |line: &str| parse(&split(line), false);
    let Ok(Asked::Change(Change::AddService { key, conduct })) = asked("-A -t [2001:db8::80]:80 -s wrr -p 300 -M 64")
    else {
        panic!()
    };
    assert_eq!(key.to_string(), "tcp [2001:db8::80]:80");
    assert_eq!(conduct.conduct.persistence.unwrap().bits(), 64);
    let Ok(Asked::Change(Change::AddServer { key, server })) = asked("-a -f 7 -6 -r [2001:db8::a0a0]:0") else {
        panic!()
    };
    assert_eq!((key.to_string().as_str(), server.address.port()), ("mark 7 ipv6", 0));
    assert!(matches!(asked("-a -t 192.0.2.1:80 -r [::1]:80 -i"), Ok(Asked::Change(_))));
    assert_eq!(parse(&split("-R"), true), Err(Wrong::TryHelp));
}
