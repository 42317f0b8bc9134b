//! Writing to the terminal, where nobody may be reading any more.

use std::io::Write;

/// Writes to stdout. A reader that has gone away (`reeve check | head`) is no fault of ours.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes to stderr.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
