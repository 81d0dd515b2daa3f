#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Verification as a service: what it answers, what it survives, and what its page shows.

mod api;
mod backup;
mod browser;
mod cluster;
mod hostile;
mod page;
mod running;
mod shares;
#[path = "../../../crates/pkcs11/tests/softhsm/mod.rs"]
#[expect(dead_code, reason = "tests of the library need more of it")]
mod softhsm;
mod targets;
mod tls;
mod tokens;
mod traces;
