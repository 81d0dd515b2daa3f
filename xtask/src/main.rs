//! The project's own commands: `cargo xtask test` and friends.

#![forbid(unsafe_code)]

mod header;
mod run;
mod test;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Everything that passes before a landing.
    Test,
    /// Writes the kernel part's C header from `crates/abi`.
    Header {
        /// Only compare the committed header.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn Error>> = match Command::parse() {
        Command::Test => test::test().map_err(Into::into),
        Command::Header { check } => header::header(check).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
