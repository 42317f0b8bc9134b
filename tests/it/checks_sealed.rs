//! Checks that go by TLS, from the first byte or asked for on the way, and RTSP's: real servers, the right and the wrong ones.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::farm::daemon::{Daemon, root, sbin};
use crate::farm::nginx::Nginx;
use crate::farm::peer::test_file;
use crate::farm::ports::Port;
use crate::farm::process::listens;
use crate::farm::reeve::{Site, command};
use crate::farm::{Authority, Folder, Reeve, among_others, skip, until};

const MX: &str = "mx.example";

/// A pool of one server, how it is checked, and what is said of it: `Err` has a part of why it is down.
struct Asked {
    pool: &'static str,
    address: String,
    check: &'static str,
    state: Result<(), &'static str>,
}

fn asked(pool: &'static str, port: &Port, check: &'static str, state: Result<(), &'static str>) -> Asked {
    Asked { pool, address: port.address(), check, state }
}

/// What is in the way of a certificate for another name.
const OTHER_NAME: Result<(), &str> = Err("invalid peer certificate: certificate not valid for name");
const GONE: Result<(), &str> = Err("connect refused");

/// Reeve on a system that trusts `authority`, once each pool is as it should be.
fn settled(label: &str, authority: &Authority, pools: &[Asked]) -> Reeve {
    let mut config = String::new();
    for Asked { pool, address, check, .. } in pools {
        config += &format!(
            "[pool.{pool}]\nservers = [{{ name = \"real\", address = \"{address}\" }}]\n\
             check = {{ {check}, interval = \"500ms\", timeout = \"2s\", jitter = \"0%\", rise = 1, fall = 1, start = \"down\" }}\n"
        );
    }
    let site = Site::write(label, &config, "http *\n  all : any  answer 200\n");
    let roots = site.folder.write("roots.pem", authority.pem());
    let mut command = command();
    command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
    let reeve = Reeve::run_by(command, site);
    for Asked { pool, check, state, .. } in pools {
        becomes(&reeve, pool, check, *state);
    }
    reeve
}

fn becomes(reeve: &Reeve, pool: &str, check: &str, state: Result<(), &str>) {
    let mut last = String::new();
    let known = || {
        let (_, out, _) = reeve.order(&["servers", pool, "--format", "json"]);
        let told: serde_json::Value = serde_json::from_str(&out).ok()?;
        let (up, reason) = (&told["servers"][0]["state"], told["servers"][0]["reason"].as_str().unwrap_or_default());
        let so = match state {
            Ok(()) => up == "up",
            Err(why) => up == "down" && reason.contains(why),
        };
        if !so && last != reason {
            last = reason.to_owned();
            println!("{pool}: {up}: {reason}");
        }
        so.then_some(())
    };
    until(&format!("{pool} ({check}) is {state:?}"), known);
}

/// A certificate for [`MX`] and its key, which nobody else may read: daemons insist.
fn written(authority: &Authority, folder: &Folder) -> (PathBuf, PathBuf) {
    let (certificate, key) = authority.issue("mx", &[MX]).write(folder, "mx");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    (certificate, key)
}

