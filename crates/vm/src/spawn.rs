//! Starting QEMU so that it cannot outlive this process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::error::VmError;
use crate::kind::{MachineKind, Program};

/// The first line of the `--version` of QEMU for machines of a kind.
pub fn qemu_version(kind: MachineKind) -> Result<String, VmError> {
    let program = kind.program();
    let output = Command::new(program.name)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| not_started(program, source))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Starts QEMU with `arguments` and with `files` as its file descriptors of the given numbers.
/// Its standard error is a pipe.
pub(crate) fn start_qemu(
    kind: MachineKind,
    arguments: Vec<std::ffi::OsString>,
    files: Vec<(i32, OwnedFd)>,
) -> Result<Child, VmError> {
    let program = kind.program();
    let mut command = Command::new(program.name);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mappings = files
        .into_iter()
        .map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        })
        .collect();
    command
        .fd_mappings(mappings)
        .expect("the descriptors' numbers are constants, each used once");
    die_with_parent(&mut command);
    spawn_from_lasting_thread(command).map_err(|source| not_started(program, source))
}

fn not_started(program: Program, source: io::Error) -> VmError {
    if source.kind() == io::ErrorKind::NotFound {
        VmError::QemuMissing {
            program: program.name,
            package: program.package,
        }
    } else {
        VmError::Start {
            program: program.name,
            source,
        }
    }
}

/// Has the kernel kill the command when the thread that starts it ends.
#[expect(unsafe_code, reason = "pre_exec is the only way in front of exec")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call (prctl), which is safe
    // there: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

struct Job {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

/// "Parent" in `PR_SET_PDEATHSIG` is a thread. This one lasts as long as the process, so a machine
/// may be started by a thread that ends before it.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::spawn(move || {
        for mut job in jobs {
            // Nobody waits for the answer only if the caller's thread is gone; then the child
            // must go too.
            let unheard = job.answer.send(job.command.spawn());
            if let Err(mpsc::SendError(Ok(mut child))) = unheard {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    });
    Mutex::new(sender)
});

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    let (answer, child) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts QEMU ended");
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Job { command, answer })
        .map_err(|_| gone(mpsc::RecvError))?;
    child.recv().map_err(gone)?
}
