//! The program `taskrun`.

fn main() {}
