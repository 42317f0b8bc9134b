//! `reeve real-server`: makes this machine a real server of a director that sends by tunnel.

use std::process::ExitCode;

use super::args::RealServerArguments;
use super::{FAULT, output};
use crate::director::real::{self, Real};

/// What a link has where its MTU cannot be read.
const ETHERNET: u16 = 1500;

pub fn main(arguments: &RealServerArguments) -> ExitCode {
    let interface = &arguments.interface;
    let done = if arguments.stop {
        real::end(interface, &arguments.pins).map(|there| match there {
            true => format!("{interface}: tunnels are opened no more\n"),
            false => format!("{interface}: no tunnels were opened here\n"),
        })
    } else {
        let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok();
        let most = real::most(mtu.and_then(|text| text.trim().parse().ok()).unwrap_or(ETHERNET));
        let most = [arguments.mss4.unwrap_or(most[0]), arguments.mss6.unwrap_or(most[1])];
        let real = Real { interface, directors: &arguments.director, most, pins: &arguments.pins };
        real::begin(&real).map(|()| {
            let whose: Vec<String> = arguments.director.iter().map(ToString::to_string).collect();
            let whose = if whose.is_empty() { "everybody".to_owned() } else { whose.join(", ") };
            format!(
                "{interface}: tunnels of {whose} are opened; SYN-ACKs offer {} (IPv6: {}) at most\n",
                most[0], most[1]
            )
        })
    };
    match done {
        Ok(text) => {
            output::print(&text);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            output::complain(&format!("reeve real-server: {fault}\n"));
            ExitCode::from(FAULT)
        }
    }
}
