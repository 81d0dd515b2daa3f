//! Verify BPF programs off the device: the command.

fn main() {}
