//! The `sconce` program. (being written)

fn main() {}
