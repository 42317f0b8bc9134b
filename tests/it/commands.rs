//! The command line: `check`, `explain`, and what asks the running process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::farm::process::run;
use crate::farm::reeve::{Site, command, pool, project};
use crate::farm::{Client, Origin, Reeve, among_others, get, until};

const DEADLINE: Duration = Duration::from_secs(20);

fn reeve(args: &[&str]) -> (i32, String, String) {
    run(command().args(args), DEADLINE)
}

fn say(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn the_sample_configuration_is_good() {
    let file = project().join("config/reeve.toml");
    let (code, out, wrong) = reeve(&["check", "-c", say(&file)]);
    assert_eq!(code, 0, "{out}{wrong}");
    // From the project's folder the name may be left out.
    let (code, out, wrong) = run(command().current_dir(project()).arg("check"), DEADLINE);
    assert_eq!(code, 0, "{out}{wrong}");
}

/// Every configuration under `tests/faults/` is wrong, and says where. What is said is in the golden files;
/// here it is the exit code that counts: 2 for a text that cannot be used, 1 where only expectations fail.
#[test]
fn wrong_texts_are_refused_with_their_place() {
    let files = configurations(&project().join("tests/faults"));
    assert!(files.len() >= 30, "thirty wrong texts at least, not {}", files.len());
    for file in files {
        let check = |more: &[&str]| {
            let mut check = command();
            check.args(["check", "-c", say(&file)]).args(more).envs(pairs(&file.with_file_name("environment.txt")));
            for (key, value) in pairs(&file.with_file_name("command-line.txt")) {
                check.args(["--set", &format!("{key}={value}")]);
            }
            run(&mut check, DEADLINE)
        };
        let (code, out, wrong) = check(&[]);
        let said = out + &wrong;
        let golden = std::fs::read_to_string(file.with_file_name("expected.txt")).expect("each has a golden file");
        let errors: Vec<&str> = golden.lines().filter(|line| line.contains(": error: ")).collect();
        let wanted = if errors.is_empty() {
            0
        } else if errors.iter().all(|line| line.ends_with("[R0304]")) {
            1
        } else {
            2
        };
        assert_eq!(code, wanted, "{}\n{said}", file.display());
        if errors.is_empty() {
            continue;
        }
        let place = said.lines().find(|line| line.contains(": error: "));
        let place = place.unwrap_or_else(|| panic!("{}: no error line\n{said}", file.display()));
        // Variables and options have no lines.
        if !place.starts_with("environment: ") && !place.starts_with("command line: ") {
            let mut parts = place.split(": error: ").next().unwrap_or("").rsplitn(3, ':');
            let numbers = [parts.next(), parts.next()].map(|part| part.and_then(|text| text.parse::<u32>().ok()));
            assert!(numbers.iter().all(Option::is_some), "{}: no LINE:COLUMN in {place:?}", file.display());
        }

        let (code, out, wrong) = check(&["--format", "json"]);
        assert_eq!(code, wanted, "{}\n{out}{wrong}", file.display());
        let faults: Vec<serde_json::Value> =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{}: {e}\n{out}", file.display()));
        let errors: Vec<_> = faults.iter().filter(|fault| fault["severity"] == "error").collect();
        assert!(!errors.is_empty(), "{}: {out}", file.display());
        for fault in errors {
            for key in ["file", "line", "column", "end", "severity", "code", "message", "allowed", "suggestion"] {
                assert!(fault.get(key).is_some(), "{}: no {key} in {fault}", file.display());
            }
        }
    }
}

/// `NAME=value`, a line each; none where there is no such file.
fn pairs(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// The `.toml` files of a folder and its sub-folders.
fn configurations(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry of a folder").path();
        if path.is_dir() {
            found.extend(configurations(&path));
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn an_expectation_that_fails_has_its_own_exit_code() {
    let config = pool("web", "rr", &[("one", "127.0.0.1:9".into())]);
    let site = Site::write("expect", &config, "http *\n  all : any  use web\nexpect GET /x -> deny\n");
    let (code, out, wrong) = reeve(&["check", "-c", say(&site.config())]);
    assert_eq!(code, 1, "{out}{wrong}");
    let said = out + &wrong;
    assert!(said.contains("site.rules:3:"), "it names the line: {said}");
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let (code, out, wrong) = reeve(&["check", "-c", "nowhere/reeve.toml"]);
    assert_eq!(code, 2, "{out}{wrong}");
    assert!((out + &wrong).contains("nowhere/reeve.toml"));
}

#[test]
fn help_names_the_commands() {
    let (code, out, _) = reeve(&["--help"]);
    assert_eq!(code, 0);
    for word in ["run", "demo", "check", "explain", "status", "servers", "connections"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(word)), "no {word} in\n{out}");
    }
}

#[test]
fn explain_tells_the_rule() {
    let config =
        pool("web", "rr", &[("one", "127.0.0.1:9".into())]) + &pool("img", "rr", &[("i1", "127.0.0.1:9".into())]);
    let rules = "http shop.example\n  images : path *.png & header x-kind = \"thumb\"  use img\n  \
                 inside : from 10.0.0.0/8  deny\n  rest : any  use web\n";
    let site = Site::write("explain", &config, rules);
    let file = site.config();
    let (code, out, wrong) =
        reeve(&["explain", "GET", "http://shop.example/a.png", "-H", "x-kind: thumb", "-c", say(&file)]);
    assert_eq!(code, 0, "{out}{wrong}");
    assert!(out.contains("images") && out.contains("img"), "{out}");
    let (code, out, _) = reeve(&["explain", "GET", "http://shop.example/a.png", "-c", say(&file)]);
    assert_eq!(code, 0);
    assert!(out.contains("site.rules:rest"), "{out}");
    assert!(out.contains("images"), "the rule that did not match is told too: {out}");
    let (code, out, _) = reeve(&["explain", "GET", "http://shop.example/", "--from", "10.1.2.3", "-c", say(&file)]);
    assert_eq!(code, 0);
    assert!(out.contains("inside"), "{out}");
    let json = ["explain", "GET", "http://shop.example/", "--format", "json", "-c", say(&file)];
    let (code, out, _) = reeve(&json);
    assert_eq!(code, 0);
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    let (code, out, wrong) = reeve(&["explain", "GET", "http://other.example/", "-c", say(&file)]);
    assert_eq!(code, 1, "no route is exit code 1: {out}{wrong}");
}

#[test]
fn the_running_process_tells_what_it_sees() {
    let _turn = among_others();
    let origin = Origin::start("one");
    let reeve_ = Reeve::before("status", &[("one", origin.address()), ("two", "127.0.0.1:9".into())]);
    let socket = reeve_.site.socket();
    let mut client = Client::connect(&reeve_.address());
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("a request is in flight", || (origin.held() == 1).then_some(()));
    for what in ["status", "servers", "connections"] {
        let (code, out, wrong) = reeve(&[what, "--socket", &socket]);
        assert_eq!(code, 0, "{what}: {out}{wrong}");
        assert!(!out.trim().is_empty(), "{what} says something");
        let (code, out, wrong) = reeve(&[what, "--socket", &socket, "--format", "json"]);
        assert_eq!(code, 0, "{what}: {out}{wrong}");
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{what}: {out}");
    }
    let (_, servers, _) = reeve(&["servers", "--socket", &socket]);
    for word in ["web", "one", "two", &origin.address()] {
        assert!(servers.contains(word), "no {word} in\n{servers}");
    }
    let (_, connections, _) = reeve(&["connections", "--socket", &socket]);
    let local = client.stream().local_addr().expect("the client's address").to_string();
    assert!(connections.contains(&local), "no {local} in\n{connections}");
    // The configuration names the socket too.
    let (code, out, wrong) = reeve(&["status", "-c", say(&reeve_.site.config())]);
    assert_eq!(code, 0, "{out}{wrong}");
    origin.release();
    assert_eq!(client.answer("GET").expect("an answer").text(), "released");
}

#[test]
fn the_control_socket_is_for_its_owner() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let _turn = among_others();
    let origin = Origin::start("one");
    let reeve_ = Reeve::before("socket", &[("one", origin.address())]);
    let data = std::fs::metadata(reeve_.site.socket()).expect("the socket");
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
}

#[test]
fn nobody_at_the_socket_is_exit_code_three() {
    let (code, out, wrong) = reeve(&["status", "--socket", "/nonexistent/reeve.sock"]);
    assert_eq!(code, 3, "{out}{wrong}");
}

#[test]
fn an_address_that_is_taken_is_exit_code_four() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let text = format!(
        "[listen.web]\naddress = [\"{address}\"]\nprotocol = \"http\"\nrules = [\"rules/site.rules\"]\n{}",
        pool("web", "rr", &[("one", "127.0.0.1:9".into())])
    );
    let site = Site::write("taken", "", "http *\n  all : any  use web\n");
    let file = site.folder.write("taken.toml", text);
    let (code, out, wrong) = run(Command::new(command().get_program()).args(["run", "-c", say(&file)]), DEADLINE);
    assert_eq!(code, 4, "{out}{wrong}");
    assert!(wrong.contains(&address.to_string()), "it names the address: {wrong}");
}

