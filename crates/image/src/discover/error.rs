//! Why no image can be made of a program.

use std::fmt;

use preverify_abi::export as abi;
use preverify_abi::kinds::Architecture;
use thiserror::Error;

use crate::hex::Hex;

/// A program that no image can be made of, or two captures that do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// The program has something that a device cannot replay.
    #[error("the program `{program}` cannot be made loadable: {obstacles}")]
    Obstacles {
        /// The program.
        program: String,
        /// What it has.
        obstacles: Obstacles,
    },
    /// There are no images of machine code for this machine.
    #[error(
        "the program `{program}` was compiled for {arch}, for which there are no native images; bytecode images are for all architectures"
    )]
    Architecture {
        /// The program.
        program: String,
        /// The machine.
        arch: Architecture,
    },
    /// The export and the symbols come from different boots.
    #[error(
        "the export of the program `{program}` comes from a boot whose `_text` is {exported:#x}, the symbols from one whose `_text` is {symbols:#x}: take both from one boot"
    )]
    OtherBoot {
        /// The program.
        program: String,
        /// `_text` in the export.
        exported: u64,
        /// `_text` in the symbols.
        symbols: u64,
    },
    /// Calls of bytecode are relative to a symbol that the kernel lacks.
    #[error(
        "the program `{program}` cannot be made loadable: the kernel's symbols do not have `__bpf_call_base` exactly once, to which calls are relative"
    )]
    NoCallBase {
        /// The program.
        program: String,
    },
    /// Both boots have the kernel at the same address.
    #[error(
        "both boots have `_text` at {text:#x}, so addresses cannot be told from constants: boot again, with KASLR (no `nokaslr` on the command line)"
    )]
    SameLayout {
        /// The address.
        text: u64,
    },
    /// Two kernels, two programs, or two machines.
    #[error(
        "the two captures of the program `{program}` differ in {what}: {a} in one, {b} in the other; take both of one object, on one kernel, with the same CPU and command line"
    )]
    Differ {
        /// The program.
        program: String,
        /// What differs.
        what: String,
        /// What it is in one capture.
        a: String,
        /// What it is in the other.
        b: String,
    },
    /// Bytes that are no instruction.
    #[error("{at}: no instruction starts here ({bytes})")]
    Undecodable {
        /// Where.
        at: Box<At>,
        /// The first bytes.
        bytes: Hex,
    },
    /// A difference that is no address.
    #[error(
        "{at}: the other boot has `{other}` here, and the two differ in more than an address ({a} against {b})"
    )]
    Unclassified {
        /// Where.
        at: Box<At>,
        /// The instruction of the other boot.
        other: String,
        /// The instruction's bytes in one boot.
        a: Hex,
        /// The instruction's bytes in the other.
        b: Hex,
    },
    /// An operand that differs, and means nothing that is known.
    #[error(
        "{at}: {a:#x} in one boot and {b:#x} in the other are not the same map, map value, function or kernel symbol; {role}"
    )]
    UnknownAddress {
        /// Where.
        at: Box<At>,
        /// The address in one boot.
        a: u64,
        /// The address in the other.
        b: u64,
        /// What such an operand can be.
        role: &'static str,
    },
    /// An operand that means several things.
    #[error(
        "{at}: {a:#x} in one boot and {b:#x} in the other mean more than one thing: {meanings}"
    )]
    Ambiguous {
        /// Where.
        at: Box<At>,
        /// The address in one boot.
        a: u64,
        /// The address in the other.
        b: u64,
        /// What they mean.
        meanings: String,
    },
    /// By chance, something has the same address in both boots.
    #[error(
        "{at}: {meaning} has the address {address:#x} in both boots, and so has this operand, which may be a constant: boot again for another layout"
    )]
    SameAddress {
        /// Where.
        at: Box<At>,
        /// The address.
        address: u64,
        /// What has it.
        meaning: String,
    },
    /// An address that the JIT writes by another number of instructions than most.
    #[error(
        "{at}: {meaning} has an address ({a:#x} in one boot, {b:#x} in the other) that the JIT loads by other than three instructions, which most other addresses do not fit into: load the program again, so that its maps lie elsewhere"
    )]
    ShortGroup {
        /// Where.
        at: Box<At>,
        /// What has the address.
        meaning: String,
        /// The address in one boot.
        a: u64,
        /// The address in the other.
        b: u64,
    },
    /// A kernel function near enough for a call by one instruction.
    #[error(
        "{at}: {meaning} lies within 128 MiB of the program, so that the JIT calls it by one instruction, which on a device may not reach it: the kernel's address layout lets calls be short here; boot again, with KASLR (no `nokaslr` on the command line)"
    )]
    ShortCall {
        /// Where.
        at: Box<At>,
        /// What is called.
        meaning: String,
    },
    /// Something that the JIT does not write.
    #[error("{at}: this is not as the kernel's JIT writes it: {rule}")]
    Foreign {
        /// Where.
        at: Box<At>,
        /// What it writes.
        rule: &'static str,
    },
    /// An entry of an exception table that the kernel's handler does not understand as the JIT means it.
    #[error("program `{program}`, function {function}, exception {index}: {problem}")]
    Exception {
        /// The program.
        program: String,
        /// The function, by index.
        function: usize,
        /// The entry, by index.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The machine code says one thing, the bytecode another.
    #[error(
        "{at}: this is the address of {meaning}, but no instruction of the verified bytecode loads that"
    )]
    Disagreement {
        /// Where.
        at: Box<At>,
        /// What it is by its address.
        meaning: String,
    },
    /// The machine code does not load what the bytecode loads, or not in its order.
    #[error(
        "program `{program}`, function {function}: the machine code loads {native} pointers, which are not the {bytecode} that the verified bytecode loads, in its order"
    )]
    OtherPointers {
        /// The program.
        program: String,
        /// The function, by index.
        function: usize,
        /// Pointers that the machine code loads.
        native: usize,
        /// Pointers that the bytecode loads.
        bytecode: usize,
    },
    /// A direct tail call that is not as the JIT leaves it.
    #[error(
        "tail call {index} of the program `{program}` is not as the JIT writes it: {problem}; export the program while its prog array is empty"
    )]
    Poke {
        /// The program.
        program: String,
        /// The tail call.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// An offset or a number that the format cannot hold.
    #[error("the program `{program}` is too large: {what} does not fit into 32 bits")]
    TooLarge {
        /// The program.
        program: String,
        /// What.
        what: &'static str,
    },
}

