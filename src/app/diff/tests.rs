//! Tests of `diff` from configuration texts to what is told.
