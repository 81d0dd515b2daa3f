//! `preverify-load`, the device's command.
//!
//! Devices have no libraries to rely on and little space, so it is a small static binary:
//! `cargo xtask build` makes it.

#![forbid(unsafe_code)]

mod arguments;
mod command;
mod help;
mod json;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use command::CommandError;

/// The kernel part said no, or no image fits, as opposed to any other failure.
const REFUSED: u8 = 3;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("preverify-load: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let Err(error) = command::run(command, &mut io::stdout().lock()) else {
        return ExitCode::SUCCESS;
    };
    // Whoever reads the output has seen enough.
    if matches!(&error, CommandError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("preverify-load: {}", with_causes(&error));
    if let Some(way_out) = way_out(&error) {
        eprintln!("preverify-load: {way_out}");
    }
    match error.is_refusal() {
        true => ExitCode::from(REFUSED),
        false => ExitCode::FAILURE,
    }
}

fn with_causes(error: &CommandError) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

fn way_out(error: &CommandError) -> Option<&'static str> {
    if let Some(refusal) = error.refusal() {
        // An open keyring, or one without the signer.
        return (refusal.program.is_none() && [libc::EPERM, libc::ENOKEY].contains(&refusal.errno))
            .then_some("`preverify-load trust CERT...` decides, once, whose bundles are loaded");
    }
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        .then_some(
            "it needs CAP_BPF and CAP_PERFMON, CAP_NET_ADMIN for network programs, CAP_SYS_ADMIN \
             for some: run it as root",
        )
}

fn causes(error: &CommandError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}
