//! Feeds libFuzzer's bytes to `targets::lists`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::lists(data));
