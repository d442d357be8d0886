#![no_main]

#[allow(dead_code, reason = "each target uses its own part")]
#[path = "../decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::journal(data));
