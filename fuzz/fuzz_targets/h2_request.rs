//! Feeds libFuzzer's bytes to `targets::h2_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::h2_request(data));
