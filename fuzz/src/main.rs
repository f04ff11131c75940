//! One libFuzzer binary for all targets: `FUZZ_TARGET` names the one to run.
//!
//! A target takes any bytes at all and asserts what holds for all of them. Its body lies in a module that has no need of
//! libFuzzer: the tests of the crate that it tries include the same file, and run it over `corpus/<target>`.
#![no_main]

#[path = "protocol.rs"]
mod protocol_targets;
#[path = "relay.rs"]
mod relay_targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| target()(data));

/// The body that the environment asks for.
fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let all = [protocol_targets::TARGETS, relay_targets::TARGETS].concat();
        match all.iter().find(|(name, _)| *name == wanted) {
            Some((_, body)) => *body,
            None => {
                panic!("FUZZ_TARGET is one of {:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>())
            }
        }
    })
}
