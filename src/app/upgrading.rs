//! `reeve upgrade`: has another process take over from the running one, and prints what became of it.

use std::fmt::Write;
use std::process::ExitCode;

use super::args::UpgradeArguments;
use super::client::{self, ClientArgs};
use super::drain::escaped;
use super::{FAULT, absolute, output};
use crate::state::orders::Upgraded;

pub fn upgrade(args: &ClientArgs, arguments: &UpgradeArguments) -> ExitCode {
    let mut query = Vec::new();
    if let Some(binary) = &arguments.binary {
        query.push(format!("binary={}", escaped(&absolute(binary))));
    }
    if let Some(within) = arguments.within {
        query.push(format!("within={}", within.as_secs_f64()));
    }
    let answer = match client::order(args, &format!("/api/v1/upgrade?{}", query.join("&"))) {
        Ok(answer) => answer,
        Err(fault) => return client::complain(&fault),
    };
    let upgraded: Upgraded = match answer.parse() {
        Ok(upgraded) => upgraded,
        Err(fault) => return client::complain(&fault),
    };
    if args.json {
        output::print(&answer.text());
    } else if upgraded.done {
        output::print(&show(&upgraded));
    } else {
        output::complain(&complaint(&upgraded));
    }
    if upgraded.done { ExitCode::SUCCESS } else { ExitCode::from(FAULT) }
}

fn show(upgraded: &Upgraded) -> String {
    let Upgraded { binary, pid_before, pid, version_before, version, seconds, .. } = upgraded;
    format!(
        "upgraded in {seconds:.2} s: pid {pid} serves, reeve {version} from {binary}\n  \
         pid {pid_before}, reeve {version_before}, finishes what it has: see `reeve status`\n"
    )
}

fn complaint(upgraded: &Upgraded) -> String {
    let mut out = String::new();
    if !upgraded.said.is_empty() {
        let _ = writeln!(out, "what the new process said last:");
        for line in &upgraded.said {
            let _ = writeln!(out, "  {line}");
        }
    }
    let error = upgraded.error.as_deref().unwrap_or("for no known reason");
    let _ = writeln!(out, "reeve: {error}");
    let _ = writeln!(out, "not upgraded: pid {}, reeve {}, goes on", upgraded.pid_before, upgraded.version_before);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told() {
        let done = Upgraded {
            done: true,
            binary: "/usr/bin/reeve".into(),
            pid_before: 7,
            pid: 9,
            version_before: "1.2".into(),
            version: "1.3".into(),
            seconds: 2.345,
            ..Upgraded::default()
        };
        let expected = "upgraded in 2.35 s: pid 9 serves, reeve 1.3 from /usr/bin/reeve\n  pid 7, reeve 1.2, finishes what it \
                        has: see `reeve status`\n";
        assert_eq!(show(&done), expected);
        let failed =
            Upgraded { done: false, error: Some("it broke off".into()), said: vec!["panicked".into()], ..done };
        let expected = "what the new process said last:\n  panicked\nreeve: it broke off\nnot upgraded: pid 7, reeve 1.2, goes on\n";
        assert_eq!(complaint(&failed), expected);
    }
}