impl DiscoverError {
    /// Whether the program may have its image once its maps and functions lie elsewhere.
    pub fn depends_on_layout(&self) -> bool {
        matches!(
            self,
            Self::SameAddress { .. } | Self::Ambiguous { .. } | Self::ShortGroup { .. }
        )
    }
}

/// A place in a program's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The program.
    pub program: String,
    /// The function, by index.
    pub function: usize,
    /// Bytes from the start of the function to the instruction.
    pub offset: usize,
    /// The instruction, as text.
    pub instruction: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            function,
            offset,
            instruction,
        } = self;
        write!(
            f,
            "program `{program}`, function {function}, offset {offset:#x}, `{instruction}`"
        )
    }
}

/// `OBSTACLE_*` bits; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacles(pub u32);

impl Obstacles {
    /// Why each of them cannot be replayed, as sentences without a full stop.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        let unknown = self.0 & !REASONS.iter().fold(0, |all, (bit, _)| all | bit) != 0;
        REASONS
            .iter()
            .filter(move |(bit, _)| self.0 & bit != 0)
            .map(|(_, reason)| *reason)
            .chain(unknown.then_some(
                "the kernel part reports an obstacle that this program does not know; build both from one source",
            ))
    }
}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reason) in self.reasons().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{reason}")?;
        }
        Ok(())
    }
}

const REASONS: &[(u32, &str)] = &[
    (
        abi::OBSTACLE_DEVICE_BOUND,
        "it is bound to a network device of the machine that verified it (BPF_F_XDP_DEV_BOUND_ONLY or hardware offload)",
    ),
    (
        abi::OBSTACLE_PROGRAM_TARGET,
        "it attaches to another BPF program, which was verified together with it and is not the device's (freplace, or fentry and fexit of a program)",
    ),
    (
        abi::OBSTACLE_TOKEN,
        "it was loaded with a BPF token, whose rights are those of the machine that verified it",
    ),
    (
        abi::OBSTACLE_ARENA,
        "it uses an arena, whose address is part of its code",
    ),
    (
        abi::OBSTACLE_MODULE_BTF,
        "it uses types or functions of a kernel module, which another machine may have built or loaded otherwise",
    ),
    (
        abi::OBSTACLE_MODULE_TARGET,
        "it attaches to a function of a kernel module, which another machine may have built or loaded otherwise",
    ),
    (
        abi::OBSTACLE_INTERPRETED,
        "the JIT compiler does not compile it, and the kernel would interpret it (on 32-bit arm, that is so for calls between functions and, in some versions, for atomics and division of 64 bits)",
    ),
    (
        abi::OBSTACLE_BLINDED,
        "its constants are blinded, so its code is random; set net.core.bpf_jit_harden=0 in the verifier VM",
    ),
    (
        abi::OBSTACLE_STRUCT_OPS,
        "it implements a function of a kernel structure (struct_ops), which its map registers",
    ),
    (
        abi::OBSTACLE_LSM_CGROUP,
        "it attaches per cgroup to an LSM hook (lsm_cgroup), for which the kernel makes a trampoline when it verifies",
    ),
    (
        abi::OBSTACLE_EXCEPTIONS,
        "it throws exceptions (bpf_throw), whose unwinding needs functions that the kernel adds when it verifies",
    ),
];
