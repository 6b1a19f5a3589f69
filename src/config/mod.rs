//! Configuration: files, flags, environment and labels become one tree with positions, and the
//! tree becomes typed sections; what is wrong is collected as diagnostics.

pub mod diagnostics;
pub mod tree;
