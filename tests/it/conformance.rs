//! The HTTP/1 cases of `tests/conformance/`: raw bytes in, and a strict recording origin behind.

use std::time::Duration;

use crate::farm::peer::{program, test_file};
use crate::farm::ports::Port;
use crate::farm::process::run;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Reeve, among_others, skip};

/// The runner takes 80 s where every case ends at once, and more where it waits for timeouts.
const DEADLINE: Duration = Duration::from_secs(400);

#[test]
fn all_public_cases_pass_and_leave_nothing_behind() {
    all_pass("conformance", "conformance/h1_cases_public.jsonl", Over::Tcp);
}

#[test]
fn all_public_cases_pass_over_tls_too() {
    all_pass("conformance-tls", "conformance/h1_cases_public.jsonl", Over::Tls);
}

#[test]
fn all_neighbours_of_the_public_cases_pass_and_leave_nothing_behind() {
    all_pass("neighbours", "conformance/h1_cases_own.jsonl", Over::Tcp);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Tls,
}

fn all_pass(label: &str, cases: &str, over: Over) {
    let _turn = among_others();
    let Some(mut python) = program("python3") else { return skip("no python3 for the runner") };
    if program("pgrep").is_none() {
        return skip("no pgrep (procps) for the runner");
    }
    let cases = test_file(cases);
    // Three checks come after the run: idle CPU, memory, descriptors.
    let count = std::fs::read_to_string(&cases).expect("the cases").lines().count() + 3;
    let origin = Port::free();
    // The profile that the cases were made against: an origin has five seconds at least, and what a
    // client left half-said is given up before the checks after the run.
    let config = pool("origin", "rr", &[("origin", origin.address())])
        + "\n[timeouts]\nrequest-header = \"6s\"\nrequest-body = \"8s\"\nresponse = \"8s\"\nresponse-body = \"8s\"\n\
           client-keep-alive = \"8s\"\nserver-keep-alive = \"8s\"\n";
    let secure = Port::free();
    let config = match over {
        Over::Tcp => config,
        Over::Tls => {
            config
                + &format!(
                    "\n[listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\n\
                     tls = {{ certificates = \"certs\" }}\n\n[state]\npath = \"state\"\n",
                    secure.address()
                )
        }
    };
    let site = Site::write(label, &config, "http *\n  all : any  use origin\n");
    let names = ["t.example", "localhost", "127.0.0.1"];
    Authority::new("cases").issue("t.example", &names).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let (address, options) = match over {
        Over::Tcp => (reeve.address(), &[][..]),
        Over::Tls => (secure.address(), &["--tls"][..]),
    };
    let runner = python
        .arg(test_file("conformance/run_h1_cases.py"))
        .arg("--cases")
        .arg(cases)
        .args(["--proxy", &address, "--origin-port", &origin.number.to_string()])
        .args(options)
        .args(["--pid", &reeve.process.id().to_string()]);
    let (code, said, wrong) = run(runner, DEADLINE);
    println!("{said}{wrong}");
    assert_eq!(code, 0, "cases failed; see above");
    assert!(said.contains(&format!("{count} passed, 0 failed (of {count})")), "every case and three checks");
}
