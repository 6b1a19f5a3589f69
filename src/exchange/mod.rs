//! exchange

pub mod view;
