//! chronos-cli
fn main() {}
