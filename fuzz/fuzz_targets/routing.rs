//! Feeds libFuzzer's bytes to `targets::routing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::routing(data));
