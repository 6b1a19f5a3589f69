//! upstream

pub mod headers;
