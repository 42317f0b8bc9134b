//! Feeds libFuzzer's bytes to `targets::rtsp_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rtsp_message(data));
