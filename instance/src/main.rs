//! One KalamDB database process: HTTP, authentication, configuration.

fn main() {}
