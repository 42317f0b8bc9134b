//! Feeds libFuzzer's bytes to `targets::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::certificate(data));
