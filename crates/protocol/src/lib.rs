//! What a host and the agent in its VM say to each other.
//!
//! The host sends a [`Request`], the agent answers it with a [`Reply`]; each travels in one
//! [`frame`] over a byte stream (a virtio-serial port). One request is under way at a time. While an
//! object loads, the agent says now and then how far it is ([`Reply::Processed`]).
//!
//! Large fields of bytes go through `serde_bytes`: the same bytes on the wire, but copied at once
//! and not one by one, which an emulated guest notices.

#![forbid(unsafe_code)]

pub mod frame;
pub mod modules;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The version of the messages; host and agent must agree.
pub const PROTOCOL_VERSION: u32 = 4;

/// The guest's name of the virtio-serial port.
pub const PORT_PATH: &str = "/dev/vport0p1";

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? The first request on a connection.
    Hello,
    /// The text of `/proc/kallsyms`, with addresses.
    Symbols,
    /// Open and load a BPF object as libbpf does, all programs together, and export the programs.
    /// The loaded object stays until [`Request::Unload`].
    Load(LoadRequest),
    /// Close what [`Request::Load`] loaded.
    Unload {
        /// [`Loaded::handle`].
        handle: u32,
    },
    /// Run a loaded program with `BPF_PROG_TEST_RUN`.
    TestRun(TestRunRequest),
    /// Run a command and wait for it.
    Exec(ExecRequest),
    /// Write a file, and make its parent folders.
    WriteFile {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The whole contents.
        #[serde(with = "serde_bytes")]
        contents: Vec<u8>,
    },
    /// Read a file, to its end.
    ReadFile {
        /// Absolute path.
        path: String,
    },
    /// The kernel's log.
    KernelLog,
    /// Turn the machine off. No reply follows.
    PowerOff,
}

/// What the agent answers: the variant named like the request, or [`Reply::Failed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Answers [`Request::Hello`].
    Hello(Hello),
    /// Answers [`Request::Symbols`].
    Symbols(String),
    /// Goes before the answer to [`Request::Load`], about once a second: the instructions that the verifier has
    /// processed since the load began. Kernels that do not count them have it never.
    Processed(u64),
    /// Answers [`Request::Load`], whatever the verifier's verdict.
    Load(LoadReply),
    /// Answers [`Request::Load`]: the kernel's limits are these and cannot be changed, and others are wanted.
    FixedLimits(Limits),
    /// Answers [`Request::TestRun`].
    TestRun(TestRunReply),
    /// Answers [`Request::Exec`].
    Exec(ExecReply),
    /// Answers [`Request::ReadFile`].
    File(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Answers [`Request::KernelLog`].
    KernelLog(String),
    /// Answers requests that have nothing to tell but success.
    Done,
    /// The request could not be carried out.
    Failed {
        /// What was tried, and what went wrong.
        message: String,
        /// The errno, if one caused it, else zero.
        errno: i32,
    },
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The versions of what the verdict depends on, by name: `libbpf`, `agent`.
    pub versions: BTreeMap<String, String>,
    /// The answer of the kernel part's `IOC_INFO`, if a kernel part is there.
    pub info: Option<Vec<u8>>,
    /// The answer of `/proc/config.gz` or `/boot/config-*`, if the kernel has one (text).
    pub kernel_config: Option<String>,
}

/// An object to load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The ELF file.
    #[serde(with = "serde_bytes")]
    pub object: Vec<u8>,
    /// The object's name, for libbpf (`bpf_object_open_opts.object_name`).
    pub name: String,
    /// What the object's own user space would have set.
    pub inputs: Inputs,
    /// Load only these of its programs.
    pub share: Option<Share>,
    /// Export the loaded programs (needs the kernel part in its export role).
    pub export: bool,
    /// Create so many doubles of each map before the map itself, and keep them until the programs
    /// are exported: then the maps lie elsewhere, even where the kernel gives out its memory in the
    /// same order in every boot.
    pub doubles: u32,
    /// How far the verifier shall go.
    pub limits: WantedLimits,
    /// Give up after so many seconds, with [`Reply::Failed`] and `ETIMEDOUT`.
    pub time_limit: u32,
}

/// One of several parts of an object's programs, which are verified apart from each other: so an object with many programs
/// can be verified by several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which part, counted from zero.
    pub number: u32,
    /// Of how many.
    pub of: u32,
}

impl Share {
    /// Its programs among so many that would be loaded, in the object's order. All parts together are all of them, each
    /// once; and none has more than one program more than another.
    pub fn range(self, programs: usize) -> Range<usize> {
        let start = |number: u32| programs * number as usize / self.of as usize;
        start(self.number)..start(self.number + 1)
    }
}

/// How far a verifier shall go, where that is not left to its kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedLimits {
    /// [`Limits::insns`]; and [`Limits::length`] follows.
    pub insns: Option<u32>,
    /// [`Limits::jumps`].
    pub jumps: Option<u32>,
}

/// How far a kernel's verifier goes with one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Instructions that it processes, on all paths together.
    pub insns: u32,
    /// Branches that wait while it follows another.
    pub jumps: u32,
    /// Instructions that a program may have.
    pub length: u32,
}

