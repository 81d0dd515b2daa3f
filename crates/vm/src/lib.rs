//! Boot kernels in QEMU, snapshot and restore them, talk to their agent.

#![forbid(unsafe_code)]

pub mod initramfs;
