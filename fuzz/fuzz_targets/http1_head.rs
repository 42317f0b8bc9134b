//! Feeds libFuzzer's bytes to `targets::http1_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::http1_head(data));
