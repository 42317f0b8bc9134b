//! Replays every file of `fuzz/corpus/` on the stable compiler: seeds, and what fuzzing once found.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry of the corpus").path();
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // The harness prints this when the next line panics.
        println!("{}", path.display());
        run(&bytes);
        // Whatever holds for it must hold for every beginning of it: bytes arrive in pieces.
        for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            run(&bytes[..cut]);
        }
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn http1_head() {
    replay("http1_head", targets::http1_head);
}

#[test]
fn http1_chunked() {
    replay("http1_chunked", targets::http1_chunked);
}

#[test]
fn h2_request() {
    replay("h2_request", targets::h2_request);
}

#[test]
fn client_hello() {
    replay("client_hello", targets::client_hello);
}

#[test]
fn proxy_header() {
    replay("proxy_header", targets::proxy_header);
}

#[test]
fn rtsp_message() {
    replay("rtsp_message", targets::rtsp_message);
}

#[test]
fn sdp_transport() {
    replay("sdp_transport", targets::sdp_transport);
}

#[test]
fn rules() {
    replay("rules", targets::rules);
}

#[test]
fn routing() {
    replay("routing", targets::routing);
}

#[test]
fn lists() {
    replay("lists", targets::lists);
}

#[test]
fn config() {
    replay("config", targets::config);
}

#[test]
fn certificate() {
    replay("certificate", targets::certificate);
}

#[test]
fn import() {
    replay("import", targets::import);
}