/// Its submission service stands for SMTP: the key engine of Debian 12's OpenSMTPD does not go with OpenSSL 3, and each of its
/// handshakes ends with an alert.
#[test]
fn dovecot_is_asked_for_tls() {
    let _turn = among_others();
    let Some(program) = sbin("dovecot").filter(|_| root()) else {
        return skip("no dovecot, or not root: see do_tools in ./check");
    };
    if !std::path::Path::new("/usr/lib/dovecot/submission-login").exists() {
        return skip("no dovecot-submissiond: see do_tools in ./check");
    }
    let (ours, folder, ports) = (Authority::new("ours"), Folder::new("dovecot-tls"), [(); 6].map(|()| Port::free()));
    let (certificate, key) = written(&ours, &folder);
    let [imap, imaps, pop3, pop3s, smtp, smtps] = &ports;
    let path = folder.path().display();
    let service = |plain: &str, at: &Port, sealed: &Port| {
        format!(
            "service {plain}-login {{\nchroot =\nclient_limit = 200\nservice_count = 0\ninet_listener {plain} {{\nport = {}\n}}\ninet_listener {plain}s {{\nport = {}\nssl = yes\n}}\n}}\n",
            at.number, sealed.number
        )
    };
    let text = format!(
        "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/log\nprotocols = imap pop3 submission\nlisten = 127.0.0.1\n\
         ssl = yes\nssl_cert = <{}\nssl_key = <{}\nsubmission_relay_host = 127.0.0.1\nhostname = mx.example\n{}{}{}service anvil {{\nchroot =\n}}\nservice stats {{\nchroot =\n}}\n\
         passdb {{\ndriver = static\nargs = password=x\n}}\nuserdb {{\ndriver = static\nargs = uid=1000 gid=1000 home=/tmp\n}}\n",
        certificate.display(),
        key.display(),
        service("imap", imap, imaps),
        service("pop3", pop3, pop3s),
        service("submission", smtp, smtps),
    );
    let file = folder.write("dovecot.conf", text);
    let mut server = Daemon::start(Command::new(program).arg("-F").arg("-c").arg(file));
    let pools = [
        asked("imap", imap, "imap = true, starttls = true, server-name = \"mx.example\"", Ok(())),
        asked("imap-name", imap, "imap = true, starttls = true, server-name = \"b.example\"", OTHER_NAME),
        asked("imaps", imaps, "imap = true, over-tls = true, server-name = \"mx.example\"", Ok(())),
        asked("pop3", pop3, "pop3 = true, starttls = true, server-name = \"mx.example\"", Ok(())),
        asked("pop3-name", pop3, "pop3 = true, starttls = true, server-name = \"b.example\"", OTHER_NAME),
        asked("pop3s", pop3s, "pop3 = true, over-tls = true, server-name = \"mx.example\"", Ok(())),
        asked("smtp", smtp, "smtp = \"a.example\", starttls = true, server-name = \"mx.example\"", Ok(())),
        asked("smtp-anybody", smtp, "smtp = \"a.example\", starttls = true, verify = false", Ok(())),
        asked("smtp-name", smtp, "smtp = true, starttls = true, server-name = \"b.example\"", OTHER_NAME),
        asked("smtps", smtps, "smtp = true, over-tls = true, server-name = \"mx.example\"", Ok(())),
        // Nobody begins to speak in clear there.
        asked("mixed", imaps, "imap = true, starttls = true", Err("waiting for the greeting")),
    ];
    let reeve = settled("dovecot-tls", &ours, &pools);
    server.kill();
    for pool in ["imap", "pop3s", "smtp"] {
        becomes(&reeve, pool, "after its end", GONE);
    }
}

#[test]
fn vsftpd_is_asked_for_tls() {
    let _turn = among_others();
    let Some(program) = sbin("vsftpd") else { return skip("no vsftpd: see do_tools in ./check") };
    let (ours, folder, ports) = (Authority::new("ours"), Folder::new("ftp-tls"), [(); 2].map(|()| Port::free()));
    let (certificate, key) = written(&ours, &folder);
    let start = |port: &Port, tls: bool| {
        let mut text = format!(
            "listen=YES\nlisten_port={}\nlisten_address=127.0.0.1\nbackground=NO\nrun_as_launching_user=YES\n\
             secure_chroot_dir={}\nanonymous_enable=NO\nlocal_enable=YES\nseccomp_sandbox=NO\n",
            port.number,
            folder.path().display()
        );
        if tls {
            let (certificate, key) = (certificate.display(), key.display());
            text +=
                &format!("ssl_enable=YES\nrsa_cert_file={certificate}\nrsa_private_key_file={key}\nssl_ciphers=HIGH\n");
        }
        let file = folder.write(&format!("{}.conf", port.number), text);
        Daemon::start(Command::new(&program).arg(file))
    };
    let (mut server, _clear) = (start(&ports[0], true), start(&ports[1], false));
    let pools = [
        asked("way", &ports[0], "ftp = true, starttls = true, server-name = \"mx.example\"", Ok(())),
        asked("name", &ports[0], "ftp = true, starttls = true, server-name = \"b.example\"", OTHER_NAME),
        asked("none", &ports[1], "ftp = true, starttls = true, verify = false", Err("answered AUTH TLS with 5")),
    ];
    let reeve = settled("ftp-tls", &ours, &pools);
    server.kill();
    becomes(&reeve, "way", "after its end", GONE);
}

