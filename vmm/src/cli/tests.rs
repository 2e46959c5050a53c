//! Tests of command lines.
