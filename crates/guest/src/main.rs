//! The agent in a verifier VM: PID 1, libbpf inside.

fn main() {}
