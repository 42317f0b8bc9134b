//! Offloading where the director cannot: its table is full, or it says nothing. Media goes on, and nothing stays behind.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::farms::{Watch, udp_sockets, viewer};
use super::net::{Farm, RULES, Way, listener, pool, python};
use super::offload::{KEY, URL, VALUE, entries, front, metrics, none_is_left, offloaded, plays, relayed, sum, table};
use crate::farm::peer::test_file;
use crate::farm::process::Process;
use crate::farm::reeve::command;
use crate::farm::watch::until_within;
use crate::farm::{among_others, observe, until};

/// Fills the table but for so many places, with what no packet is of; what it has put in.
fn fill(farm: &Farm, free: usize) -> Vec<[u8; KEY]> {
    let mut flows = table(farm);
    let key = |number: u32| {
        let mut key = [0; KEY];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    };
    let mut all: Vec<_> = (0..).map(key).take_while(|key| flows.insert(key, [0; VALUE], 0).is_ok()).collect();
    for key in all.split_off(all.len() - free) {
        flows.remove(&key).expect("it is there");
    }
    all
}

#[test]
fn a_full_table_has_media_relayed() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-full", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    let reeve = front(&farm, 1);
    let ports = udp_sockets(&reeve);
    let watch = Watch::new(&farm.client);
    // One place: half of a stream's way has room, which serves nobody.
    let mut filled = fill(&farm, 1);
    assert!(filled.len() > 16_000, "{} places", filled.len());
    let mut one = viewer(&farm);
    let session = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    assert_eq!(entries(&farm), filled.len(), "half a stream's flows are none");
    one.ask("PLAY", URL, &session).good();
    watch.media_comes();
    let page = metrics(&farm);
    let streams = |page: &str, how| sum(page, "reeve_media_streams{", how);
    assert_eq!((streams(&page, "relayed"), streams(&page, "offloaded")), (1.0, 0.0));
    assert!(relayed(&farm) > 10.0 && offloaded(&farm) == 0.0);
    // Another one is no news.
    let mut two = viewer(&farm);
    let fields = watch.fields.replace("40000-40001", "42000-42001");
    let other = two.ask("SETUP", &format!("{URL}/stream=0"), &fields).good().session();
    two.ask("TEARDOWN", URL, &other).good();
    let said = reeve.stderr();
    assert_eq!(said.matches("the table of explicit flows is full").count(), 1, "{said}");
    // Who plays is offloaded as soon as there is room and it is asked again.
    let mut flows = table(&farm);
    for key in filled.drain(..) {
        flows.remove(&key).expect("it is there");
    }
    until("its flows are there", || (entries(&farm) == 4).then_some(()));
    let before = offloaded(&farm);
    until("the director has passed it on", || (offloaded(&farm) > before + 10.0).then_some(()));
    watch.packets();
    watch.media_comes();
    // Two places: RTP has its flows, and RTCP is relayed.
    one.ask("TEARDOWN", URL, &session).good();
    none_is_left(&farm, 1);
    watch.media_ends();
    let filled = fill(&farm, 2);
    let session = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    assert_eq!(entries(&farm), filled.len() + 2);
    one.ask("PLAY", URL, &session).good();
    watch.media_comes();
    assert_eq!(streams(&metrics(&farm), "offloaded"), 1.0);
    one.ask("TEARDOWN", URL, &session).good();
    until("only what others have is left", || (entries(&farm) == filled.len()).then_some(()));
    until("its ports are free", || (udp_sockets(&reeve) == ports).then_some(()));
}

/// Has the director's thread stand still until the end of this.
pub struct Held(Process);

impl Held {
    pub fn director(of: &Process) -> Held {
        let mut command = python();
        command.arg(test_file("it/hold_thread.py")).args([&of.id().to_string(), "director"]);
        let mut holder = Process::start(&mut command);
        until("the director stands still", || {
            assert!(holder.running(), "{}", holder.stderr());
            holder.stdout().contains("held").then_some(())
        });
        Held(holder)
    }

    pub fn go_on(mut self) {
        self.0.kill();
    }
}

