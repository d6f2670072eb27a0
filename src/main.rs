//! aims
fn main() {}
