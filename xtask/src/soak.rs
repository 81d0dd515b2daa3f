//! `cargo xtask soak`: what runs for long, to see what a service survives.

mod cluster;
mod faults;
mod hostile;

pub use cluster::{ClusterArgs, cluster};
pub use hostile::{HostileArgs, hostile};
