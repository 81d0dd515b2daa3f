//! Bundles as their users see them.

mod common;
mod format;
mod signing;
