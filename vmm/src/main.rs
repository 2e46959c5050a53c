//! The program `spindle`.

fn main() {}
