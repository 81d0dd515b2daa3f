//! `cargo xtask test`: formatting, lints, tests.

use crate::run::{RunError, run};

pub fn test() -> Result<(), RunError> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run(
        "cargo",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    run("cargo", &["test", "--workspace", "--lib", "--bins"])
}
