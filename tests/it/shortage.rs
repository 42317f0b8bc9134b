//! What Reeve does when its machine has not enough: it says so, serves whom it can, and recovers.

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::{Site, command, pool};
use crate::farm::watch::DEADLINE;
use crate::farm::{Client, Folder, Origin, Reeve, alone, among_others, get, skip, until};

const RULES: &str = "http *\n  all : any  use web\n";

#[test]
fn without_descriptors_some_are_told_to_come_again_and_no_server_is_blamed() {
    let _turn = alone();
    if run(Command::new("prlimit").arg("--version"), DEADLINE).0 != 0 {
        return skip("no prlimit");
    }
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())])
        + "check = { tcp = true, interval = \"100ms\", timeout = \"90ms\", fall = 1 }\n";
    let site = Site::write("shortage", &config, RULES);
    // 256 are kept back for other things, so that 344 clients are let in; they would need as many servers again.
    let limited = |program: &Command| {
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=600:600").arg("--").arg(program.get_program());
        limited
    };
    let mut process = Process::start(limited(&command()).arg("run").arg("-c").arg(site.config()));
    listens(&mut process, &site.address());
    listens(&mut process, &site.metrics());
    let reeve = Reeve { process, site };

    const CLIENTS: usize = 300;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&reeve.address())).collect();
    // All are let in before any asks, so that it is servers that cannot be reached.
    let idle = || reeve.metric("reeve_connections{listener=\"web\",state=\"idle\"}").unwrap_or(0.0) as usize;
    until("all clients are let in", || (idle() == CLIENTS).then_some(()));
    for client in &mut clients {
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    }
    let shed = || reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"shortage\"}").unwrap_or(0.0) as usize;
    let log = || std::fs::read_to_string(reeve.site.log()).unwrap_or_default();
    let told = || log().matches("\"failure\":\"shortage\",\"side\":\"reeve\"").count();
    until("every client is answered or waits for the server", || (origin.held() + told() == CLIENTS).then_some(()));
    let before = told();
    origin.release();
    let statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| {
            let answer = client.answer("GET").expect("an answer");
            assert!(answer.status == 200 || answer.field("retry-after") == Some("1"), "{}", answer.text());
            answer.status
        })
        .collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(refused > 20 && refused == before && refused < CLIENTS / 2, "{refused} of {CLIENTS}, {before} logged");
    println!("  {refused} of {CLIENTS} clients were told to come again");
    drop(clients);
    until("the farm serves again", || (get(&reeve.address(), "/x", &[]).status == 200).then_some(()));
    assert_eq!(shed(), refused);
    assert_eq!(reeve.metric("reeve_server_up{pool=\"web\",server=\"web\"}"), Some(1.0));
    reeve.process.says("LimitNOFILE");
    assert!(!reeve.process.stderr().contains("server down"));
}

/// A file system of 256 KiB, for as long as this is held.
struct Small(Folder);

impl Small {
    fn mount() -> Option<Small> {
        let folder = Folder::new("small-disk");
        let mount = ["-t", "tmpfs", "-o", "size=256k", "reeve-test"];
        let (code, _, _) = run(Command::new("mount").args(mount).arg(folder.path()), DEADLINE);
        (code == 0).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Reeve may still have its log open there.
        run(Command::new("umount").arg("-l").arg(self.0.path()), DEADLINE);
    }
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    let _turn = alone();
    let Some(disk) = Small::mount() else { return skip("not root: no small disk can be mounted") };
    let origin = Origin::start("web");
    let site = Site::write("full", &pool("web", "rr", &[("web", origin.address())]), RULES);
    let text = std::fs::read_to_string(site.config()).expect("the configuration");
    let log = disk.0.path().join("access.log");
    let text = text.replace(&site.log().display().to_string(), &log.display().to_string());
    let state = disk.0.path().join("state");
    site.folder.write("reeve.toml", format!("{text}\n[state]\npath = \"{}\"\n", state.display()));
    let reeve = Reeve::run(site);

    let mut client = Client::connect(&reeve.address());
    let mut ask = || assert_eq!(client.request("GET", "/x", &[]).expect("an answer").status, 200);
    let dropped = || reeve.metric("reeve_log_dropped_total").unwrap_or(0.0);
    until("the disk is full and lines are lost", || {
        (0..100).for_each(|_| ask());
        (dropped() > 0.0).then_some(())
    });
    reeve.process.says("access log");
    std::fs::write(&log, "").expect("room again");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().filter(|line| line.ends_with('}')).count();
    until("lines are written again", || {
        ask();
        (lines() > 5).then_some(())
    });
}

