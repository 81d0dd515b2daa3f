//! The agent in a verifier VM: PID 1, libbpf inside.
//!
//! It prepares the machine, then answers the host's requests on a virtio-serial port until the
//! machine is turned off. When it ends for any reason, the kernel panics, and that is what the
//! host sees on the console.
//!
//! A VM's initramfs has no libraries, so the agent is built as a static binary:
//!
//! ```text
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
//!     cargo build -p preverify-guest --profile small --target x86_64-unknown-linux-gnu
//! ```

mod descriptors;
mod error;
mod exec;
mod export;
mod holder;
mod inputs;
mod layout;
mod libbpf;
mod limits;
mod load;
mod machine;
mod modules;
mod mounts;
mod port;
mod serve;
mod settings;
mod statistics;
mod test_run;

use std::convert::Infallible;
use std::env;
use std::path::Path;
use std::process::ExitCode;

use error::AgentError;

/// Modules that the port itself may need.
const EARLY_MODULES: &str = "/lib/preverify/early";
/// The kernel part, and what else the host put there.
const MODULES: &str = "/lib/preverify";

fn main() -> ExitCode {
    if env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == holder::HOLD)
    {
        return finish(holder::hold());
    }
    if std::process::id() != 1 {
        eprintln!(
            "preverify-agent is the first process of a verifier VM: put it into an initramfs as /init"
        );
        return ExitCode::FAILURE;
    }
    let Err(error) = run();
    finish(Err(error))
}

fn run() -> Result<Infallible, AgentError> {
    mounts::mount_all()?;
    settings::apply()?;
    settings::bring_loopback_up()?;
    modules::insert_all(Path::new(EARLY_MODULES))?;
    modules::insert_all(Path::new(MODULES))?;
    layout::occupy()?;
    serve::serve()
}

fn finish(result: Result<(), AgentError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("preverify-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
