//! The project's own commands: demo, test, bench, corpus.

fn main() {}
