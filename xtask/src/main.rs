//! The project's own commands: `cargo xtask test` and friends.

#![forbid(unsafe_code)]

mod run;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Everything that passes before a landing.
    Test,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Test => test::test(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
