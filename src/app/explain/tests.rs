//! Tests of `explain` from configuration text to what is told.
