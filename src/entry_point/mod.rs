//! entry_point
