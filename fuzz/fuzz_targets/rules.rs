//! Feeds libFuzzer's bytes to `targets::rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rules(data));
