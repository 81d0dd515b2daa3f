//! Attaching programs.

pub mod plan;
