//! Feeds libFuzzer's bytes to `targets::proxy_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::proxy_header(data));