#[test]
fn a_director_that_says_nothing_holds_nobody_up() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-silent", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    let reeve = front(&farm, 1);
    let ports = udp_sockets(&reeve);
    let watch = Watch::new(&farm.client);
    let held = Held::director(&reeve);
    let (mut one, mut two) = (viewer(&farm), viewer(&farm));
    let asked = Instant::now();
    let session = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    let took = asked.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(3), "half a second, not {took:?}");
    one.ask("PLAY", URL, &session).good();
    watch.media_comes();
    // One that is over before the director has heard of it.
    let fields = watch.fields.replace("40000-40001", "42000-42001");
    let other = two.ask("SETUP", &format!("{URL}/stream=0"), &fields).good().session();
    two.ask("TEARDOWN", URL, &other).good();
    until_within(Duration::from_secs(6), "its line is in the log", || (farm.log().len() == 1).then_some(()));
    assert_eq!((entries(&farm), udp_sockets(&reeve)), (0, ports + 4));
    let said = reeve.stderr();
    assert_eq!(said.matches("the director has not answered within 500 ms").count(), 1, "{said}");
    // Prometheus waits for ten seconds.
    let asked = Instant::now();
    let page = metrics(&farm);
    assert!(page.contains("\nreeve_director_up 0\n") && page.contains("reeve_build_info"), "{page}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());

    // It was slow, no more: who still plays is offloaded, and nobody else.
    held.go_on();
    until("its flows are there", || (entries(&farm) == 4).then_some(()));
    let before = offloaded(&farm);
    until("the director has passed it on", || (offloaded(&farm) > before + 10.0).then_some(()));
    assert_eq!((entries(&farm), sum(&metrics(&farm), "reeve_media_streams{", "offloaded")), (4, 1.0));

    // While it says nothing what plays goes on, and what ends ends.
    let held = Held::director(&reeve);
    watch.packets();
    watch.media_comes();
    one.ask("TEARDOWN", URL, &session).good();
    until_within(Duration::from_secs(6), "its line is in the log", || (farm.log().len() == 2).then_some(()));
    assert_eq!((entries(&farm), udp_sockets(&reeve)), (4, ports));
    held.go_on();
    none_is_left(&farm, 5);
    // What they were asked for is there at once again.
    watch.packets();
    let session = plays(&farm, &mut one, &watch);
    one.ask("TEARDOWN", URL, &session).good();
    none_is_left(&farm, 1);
    observe(Duration::from_millis(300), "no flow comes late", || entries(&farm) == 0);
}

/// Gives this thread, and what it starts, a bpf file system of its own at the usual place.
fn own_pins() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: mounts are nothing that other threads of this process have open.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("mounts of its own");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("nobody sees them");
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).expect("a bpf file system");
}

/// Whoever starts without a director has none to look after what a process left that was killed.
#[test]
fn a_start_without_a_director_takes_out_what_a_killed_one_left() {
    let _turn = among_others();
    let Some(mut farm) = Farm::new("media-left", Way::Barred) else { return };
    own_pins();
    farm.pins = "/sys/fs/bpf/reeve".into();
    let _origins = farm.origins(&[&[]]);
    let watch = Watch::new(&farm.client);
    let mut reeve = front(&farm, 1);
    let without = listener("media", 8554, "relay") + &pool("\"rr\"", 1);
    plays(&farm, &mut viewer(&farm), &watch);
    // They are left to whoever has them.
    let folder = farm.folder.path().join("other");
    let text = format!(
        "[process]\nworkers = 1\nsocket = \"{0}/reeve.sock\"\n[state]\npath = \"{0}/state\"\n\
         [listen.a]\naddress = [\"127.0.0.1:8099\"]\n",
        folder.display()
    );
    let file = farm.folder.write("other/reeve.toml", text);
    let mut other = farm.director.within(|| Process::start(command().arg("run").arg("-c").arg(file)));
    other.says(" ready ");
    observe(Duration::from_millis(300), "the flows are another's", || entries(&farm) == 4);
    other.signal(Signal::TERM);
    other.exit(Duration::from_secs(10));
    assert!(!other.stderr().contains("director"), "{}", other.stderr());
    reeve.kill();
    assert_eq!(entries(&farm), 4);
    let reeve = farm.reeve(&without, RULES);
    none_is_left(&farm, 3);
    for said in ["taken out flows=4", "there is no [director] here"] {
        until(said, || reeve.stderr().contains(said).then_some(()));
    }
    // The packets of who plays come to this process.
    watch.media_ends();
    let mut two = viewer(&farm);
    let session = two.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    two.ask("PLAY", URL, &session).good();
    watch.media_comes();
    assert!(relayed(&farm) > 5.0);
}
