//! Maps from user space: entries, batches, what a full one says; pins that outlive who made them.

use std::io::ErrorKind;

use reeve::director::abi::{Conn, Load as LoadOf, Server, Statistics, Tuple4};
use reeve::sys::bpf::{Fault, Load, Loaded};

use super::lan::Pins;
use super::{load, object};

fn tuple(number: u32) -> Tuple4 {
    Tuple4 { source: number.to_be_bytes(), protocol: 6, ..Tuple4::default() }
}

#[test]
fn entries_go_in_and_come_out() {
    let Some(loaded) = load(&[], &[("conn4", 5000)]) else { return };
    let conns = loaded.map("conn4").expect("conn4");
    assert_eq!(conns.max_entries(), 5000);
    assert_eq!(conns.get::<_, Conn>(&tuple(1)).expect("a look"), None);

    let many: Vec<_> = (0..5000).map(|n| (tuple(n), Conn { packets: n, ..Conn::default() })).collect();
    conns.put_all(&many).expect("as many as there is room for");
    let full = conns.put(&tuple(5000), &Conn::default()).expect_err("one too many");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(conns.add(&tuple(7), &Conn::default()).expect_err("there already").kind(), ErrorKind::AlreadyExists);

    let mut seen = vec![false; 5000];
    conns
        .walk(|key: &Tuple4, value: &Conn| {
            assert_eq!(u32::from_be_bytes(key.source), value.packets);
            seen[value.packets as usize] = true;
            true
        })
        .expect("a walk");
    assert!(seen.into_iter().all(|seen| seen));

    assert!(conns.delete(&tuple(7)).expect("a deletion"));
    assert!(!conns.delete(&tuple(7)).expect("nothing to delete"));
}

#[test]
fn a_wrong_type_is_refused_before_the_kernel_writes_past_it() {
    let Some(loaded) = load(&[], &[]) else { return };
    let servers = loaded.map("servers").expect("servers");
    assert!(servers.get::<_, LoadOf>(&1u32).is_err());
    assert!(servers.get::<_, Server>(&1u64).is_err());
    assert_eq!(servers.get::<_, Server>(&1u32).expect("a look"), Some(Server::default()));
}

#[test]
fn every_cpu_has_its_own() {
    let Some(loaded) = load(&[], &[]) else { return };
    let statistics = loaded.map("statistics").expect("statistics");
    statistics.put(&3u32, &Statistics { connections: 5, ..Statistics::default() }).expect("room");
    let each: Vec<Statistics> = statistics.get_each(&3u32).expect("a look").expect("an entry");
    assert!(!each.is_empty() && each.iter().all(|cpu| cpu.connections == 5), "{each:?}");
}

#[test]
fn pins_outlive_the_process_that_made_them() {
    if load(&[], &[]).is_none() {
        return;
    }
    let pins = Pins::new("pins");
    let open =
        |sizes| Loaded::open(Load { object: &object(), pins: Some(&pins.path), sizes, programs: &["director_in"] });
    let first = open(&[("conn4", 100)]).expect("a first process");
    first.map("conn4").expect("conn4").put(&tuple(1), &Conn { packets: 9, ..Conn::default() }).expect("room");
    drop(first);

    let second = open(&[("conn4", 100)]).expect("a second process");
    let kept = second.map("conn4").expect("conn4").get(&tuple(1)).expect("a look");
    assert_eq!(kept, Some(Conn { packets: 9, ..Conn::default() }));
    drop(second);

    let Err(Fault::Pinned { what, .. }) = open(&[("conn4", 200)]) else { panic!("another size was taken over") };
    assert!(what.contains("map conn4") && what.contains("entries 100"), "{what}");
}
