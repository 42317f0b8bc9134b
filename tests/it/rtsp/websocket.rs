//! RTSP over WebSocket, as ONVIF has it: real frames of other people's libraries, and an RTSP server behind them.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use super::peers::{Origin, Script};
use crate::farm::peer::{python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens};
use crate::farm::reeve::pool;
use crate::farm::{Reeve, among_others, observe, skip, until};

const FRAMES: usize = 50;

/// An HTTP listener routes it by its path, and passes it on; however long nothing is said.
#[test]
fn a_camera_behind_a_websocket_is_played() {
    let _turn = among_others();
    let (Some(mut bridge), Some(mut viewer)) = (python_with_packages(), python_with_packages()) else {
        return skip("no Python with aiohttp and websockets; ./check makes one");
    };
    let script = test_file("it/rtsp_websocket.py");
    let camera = Origin::start(Script { frames: FRAMES, ..Script::default() });
    let port = Port::free();
    let server_port = camera.address.rsplit(':').next().expect("a port").to_owned();
    let mut bridge = Process::start(bridge.arg(&script).arg("bridge").arg(port.number.to_string()).arg(server_port));
    listens(&mut bridge, &port.address());
    let config = pool("cameras", "rr", &[("camera", port.address())])
        + "[timeouts]\nclient-keep-alive = \"500ms\"\nresponse = \"500ms\"\nresponse-body = \"500ms\"\n";
    let rules = "http *\n  cameras : path /rtsp-over-websocket  use cameras\n  rest : any  deny\n";
    let reeve = Reeve::start("rtsp-websocket", &config, rules);
    viewer.arg(&script).args(["play", &reeve.address(), "/rtsp-over-websocket", &FRAMES.to_string()]);
    let mut viewer = viewer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a viewer");
    let asked = |method: &str| camera.seen().iter().filter(|asked| asked.first.starts_with(method)).count();
    until("it plays", || (asked("PLAY") == 1).then_some(()));
    observe(Duration::from_millis(1500), "nobody is cut off", || viewer.try_wait().is_ok_and(|ended| ended.is_none()));
    let mut input = viewer.stdin.take().expect("its input");
    input.write_all(b"\n").expect("a line");
    let out = viewer.wait_with_output().expect("its end");
    assert!(out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("played {FRAMES}\nleft\n"));
    assert_eq!((asked("SETUP"), asked("TEARDOWN")), (1, 1));
}
