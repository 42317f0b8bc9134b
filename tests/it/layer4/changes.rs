//! Services that come and go at run time, by `ipvsadm`; and what is said where there can be none.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::farm::Folder;
use crate::farm::process::{Process, run};
use crate::farm::reeve::{program, released};

use super::net::{NAT, Net, rows};

#[test]
fn services_of_run_time_live_beside_configured_ones_and_outlive_a_kill() {
    let Some(mut net) = Net::new("l4-own", &["curl", "nginx"]) else { return };
    for role in ["s1", "s2"] {
        net.web(role, 8080);
    }
    let mut reeve = net.reeve(
        "[pool.web]\nservers = [\"10.2.0.11:8080\"]\n[director.service.web]\naddress = \"10.1.0.101:80\"\npool = \"web\"\n",
    );
    reeve.ipvsadm(&net, &format!("-A -t {NAT}:80 -s wrr"));
    reeve.ipvsadm(&net, &format!("-a -t {NAT}:80 -r 10.2.0.11:8080 -m -w 2"));
    reeve.ipvsadm(&net, &format!("-a -t {NAT}:80 -r 10.2.0.12:8080 -m"));
    let url = format!("http://{NAT}/");
    let heard: Vec<String> = (0..6).map(|_| net.curl(&url).chars().take(2).collect()).collect();
    // Added in this order, with these weights, IPVS begins with a round of all, and s1 has two of three.
    assert_eq!(heard, ["s2", "s1", "s1", "s2", "s1", "s1"]);
    let saved = reeve.ipvsadm(&net, "-Sn");
    assert!(saved.contains(&format!("-a -t {NAT}:80 -r 10.2.0.11:8080 -m -w 2\n")), "{saved}");
    let said = |words: &[&str]| reeve.order(&net, &[&["ipvsadm"], words].concat());
    let service = format!("{NAT}:80");
    assert_eq!(said(&["-A", "-t", &service]), (255, String::new(), "Service already exists\n".to_owned()));
    let (code, _, wrong) = said(&["-D", "-t", "10.1.0.101:80"]);
    assert!(code == 255 && wrong.contains("[director.service.web]"), "{wrong}");
    assert_eq!(said(&["-L", "-t", "10.9.9.9:1"]), (1, String::new(), "No such service\n".to_owned()));
    let before = rows(&reeve.ipvsadm(&net, "-Ln"));
    reeve.kill();
    assert!(net.curl(&url).starts_with('s'), "the kernel goes on by itself");
    reeve.begin(&net);
    let bare = |rows: &[String]| {
        rows.iter().map(|row| row.split(' ').take(4).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(bare(&rows(&reeve.ipvsadm(&net, "-Ln"))), bare(&before));
    assert!(net.curl(&url).starts_with('s'));
    // Cleared and restored: the configured one stays all the while.
    reeve.ipvsadm(&net, "-C");
    let listed = rows(&reeve.ipvsadm(&net, "-Ln"));
    assert_eq!(listed.len(), 2, "{listed:?}");
    let mine: String = saved.lines().filter(|line| line.contains(NAT)).map(|line| format!("{line}\n")).collect();
    assert_eq!(restore(&net, &reeve.socket, &mine), (0, String::new(), String::new()));
    assert_eq!(reeve.ipvsadm(&net, "-Sn"), saved);
    // A server of one-packet services by nat is of one only, and what cannot be is refused with the reason.
    let (one, other) = (format!("{NAT}:53"), "10.1.0.101:53");
    for service in [&one, other] {
        reeve.ipvsadm(&net, &format!("-A -u {service} -o"));
    }
    reeve.ipvsadm(&net, &format!("-a -u {one} -r 10.2.0.11:53 -m"));
    let (code, _, wrong) = reeve.order(&net, &["ipvsadm", "-a", "-u", other, "-r", "10.2.0.11:53", "-m"]);
    assert!(code == 255 && wrong.contains("answers for"), "{wrong}");
    for service in [&one, other] {
        reeve.ipvsadm(&net, &format!("-D -u {service}"));
    }
    // A file that is damaged is put aside, and what is in the tables counts.
    reeve.kill();
    let file = net.folder.path().join("state/director.json");
    std::fs::write(&file, "{").expect("the file");
    reeve.begin(&net);
    assert_eq!(reeve.ipvsadm(&net, "-Sn"), saved);
    assert!(file.with_extension("json.damaged").exists() && std::fs::read(&file).expect("the file").len() > 2);
    reeve.ipvsadm(&net, "-Z");
    assert!(reeve.ipvsadm(&net, &format!("-Ln -t {NAT}:80 --stats")).contains(":80                       0        0"));
}

/// `ipvsadm -R` with this text.
fn restore(net: &Net, socket: &str, text: &str) -> (i32, String, String) {
    let mut command = net.command("d", program());
    command.args(["ipvsadm", "--socket", socket, "-R"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("reeve ipvsadm");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    let words = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), words(output.stdout), words(output.stderr))
}

#[test]
fn a_thousand_services_with_ten_thousand_servers_load_in_two_seconds() {
    let Some(net) = Net::new("l4-many", &[]) else { return };
    let reeve = net.reeve("");
    let mut text = String::new();
    for service in 0..1000 {
        let at = format!("10.3.{}.{}:80", service / 250, service % 250 + 1);
        text += &format!("-A -t {at} -s wlc\n");
        for server in 0..10 {
            text += &format!("-a -t {at} -r 10.4.{server}.{}:8080 -m -w {}\n", service % 250 + 1, server + 1);
        }
    }
    let began = Instant::now();
    assert_eq!(restore(&net, &reeve.socket, &text), (0, String::new(), String::new()));
    let took = began.elapsed();
    let listed = reeve.ipvsadm(&net, "-Ln");
    assert_eq!(rows(&listed).len(), 11_000);
    eprintln!("11,000 lines restored in {took:?}");
    assert!(took < Duration::from_secs(if released() { 2 } else { 10 }), "{took:?}");
    assert_eq!(reeve.ipvsadm(&net, "-Sn").lines().count(), 11_000);
}

#[test]
fn where_it_cannot_be_the_rest_serves_and_says_why() {
    let Some(net) = Net::new("l4-cannot", &["curl", "setpriv"]) else { return };
    let config = |interface: &str, folder: &Folder| {
        let socket = folder.path().join("reeve.sock");
        let state = folder.path().join("state");
        format!(
            "[listen.web]\naddress = [\"127.0.0.1:8080\"]\npool = \"web\"\n[pool.web]\nservers = [\"127.0.0.1:1\"]\n\
             [process]\nworkers = 1\nsocket = \"{}\"\n[state]\npath = \"{}\"\n\
             [director]\ninterfaces = [\"{interface}\"]\nflows = 1024\npin = \"/sys/fs/bpf/rv-cannot-{}\"\n\
             [director.service.web]\naddress = \"10.1.0.100:80\"\npool = \"web\"\n",
            socket.display(),
            state.display(),
            std::process::id()
        )
    };
    // A missing interface, and nobody's user.
    for (interface, user, said) in [
        ("eth9", &[][..], "there is no interface eth9: `ip link` lists those there are"),
        ("front", &["--reuid=65534", "--clear-groups"][..], "the folder of pins has to be this user's to write"),
    ] {
        let folder = Folder::new("l4-cannot-texts");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everybody).expect("a mode");
        let file = folder.write("reeve.toml", config(interface, &folder)).display().to_string();
        let binary = program();
        let mut process = if user.is_empty() {
            net.start("d", binary, &["run", "-c", &file])
        } else {
            net.start("d", "setpriv", &[user, &[binary, "run", "-c", &file]].concat())
        };
        process.says(said);
        let (_, out, _) =
            net.output("d", "curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/"]);
        assert_eq!(out, "502", "L7 serves: {}", process.stderr());
        ends(&mut process);
    }
    let _ = std::fs::remove_dir_all(format!("/sys/fs/bpf/rv-cannot-{}/links", std::process::id()));
    let _ = std::fs::remove_dir_all(format!("/sys/fs/bpf/rv-cannot-{}/maps", std::process::id()));
    let _ = std::fs::remove_dir(format!("/sys/fs/bpf/rv-cannot-{}", std::process::id()));
    // Without a process, in the tool's own words.
    let mut command = net.command("d", program());
    let (code, _, wrong) = run(command.args(["ipvsadm", "--socket", "/nowhere.sock", "-L"]), Duration::from_secs(10));
    assert_eq!(code, 2);
    assert!(
        wrong.starts_with("Can't initialize ipvs: ") && wrong.contains("Are you sure that IP Virtual Server"),
        "{wrong}"
    );
}

fn ends(process: &mut Process) {
    process.signal(rustix::process::Signal::TERM);
    let status = process.exit(Duration::from_secs(20));
    assert!(status.success(), "{}", process.stderr());
}