#[test]
fn nginx_by_https_and_by_its_handshake() {
    let _turn = among_others();
    let (ours, folder) = (Authority::new("ours"), Folder::new("https-checks"));
    let right = ours.issue("origin", &[MX]);
    let servers = [("right", &right, ""), ("expired", &ours.expired("origin", &[MX]), "")];
    let Some(nginx) = Nginx::start(&folder, &servers) else { return };
    let [right, expired] = &nginx.ports[..] else { return };
    let said = "https = \"/\", expect-body = \"^right TLSv1.3 sni=mx.example reused\", server-name = \"mx.example\"";
    let pools = [
        asked("https", right, said, Ok(())),
        asked("kept", right, "https = \"/\", keep-alive = true, server-name = \"mx.example\"", Ok(())),
        asked("body", right, "https = \"/\", expect-body = \"left\", server-name = \"mx.example\"", Err("no \"left\"")),
        asked("path", right, "https = \"/files/none\", verify = false", Err("status 404")),
        asked("name", right, "https = \"/\", server-name = \"b.example\"", OTHER_NAME),
        asked("tls", right, "tls = true, server-name = \"mx.example\"", Ok(())),
        asked("old", expired, "tls = true, server-name = \"mx.example\"", Err("certificate expired")),
        asked("whatever", expired, "tls = true, verify = false", Ok(())),
        // In clear it says 400 to whoever does not speak TLS.
        asked("clear", right, "http = \"/\"", Err("status 400")),
    ];
    let reeve = settled("https-checks", &ours, &pools);
    drop(nginx);
    for pool in ["https", "kept", "tls"] {
        becomes(&reeve, pool, "after its end", GONE);
    }
}

#[test]
fn gstreamer_by_rtsp() {
    let _turn = among_others();
    let (ours, folder, port, sealed) = (Authority::new("ours"), Folder::new("rtsp-checks"), Port::free(), Port::free());
    let (certificate, key) = written(&ours, &folder);
    let server = |port: &Port, more: &[&std::path::Path]| {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(test_file("it/rtsp_origin.py")).args(["--port", &port.number.to_string()]);
        if !more.is_empty() {
            command.arg("--tls").args(more);
        }
        crate::farm::process::Process::start(&mut command)
    };
    let mut there = Command::new("/usr/bin/python3");
    there.args(["-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]);
    if !there.output().is_ok_and(|output| output.status.success()) {
        return skip("no GstRtspServer: see do_tools in ./check");
    }
    let (mut plain, mut by_tls) = (server(&port, &[]), server(&sealed, &[&certificate, &key]));
    listens(&mut plain, &port.address());
    listens(&mut by_tls, &sealed.address());
    let pools = [
        asked("options", &port, "rtsp = \"OPTIONS\"", Ok(())),
        asked("describe", &port, "rtsp = \"DESCRIBE\", path = \"/test\"", Ok(())),
        asked("none", &port, "rtsp = \"DESCRIBE\", path = \"/nowhere\"", Err("status 404")),
        asked("sealed", &sealed, "rtsp = \"OPTIONS\", over-tls = true, server-name = \"mx.example\"", Ok(())),
        asked("name", &sealed, "rtsp = \"OPTIONS\", over-tls = true, server-name = \"b.example\"", OTHER_NAME),
    ];
    let reeve = settled("rtsp-checks", &ours, &pools);
    plain.kill();
    by_tls.kill();
    for pool in ["options", "describe", "sealed"] {
        becomes(&reeve, pool, "after its end", GONE);
    }
}
