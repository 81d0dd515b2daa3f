//! Tests that need virtual machines.
