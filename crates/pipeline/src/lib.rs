//! From an object and a target to a bundle.
