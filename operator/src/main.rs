//! The KalamDB operator.

fn main() {}