#[test]
fn the_environment_overrides_the_file() {
    let config = pool("web", "rr", &[("one", "127.0.0.1:9".into())]);
    let site = Site::write("environment", &config, "http *\n  all : any  use web\n");
    // `Process::start` removes REEVE_ variables, so the shell sets them.
    let with = |setting: &str| {
        let mut env = Command::new("env");
        env.arg(setting).arg(command().get_program()).args(["check", "-c", say(&site.config())]);
        run(&mut env, DEADLINE)
    };
    assert_eq!(with("REEVE_LIMITS__HEADER_COUNT=50").0, 0);
    for wrong in ["REEVE_LIMITS__HEADER_COUNT=many", "REEVE_LIMITS__HEADRE_COUNT=5"] {
        let (code, out, said) = with(wrong);
        assert_eq!(code, 2, "{wrong}: {out}{said}");
        let variable = wrong.split('=').next().expect("a name");
        assert!((out + &said).contains(variable), "it names {variable}");
    }
}

#[test]
fn the_error_page_carries_an_id_that_the_log_knows() {
    let _turn = among_others();
    let origin = Origin::start("one");
    let site = Site::write(
        "id",
        &pool("web", "rr", &[("one", origin.address())]),
        "http shop.example\n  all : any  use web\n",
    );
    let reeve_ = Reeve::run(site);
    let answer = get(&reeve_.address(), "/", &[("Accept", "application/problem+json")]);
    assert_eq!(answer.status, 404);
    let line = until("the line is in the log", || reeve_.log().into_iter().next());
    let id = line["id"].as_str().expect("an id").to_owned();
    assert!(answer.text().contains(&id), "{id} in {}", answer.text());
}
