//! chronos-server
fn main() {}
