//! router

pub mod index;
