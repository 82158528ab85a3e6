//! bitnet
fn main() {}
