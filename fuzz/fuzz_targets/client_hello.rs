//! Feeds libFuzzer's bytes to `targets::client_hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::client_hello(data));
