//! What can go wrong with targets.

use std::io;
use std::path::PathBuf;

use preverify_abi::kinds::Architecture;
use preverify_btf::Difference;
use preverify_protocol::PROTOCOL_VERSION;
use preverify_vm::VmError;
use preverify_vm::initramfs::InitramfsError;

use crate::agent::AGENT_VARIABLE;
use crate::board::BoardError;
use crate::debian::DebianError;
use crate::files::CACHE_VARIABLE;
use crate::run::CommandError;
use crate::source::FLAVOURS;

/// What can go wrong with targets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no place for the cache.
    #[error("neither {CACHE_VARIABLE} nor HOME is set: set one to say where the cache is")]
    NoCache,
    /// A thread could not be started.
    #[error("a thread for a second virtual machine cannot be started: {0}")]
    Thread(io::Error),
    /// There is no target of that name.
    #[error("there is no target {name:?}; {}", there_is(known))]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A target's name that is no name.
    #[error(
        "{name:?} cannot name a target: expected letters, digits, and `.`, `+`, `-` or `_` behind \
         the first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is another target of that name.
    #[error(
        "there is a target {name:?} already, and its {difference} differs: give another name, or \
         remove that one (`preverify target remove {name}`)"
    )]
    Exists {
        /// The name.
        name: String,
        /// What is different.
        difference: &'static str,
    },
    /// A kernel's source that is none.
    #[error(
        "{text:?} names no kernel: expected debian:SERIES-FLAVOUR (debian:6.12-cloud-amd64) or \
         debian:RELEASE (debian:6.12.115+deb12-cloud-amd64), with one of the flavours {}",
        flavours()
    )]
    Source {
        /// What was given.
        text: String,
    },
    /// apt's sources do not have that kernel.
    #[error(
        "apt's sources on this host have no kernel {wanted}; of that flavour they have: {}",
        list(available)
    )]
    NoSuchKernel {
        /// The kernel.
        wanted: String,
        /// The releases that there are.
        available: Vec<String>,
    },
    /// The kernel's file is none.
    #[error(
        "{} is no kernel as boot loaders take it (x86_64: bzImage, arm64: Image or Image.gz, arm: zImage): \
         found {found}",
        path.display()
    )]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// A kernel that cannot be a target.
    #[error(
        "the kernel {release} cannot be a target; devices need one that is built otherwise:{}",
        lines(obstacles)
    )]
    Unfit {
        /// `uname -r`.
        release: String,
        /// What is wrong with its configuration, and why.
        obstacles: Vec<(String, &'static str)>,
    },
    /// A file that is no BTF.
    #[error(
        "{} is no raw BTF, as in /sys/kernel/btf/vmlinux or by `pahole --btf_encode_detached`: found {found}",
        path.display()
    )]
    NotBtf {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// BTF that is not needed.
    #[error(
        "the kernel {release} has BTF of its own (CONFIG_DEBUG_INFO_BTF): leave away the file that was given"
    )]
    BtfNotNeeded {
        /// `uname -r`.
        release: String,
    },
    /// A file that is no kernel's ELF file.
    #[error(
        "{} is no kernel's ELF file with symbols, as `make vmlinux` leaves it: found {found}",
        path.display()
    )]
    NotVmlinux {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The kernel of devices is of another source.
    #[error(
        "the kernel of devices in {} is {found}: expected a build of the source of {expected}, which verifies",
        path.display()
    )]
    OtherSource {
        /// The file.
        path: PathBuf,
        /// Its release.
        found: String,
        /// The release of the kernel that verifies.
        expected: String,
    },
    /// The kernel of devices differs in what code for every program relies on.
    #[error(
        "programs that the one kernel verifies cannot run on the other, {}: they differ in what code for programs \
         has built in; build both from one source, with configurations that are the same but for what devices \
         leave out:{}",
        path.display(),
        differences.iter().map(|difference| format!("\n    {difference}")).collect::<String>()
    )]
    Machinery {
        /// The file of the kernel of devices.
        path: PathBuf,
        /// All differences of that kind.
        differences: Vec<Difference>,
    },
    /// The kernel that verifies has no types.
    #[error(
        "the kernel {release} verifies for another build, so it needs BTF: build it with CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf {
        /// `uname -r`.
        release: String,
    },
    /// A folder of modules that is none.
    #[error(
        "{} is no folder of a kernel's modules: expected modules.builtin in it, as in \
         /lib/modules/RELEASE",
        folder.display()
    )]
    Modules {
        /// The folder.
        folder: PathBuf,
    },
    /// Headers that are none.
    #[error(
        "modules cannot be built against {}: expected {missing} there, as in the build folder of a \
         kernel after `make modules`",
        folder.display()
    )]
    Headers {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// Headers of another kernel.
    #[error(
        "the headers in {} are those of {found}: expected {expected}, as the kernel is",
        folder.display()
    )]
    OtherHeaders {
        /// The folder.
        folder: PathBuf,
        /// Their kernel.
        found: String,
        /// The kernel to add.
        expected: String,
    },
    /// A kernel that is another one than its headers are for.
    #[error(
        "the kernel that booted says that it is {found}: expected {expected}, as its headers are"
    )]
    OtherRelease {
        /// As its headers are.
        expected: String,
        /// As it says.
        found: String,
    },
    /// A module that the kernel does not have.
    #[error("the target's kernel has no module {name} in {}", folder.display())]
    NoModule {
        /// The module.
        name: String,
        /// Its folder of modules.
        folder: PathBuf,
    },
    /// The kernel part does not build against the kernel.
    #[error(
        "the kernel part does not build for {release} (the whole output is in {}):\n{printed}",
        log.display()
    )]
    Build {
        /// The kernel.
        release: String,
        /// The compiler's whole output.
        log: PathBuf,
        /// Its end.
        printed: String,
    },
    /// The agent is not there.
    #[error(
        "the agent is not at {}: it belongs beside this program, or in the folder that {AGENT_VARIABLE} names",
        path.display()
    )]
    NoAgent {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The agent needs libraries.
    #[error(
        "the agent {} is not a static {architecture} program, and a virtual machine has no libraries: build \
         it with -C target-feature=+crt-static, or name another folder in {AGENT_VARIABLE}",
        path.display()
    )]
    Agent {
        /// The agent.
        path: PathBuf,
        /// What it should be for.
        architecture: Architecture,
    },
    /// The agent speaks another version of the protocol.
    #[error(
        "the agent {} speaks version {found} of the protocol: expected {PROTOCOL_VERSION}; build \
         both from the same source",
        path.display()
    )]
    Protocol {
        /// The agent.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The kernel part does not answer as expected.
    #[error(
        "the kernel part in the virtual machine does not fit: expected {expected}, found {found}"
    )]
    KernelPart {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The agent could not do what was asked.
    #[error("the agent failed: {message}")]
    AgentFailed {
        /// What it said.
        message: String,
    },
    /// The agent answered another question.
    #[error("expected {expected} from the agent, found something else")]
    Answer {
        /// What was expected.
        expected: &'static str,
    },
    /// All boots have the same layout.
    #[error(
        "{boots} boots of {release} had the same addresses: two layouts are needed to tell addresses \
         from constants; {hint}"
    )]
    SameLayout {
        /// The kernel.
        release: String,
        /// How often it was booted.
        boots: usize,
        /// What may help.
        hint: &'static str,
    },
    /// A target's machine is not what it was.
    #[error(
        "the machine of the target {name} changed with this version of QEMU or its accelerator: \
         {what} was {recorded} and is {found} now; bundles for the one are not for the other, so \
         remove the target and add it again"
    )]
    Changed {
        /// The target.
        name: String,
        /// What changed.
        what: &'static str,
        /// What it was.
        recorded: String,
        /// What it is.
        found: String,
    },
    /// There is no snapshot of that number.
    #[error("there is no layout {index}: the target has {count}, counted from 0")]
    NoLayout {
        /// The number.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A file of the store cannot be read.
    #[error(
        "{} cannot be understood: {source}; remove the file, and add the target again",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel or the machine is not that of a board.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// A package could not be had.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The virtual machine failed.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The initial file system could not be made.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
}

fn there_is(known: &[String]) -> String {
    if known.is_empty() {
        "there are none yet: add one with `preverify target add`".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    }
}

fn lines(obstacles: &[(String, &str)]) -> String {
    obstacles
        .iter()
        .map(|(setting, reason)| format!("\n    {setting}: {reason}"))
        .collect()
}

fn flavours() -> String {
    let names: Vec<&str> = FLAVOURS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
