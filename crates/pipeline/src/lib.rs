//! From an object and a target to a bundle.

#![forbid(unsafe_code)]

pub mod diagnosis;
