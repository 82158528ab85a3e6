//! matrix
fn main() {}
