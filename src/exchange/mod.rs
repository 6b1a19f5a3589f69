//! exchange

pub mod canonical;
pub mod forwarded;
