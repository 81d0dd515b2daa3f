#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Verification as a service: what it answers, what it survives, and what its page shows.

mod api;
mod backup;
mod browser;
mod cluster;
mod page;
mod running;
mod shares;
mod targets;
mod tls;
mod traces;