impl Limits {
    /// Those of every kernel that has them built in: the numbers are constants in its sources.
    pub const STOCK: Self = Self {
        insns: 1_000_000,
        jumps: 8192,
        length: 1_000_000,
    };
    /// The most instructions that a program may have, whatever the limits: kernels count its pages in 16 bits.
    pub const LONGEST: u32 = 1 << 24;

    /// These limits, but for what is wanted otherwise.
    pub fn with(self, wanted: WantedLimits) -> Self {
        Self {
            insns: wanted.insns.unwrap_or(self.insns),
            jumps: wanted.jumps.unwrap_or(self.jumps),
            length: match wanted.insns {
                // To read each of its instructions once is the least.
                Some(insns) => insns.min(Self::LONGEST).max(self.length),
                None => self.length,
            },
        }
    }

    /// Whether a stock kernel may refuse what was accepted under these.
    pub fn exceed_stock(self) -> bool {
        self.insns > Self::STOCK.insns
            || self.jumps > Self::STOCK.jumps
            || self.length > Self::STOCK.length
    }
}

/// What an object's own user space would set between open and load.
///
/// It is read by people and programs from TOML and JSON, where everything may be left out. On the
/// wire nothing may: its format does not name fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Inputs {
    /// By map.
    pub maps: BTreeMap<String, MapInputs>,
    /// By program (the name of its function).
    pub programs: BTreeMap<String, ProgramInputs>,
    /// By global variable in `.rodata`, `.data` or `.bss`: its bytes in memory.
    pub globals: BTreeMap<String, GlobalValue>,
    /// Kconfig text; what it does not say, the kernel's own does.
    pub kconfig: Option<String>,
    /// Kernel modules to load first, by name.
    pub modules: Vec<String>,
}

/// Changes to one map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MapInputs {
    /// The number of entries.
    pub max_entries: Option<u32>,
    /// Bytes of a value.
    pub value_size: Option<u32>,
    /// Create it, or leave it out.
    pub autocreate: Option<bool>,
}

/// Changes to one program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProgramInputs {
    /// Load it, or leave it out.
    pub autoload: Option<bool>,
    /// The function or hook to attach to (`bpf_program__set_attach_target`).
    pub attach_target: Option<String>,
}

/// The initial value of a global variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GlobalValue {
    /// An integer of the variable's own size.
    #[serde(rename = "integer")]
    Integer(i64),
    /// Its bytes; shorter than the variable: the rest keeps the object's value.
    #[serde(rename = "bytes")]
    Bytes(Vec<u8>),
}

/// The verdict over an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LoadReply {
    /// The kernel took all programs.
    Accepted(Box<Loaded>),
    /// libbpf or the kernel refused.
    Rejected(Rejection),
}

/// A loaded object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Names it in later requests.
    pub handle: u32,
    /// The programs that were loaded, in the object's order.
    pub programs: Vec<LoadedProgram>,
    /// The maps that were created, in the object's order; then the templates of inner maps.
    pub maps: Vec<LoadedMap>,
    /// What prog arrays and arrays of maps hold from the start.
    pub slots: Vec<LoadedSlot>,
    /// The object's BTF as the kernel holds it: without what this kernel does not know.
    #[serde(with = "serde_bytes")]
    pub btf: Option<Vec<u8>>,
    /// How far the verifier would have gone.
    pub limits: Limits,
    /// libbpf's warnings.
    pub warnings: String,
}

/// One loaded program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadedProgram {
    /// The name of its function.
    pub function: String,
    /// The ELF section that it came from.
    pub elf_section: String,
    /// `BPF_F_*` flags that it was loaded with.
    pub prog_flags: u32,
    /// The name, in the kernel's BTF, of what it attaches to, if `attach_btf_id` is set: a function,
    /// `bpf_lsm_` and a hook, `btf_trace_` and a tracepoint, `bpf_iter_` and what is iterated, or a
    /// structure of functions.
    pub attach_name: Option<String>,
    /// The verifier's statistics.
    pub statistics: Statistics,
    /// The kernel part's export, if it was asked for.
    #[serde(with = "serde_bytes")]
    pub export: Option<Vec<u8>>,
}

/// The verifier's statistics, under veristat's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Instructions that the verifier processed.
    pub total_insns: u32,
    /// States that it kept in all.
    pub total_states: u32,
    /// States that it kept at the peak.
    pub peak_states: u32,
    /// The most states of one instruction.
    pub max_states_per_insn: u32,
    /// The longest walk to mark what is read.
    pub mark_read: u32,
    /// How long verification took, in microseconds. Differs from run to run.
    pub duration_us: u32,
}

