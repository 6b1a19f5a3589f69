//! What the fuzz targets do, one module each: a function of bytes that panics when an invariant is broken.
//!
//! `src/bin` hands them to libFuzzer, and `tests/corpus.rs` of the proxy, which includes this file, replays the corpora.

pub mod admin;
pub mod answers;
mod compiled;
pub mod configuration;
pub mod credentials;
pub mod exchange;
pub mod fields;
pub mod formats;
pub mod gate;
pub mod hello;
pub mod host;
pub mod options;
mod pieces;
pub mod proxy_protocol;
pub mod request_path;
pub mod response;
pub mod rules;
pub mod settings;
mod shelf;
pub mod templates;
pub mod tunnels;

/// What a target does with one input.
pub type Target = fn(&[u8]);

/// All targets by name. The name is that of the file in `src/bin`, the folder in `corpus` and the dictionary.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin", admin::run),
    ("answers", answers::run),
    ("configuration", configuration::run),
    ("credentials", credentials::run),
    ("exchange", exchange::run),
    ("fields", fields::run),
    ("formats", formats::run),
    ("gate", gate::run),
    ("hello", hello::run),
    ("host", host::run),
    ("options", options::run),
    ("proxy_protocol", proxy_protocol::run),
    ("request_path", request_path::run),
    ("response", response::run),
    ("rules", rules::run),
    ("rules_v2", rules::run_v2),
    ("settings", settings::run),
    ("templates", templates::run),
    ("tunnels", tunnels::run),
];
