//! What the fuzz targets do, one module each: a function of bytes that panics when an invariant is broken.
//!
//! `src/bin` hands them to libFuzzer, and `tests/corpus.rs` of the proxy, which includes this file, replays the corpora.

mod compiled;
pub mod configuration;
pub mod gate;
pub mod host;
pub mod request_path;
pub mod response;
pub mod rules;

/// What a target does with one input.
pub type Target = fn(&[u8]);

/// All targets by name. The name is that of the file in `src/bin`, the folder in `corpus` and the dictionary.
pub const TARGETS: &[(&str, Target)] = &[
    ("configuration", configuration::run),
    ("gate", gate::run),
    ("host", host::run),
    ("request_path", request_path::run),
    ("response", response::run),
    ("rules", rules::run),
];
