//! What a bundle tells about how it came to be, for people and policies: a signed JSON document.
//!
//! It holds nothing that differs from run to run or from machine to machine, so that independent
//! verifiers arrive at the same bytes: no times, and of statistics only those that both boots had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use preverify_protocol::{Inputs, Limits, Statistics};

/// The evidence for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The object's name.
    pub object: String,
    /// SHA-256 of the object, in hexadecimal.
    pub object_sha256: String,
    /// What was set between open and load.
    pub inputs: Inputs,
    /// The kernel that verified.
    pub kernel: Kernel,
    /// The kernel that the programs are for, if that is another build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_kernel: Option<DeviceKernel>,
    /// The versions of what the verdict depends on, by name.
    pub versions: BTreeMap<String, String>,
    /// How far the kernel's verifier would have gone, if that is farther than stock kernels go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The programs, in the bundle's order.
    pub programs: Vec<ProgramEvidence>,
}

/// The kernel that verified, and how it was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// Its command line.
    pub command_line: String,
    /// The CPU that QEMU showed it.
    pub cpu: String,
}

/// The kernel that the programs are for, where another build verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKernel {
    /// `uname -r`.
    pub release: String,
    /// Its GNU build id, in hexadecimal.
    pub build_id: String,
    /// The GNU build id of the kernel that verified, in hexadecimal.
    pub verifier_build_id: String,
}

/// The evidence for one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEvidence {
    /// The name of its function.
    pub function: String,
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
    /// What was proved of its machine code, if it is carried.
    pub native: Option<ProofEvidence>,
    /// What was proved of its bytecode, if it is carried.
    pub bytecode: Option<ProofEvidence>,
}

/// That an image, relinked for another boot, equals what that boot's own JIT wrote, or compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofEvidence {
    /// Bytes of code compared, all equal.
    pub code_bytes: usize,
    /// Relocations applied before the comparison.
    pub relocations: usize,
}

impl ProgramEvidence {
    /// Leaves out what differs from run to run: the time.
    pub fn new(
        function: &str,
        statistics: &Statistics,
        native: Option<ProofEvidence>,
        bytecode: Option<ProofEvidence>,
    ) -> Self {
        Self {
            function: function.into(),
            total_insns: statistics.total_insns,
            total_states: statistics.total_states,
            peak_states: statistics.peak_states,
            max_states_per_insn: statistics.max_states_per_insn,
            mark_read: statistics.mark_read,
            native,
            bytecode,
        }
    }
}
