//! Feeds libFuzzer's bytes to `targets::sdp_transport`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::sdp_transport(data));
