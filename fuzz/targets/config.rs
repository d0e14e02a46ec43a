//! What it checks: README.md. Its body: `chronos::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| chronos_fuzz::run("config", input));
