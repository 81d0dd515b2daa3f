//! `cargo xtask soak`: what runs for long, to see what a service survives.

mod cluster;
mod faults;

pub use cluster::{ClusterArgs, cluster};
