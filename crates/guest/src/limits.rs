//! How far the kernel's verifier goes: parameters of a kernel that was built for that, constants of all others.

use std::fs;
use std::io;
use std::path::PathBuf;

use preverify_protocol::{Limits, WantedLimits};

use crate::error::AgentError;

/// The limits of this machine's kernel.
pub struct KernelLimits {
    /// As they were when the machine started.
    own: Limits,
    are_parameters: bool,
}

impl KernelLimits {
    /// Reads them.
    pub fn read() -> Result<Self, AgentError> {
        if !parameter("insns").exists() {
            return Ok(Self {
                own: Limits::STOCK,
                are_parameters: false,
            });
        }
        Ok(Self {
            own: Limits {
                insns: read("insns")?,
                jumps: read("jumps")?,
                length: read("length")?,
            },
            are_parameters: true,
        })
    }

    /// Sets what is wanted, and what is not wanted as it was at the start. Returns what counts from now on.
    pub fn set(&self, wanted: WantedLimits) -> Result<Limits, AgentError> {
        let limits = self.own.with(wanted);
        if self.are_parameters {
            write("insns", limits.insns)?;
            write("jumps", limits.jumps)?;
            write("length", limits.length)?;
        } else if limits != self.own {
            return Err(AgentError::FixedLimits(self.own));
        }
        Ok(limits)
    }
}

/// How many instructions the verifier has processed since the kernel started, if it counts them.
pub fn processed() -> Option<u64> {
    let text = fs::read_to_string(parameter("processed")).ok()?;
    text.trim().parse().ok()
}

fn parameter(name: &str) -> PathBuf {
    ["/sys/module/bpf_verifier/parameters", name]
        .iter()
        .collect()
}

fn read(name: &str) -> Result<u32, AgentError> {
    let path = parameter(name);
    fs::read_to_string(&path)
        .and_then(|text| text.trim().parse().map_err(io::Error::other))
        .map_err(AgentError::file("read", path))
}

fn write(name: &str, value: u32) -> Result<(), AgentError> {
    let path = parameter(name);
    fs::write(&path, value.to_string()).map_err(AgentError::file("write", path))
}
