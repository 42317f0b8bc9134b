//! Feeds libFuzzer's bytes to `targets::http1_chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::http1_chunked(data));
