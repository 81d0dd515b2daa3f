//! Loads pre-verified bundles on a device: no verifier, no libbpf, no JIT is asked.

#![deny(unsafe_code)]

pub mod attach;
#[expect(unsafe_code, reason = "system calls")]
pub mod sys;
