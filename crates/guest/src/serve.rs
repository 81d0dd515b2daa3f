//! Answers the host, for ever.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use preverify_protocol::frame::{self, FrameError};
use preverify_protocol::{ProgramRef, Reply, Request, TestRunReply, TestRunRequest};
use rustix::event::Timespec;
use rustix::system::{RebootCommand, reboot};

use crate::descriptors::pinned;
use crate::error::{AgentError, failed};
use crate::exec::exec;
use crate::holder::Holders;
use crate::machine;
use crate::port::Port;
use crate::test_run::test_run;

/// How long to wait for a request before looking for ended processes.
const TICK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Opens the port and answers what comes.
pub fn serve() -> Result<Infallible, AgentError> {
    let mut port = Port::open()?;
    let mut holders = Holders::new()?;
    loop {
        holders.reap();
        if !port.wait_for_request(&TICK)? {
            continue;
        }
        let reply = match frame::receive(&mut port) {
            Ok(request) => answer(&mut holders, &mut port, request),
            Err(FrameError::Io(error)) => {
                // Hosts go away; the next one starts anew.
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    eprintln!("preverify-agent: {error}");
                }
                continue;
            }
            Err(error) => {
                if let Err(error) = port.drain() {
                    eprintln!("preverify-agent: {error}");
                }
                failed(error, 0)
            }
        };
        if let Err(error) = frame::send(&mut port, &reply) {
            eprintln!("preverify-agent: cannot answer: {error}");
        }
    }
}

fn answer(holders: &mut Holders, port: &mut Port, request: Request) -> Reply {
    carry_out(holders, port, request).unwrap_or_else(Into::into)
}

fn carry_out(
    holders: &mut Holders,
    port: &mut Port,
    request: Request,
) -> Result<Reply, AgentError> {
    match request {
        Request::Hello => machine::hello().map(Reply::Hello),
        Request::Symbols => machine::symbols().map(Reply::Symbols),
        Request::Exec(request) => exec(request).map(Reply::Exec),
        Request::WriteFile {
            path,
            mode,
            contents,
        } => write_file(Path::new(&path), mode, &contents).map(|()| Reply::Done),
        Request::ReadFile { path } => fs::read(&path)
            .map(Reply::File)
            .map_err(AgentError::file("read", path)),
        Request::KernelLog => machine::kernel_log().map(Reply::KernelLog),
        Request::PowerOff => {
            rustix::fs::sync();
            reboot(RebootCommand::PowerOff).map_err(AgentError::system("turn the machine off"))?;
            Ok(Reply::Done)
        }
        Request::Load(request) => {
            // A host that is gone is noticed when it shall have the answer.
            let mut tell = |processed| drop(frame::send(port, &Reply::Processed(processed)));
            holders.load(request, &mut tell).map(Reply::Load)
        }
        Request::Unload { handle } => holders.unload(handle).map(|()| Reply::Done),
        Request::TestRun(request) => run(holders, request).map(Reply::TestRun),
    }
}

fn run(holders: &mut Holders, request: TestRunRequest) -> Result<TestRunReply, AgentError> {
    match &request.program {
        ProgramRef::Pinned(path) => {
            let program = pinned(path).map_err(AgentError::file("open", path))?;
            test_run(program.as_fd(), &request)
        }
        ProgramRef::Loaded { handle, function } => {
            holders.test_run(*handle, function.clone(), request)
        }
    }
}

fn write_file(path: &Path, mode: u32, contents: &[u8]) -> Result<(), AgentError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(AgentError::file("create", folder))?;
    }
    fs::write(path, contents).map_err(AgentError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(AgentError::file("set the permissions of", path))
}
