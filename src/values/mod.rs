//! values

pub mod go_regex;