/// One map of a loaded object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadedMap {
    /// The name in the object.
    pub full_name: String,
    /// The name in the kernel.
    pub name: String,
    /// The kernel's id, as exports name it; zero for a template.
    pub id: u32,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries.
    pub max_entries: u32,
    /// `BPF_F_*` flags.
    pub map_flags: u32,
    /// The map type's extra attribute.
    pub map_extra: u64,
    /// BTF type id of the key, or zero.
    pub btf_key_type_id: u32,
    /// BTF type id of the value, or zero.
    pub btf_value_type_id: u32,
    /// The initial contents of a map of global data.
    #[serde(with = "serde_bytes")]
    pub contents: Option<Vec<u8>>,
    /// An index into [`Loaded::maps`]: the template of the inner maps of a map of maps.
    pub inner: Option<u32>,
    /// Where the object wants it pinned.
    pub pin_path: Option<String>,
    /// Only a template for inner maps.
    pub template: bool,
}

/// One static entry of a prog array or array of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedSlot {
    /// An index into [`Loaded::maps`].
    pub map: u32,
    /// The key.
    pub key: u32,
    /// What it holds.
    pub content: SlotContent,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotContent {
    /// An index into [`Loaded::programs`].
    Program(u32),
    /// An index into [`Loaded::maps`].
    Map(u32),
}

/// Why an object was not loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// How far it came.
    pub stage: Stage,
    /// The program that the verifier rejected, by the name of its function.
    pub program: Option<String>,
    /// The errno.
    pub errno: i32,
    /// The verifier's log: with the path to its objection if the time limit allowed to produce it,
    /// and of that the last 16 MiB.
    pub verifier_log: String,
    /// libbpf's messages, and the agent's own.
    pub libbpf_log: String,
}

/// How far an object came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// libbpf could not read it, or an input did not fit.
    Open,
    /// libbpf could not prepare it: relocation, maps, a missing kernel feature.
    Prepare,
    /// The kernel's verifier rejected a program.
    Verify,
    /// The kernel took it, but it could not be exported.
    Export,
}

/// A program to run once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestRunRequest {
    /// Which.
    pub program: ProgramRef,
    /// The packet.
    pub data_in: Option<Vec<u8>>,
    /// The context.
    pub context_in: Option<Vec<u8>>,
    /// How often; zero is once. Programs whose type does not repeat run once or are refused.
    pub repeat: u32,
    /// `BPF_F_TEST_*` flags.
    pub flags: u32,
    /// Bytes for the packet that comes back.
    pub data_out_size: u32,
}

/// Names a loaded program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ProgramRef {
    /// Pinned in a BPF file system.
    Pinned(String),
    /// In an object that [`Request::Load`] loaded.
    Loaded {
        /// [`Loaded::handle`].
        handle: u32,
        /// The name of its function.
        function: String,
    },
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRunReply {
    /// Zero, or the errno of the system call; then nothing else counts.
    pub errno: i32,
    /// The program's return value.
    pub return_value: u32,
    /// The packet afterwards.
    pub data_out: Vec<u8>,
    /// The context afterwards.
    pub context_out: Vec<u8>,
    /// Nanoseconds of one run, on average.
    pub duration_ns: u32,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Additional environment variables.
    pub environment: BTreeMap<String, String>,
    /// What it reads.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// Kill it after so many seconds.
    pub time_limit: u32,
    /// Leave it running and answer at once with its process id.
    pub background: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// The exit code, or 128 + the signal's number; the process id of one left running.
    pub status: i32,
    /// What it wrote.
    #[serde(with = "serde_bytes")]
    pub stdout: Vec<u8>,
    /// What it complained about.
    #[serde(with = "serde_bytes")]
    pub stderr: Vec<u8>,
    /// Killed for its time limit.
    pub timed_out: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_programs_once() {
        for programs in [0, 1, 7, 90] {
            for of in 1..10 {
                let ranges: Vec<_> = (0..of)
                    .map(|number| Share { number, of }.range(programs))
                    .collect();
                let all: Vec<_> = ranges.iter().cloned().flatten().collect();
                assert_eq!(all, (0..programs).collect::<Vec<_>>());
                let (least, most) = (programs / of as usize, programs.div_ceil(of as usize));
                assert!(
                    ranges
                        .iter()
                        .all(|range| (least..=most).contains(&range.len())),
                    "{ranges:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_wanted_stays() {
        assert_eq!(Limits::STOCK.with(WantedLimits::default()), Limits::STOCK);
        let wanted = WantedLimits {
            jumps: Some(1_000_000),
            ..WantedLimits::default()
        };
        let limits = Limits::STOCK.with(wanted);
        assert_eq!(
            limits,
            Limits {
                jumps: 1_000_000,
                ..Limits::STOCK
            }
        );
        assert!(limits.exceed_stock());
        assert!(!Limits::STOCK.exceed_stock());
    }

    #[test]
    fn programs_may_be_as_long_as_what_is_processed() {
        let with = |insns| {
            let wanted = WantedLimits {
                insns: Some(insns),
                ..WantedLimits::default()
            };
            let limits = Limits::STOCK.with(wanted);
            (limits.insns, limits.length)
        };
        assert_eq!(with(2_000_000), (2_000_000, 2_000_000));
        assert_eq!(with(64_000_000), (64_000_000, Limits::LONGEST));
        // Less work is no reason to refuse what is never reached.
        assert_eq!(with(500), (500, 1_000_000));
    }
}