#[test]
fn without_memory_new_requests_are_told_to_come_again_and_the_others_go_on() {
    let _turn = alone();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]) + "\n[limits]\nmemory = \"64MiB\"\n";
    let reeve = Reeve::start("memory", &config, RULES);
    // One under way, and an idle one.
    let mut held = Client::connect(&reeve.address());
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("it is held", || (origin.held() == 1).then_some(()));
    let mut idle = Client::connect(&reeve.address());
    assert_eq!(idle.request("GET", "/x", &[]).expect("an answer").status, 200);

    // Heads that are never whole: 60 KiB each.
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(60 << 10));
    let slow: Vec<Client> = (0..2000)
        .map(|_| {
            let mut client = Client::connect(&reeve.address());
            client.send(&head).expect("sent");
            client
        })
        .collect();
    reeve.process.says("memory is short");
    let answer = until("a request is turned away", || {
        let answer = get(&reeve.address(), "/x", &[]);
        (answer.status == 503).then_some(answer)
    });
    assert_eq!((answer.field("retry-after"), answer.field("connection")), (Some("1"), Some("close")));
    assert!(reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"shortage\"}").unwrap_or(0.0) >= 1.0);
    assert_eq!(idle.read(&mut [0]).expect("its end"), 0, "idle connections are let go of");
    origin.release();
    assert_eq!(held.answer("GET").expect("an answer").status, 200, "what is under way goes on");
    drop(slow);
    until("the farm serves again", || (get(&reeve.address(), "/x", &[]).status == 200).then_some(()));
    reeve.process.says("memory is enough again");
}

#[test]
fn with_too_few_descriptors_to_start_it_serves_with_all_its_workers_or_says_why_not() {
    let _turn = alone();
    if run(Command::new("prlimit").arg("--version"), DEADLINE).0 != 0 {
        return skip("no prlimit");
    }
    let origin = Origin::start("web");
    let site = Site::write("few", &pool("web", "rr", &[("web", origin.address())]), RULES);
    let (mut ended, mut served) = (0, 0);
    for descriptors in (8..48).step_by(3) {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={descriptors}:{descriptors}")).arg("--").arg(command().get_program());
        let mut process = Process::start(limited.arg("run").arg("-c").arg(site.config()));
        let serves = until("it serves or has ended", || match process.running() {
            false => Some(false),
            true => process.stderr().contains(" ready ").then_some(true),
        });
        // Each connection lands at a worker of the kernel's choice.
        let answered = |_| {
            let mut client = Client::try_connect(&site.address())?;
            // Where not one client can be let in, none is waited for.
            client.stream().set_read_timeout(Some(Duration::from_secs(1)))?;
            client.request("GET", "/x", &[]).map(|answer| answer.status)
        };
        if serves && (0..16).map(answered).all(|status: io::Result<u16>| status.is_ok()) {
            served += 1;
        } else if !process.stderr().contains("LimitNOFILE") {
            assert!(!process.exit(DEADLINE).success(), "{descriptors}: {}", process.stderr());
            ended += 1;
        }
    }
    println!("  {ended} starts ended, {served} served");
    assert!(ended > 0 && served > 0, "{ended} ended, {served} served");
}

/// Debian's libfaketime: what a program takes for the time is read from a file.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn a_clock_that_jumps_ends_nothing_and_takes_nobody_out_of_service() {
    let _turn = among_others();
    if !std::path::Path::new(FAKETIME).exists() {
        return skip("no libfaketime");
    }
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())])
        + "check = { tcp = true, interval = \"50ms\", timeout = \"40ms\", fall = 1 }\n";
    let site = Site::write("clock", &config, RULES);
    let clock = site.folder.write("clock", "+0");
    let mut program = command();
    program.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &clock);
    // Time that only runs on does so, as on a machine whose clock is set.
    program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    let mut process = Process::start(program.arg("run").arg("-c").arg(site.config()));
    listens(&mut process, &site.address());
    listens(&mut process, &site.metrics());
    let reeve = Reeve { process, site };
    let mut held = Client::connect(&reeve.address());
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("it is held", || (origin.held() == 1).then_some(()));
    let mut kept = Client::connect(&reeve.address());
    let mut year = |wanted: &str| {
        until("the date follows", || {
            let answer = kept.request("GET", "/nodate", &[]).expect("an answer on the same connection");
            assert_eq!(answer.status, 200);
            answer.field("date").is_some_and(|date| date.contains(wanted)).then_some(())
        });
    };
    let now = || {
        let mut date = Command::new("date");
        run(date.arg("-u").arg("+%Y"), DEADLINE).1.trim().parse::<u32>().expect("a year")
    };
    for years in [30, -20, 0] {
        let text = if years < 0 { format!("{years}y") } else { format!("+{years}y") };
        reeve.site.folder.write("clock", text);
        year(&format!(" {} ", now() as i32 + years));
        let took = || reeve.metric("reeve_check_duration_seconds{pool=\"web\",server=\"web\"");
        let before = took();
        until("checks go on", || (took() != before).then_some(()));
        assert_eq!(reeve.metric("reeve_server_up{pool=\"web\",server=\"web\"}"), Some(1.0));
    }
    origin.release();
    assert_eq!(held.answer("GET").expect("an answer").status, 200);
    let said = reeve.process.stderr();
    assert!(!said.contains("server down") && !said.contains("WARN") && !said.contains("ERROR"), "{said}");
}
