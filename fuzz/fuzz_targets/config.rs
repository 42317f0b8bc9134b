//! Feeds libFuzzer's bytes to `targets::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::config(data));
