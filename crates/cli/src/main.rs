//! `preverify`: verify BPF programs off the device.

#![forbid(unsafe_code)]

mod build;
mod daemon;
mod inputs;
mod inspect;
mod key;
mod output;
mod serve;
mod service;
mod signer;
mod steps;
mod submit;
mod target;
#[cfg(test)]
mod usage;
mod verify;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What is shown has so many columns at most: longer lines are broken.
const WIDTH: usize = 100;

/// Verify BPF programs with the device's own kernel, off the device; prove, sign and show them
#[derive(Parser)]
#[command(
    version,
    max_term_width = WIDTH,
    after_help = "\
From nothing to a bundle:
  preverify target add debian:6.12-cloud-amd64 --name board
  preverify key generate --out signer.pem
  preverify build xdp.bpf.o --target board --key signer.pem -o xdp.pvb
  preverify inspect xdp.pvb --trust signer.x509

Devices get xdp.pvb and signer.x509; there, `preverify-load` loads the one and trusts the other."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Target(target::Command),
    #[command(subcommand)]
    Key(key::Command),
    Build(Box<build::Args>),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Serve(Box<serve::Args>),
    Worker(worker::Args),
    #[command(subcommand)]
    Service(service::Command),
    Submit(Box<submit::Args>),
}

fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn Error>> = match Arguments::parse().command {
        Command::Target(command) => target::run(command).map_err(Into::into),
        Command::Key(command) => key::run(&command).map_err(Into::into),
        Command::Build(args) => build::run(&args).map_err(Into::into),
        Command::Inspect(args) => inspect::run(&args).map_err(Into::into),
        Command::Verify(args) => verify::run(&args).map_err(Into::into),
        Command::Serve(args) => serve::run(&args).map_err(Into::into),
        Command::Worker(args) => worker::run(&args).map_err(Into::into),
        Command::Service(command) => service::run(&command).map_err(Into::into),
        Command::Submit(args) => submit::run(&args).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&*error);
            ExitCode::FAILURE
        }
    }
}
