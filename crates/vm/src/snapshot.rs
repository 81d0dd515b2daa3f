//! A booted guest on disk, and machines that go on from it.
//!
//! A snapshot is two files: `memory`, the guest's memory as it lay in front of QEMU, and `state`,
//! the state of the processors and devices as QEMU's migration writes it. A restored machine maps
//! `memory` copy-on-write: nothing is read but the pages that it touches, and any number of
//! machines share them, at the same time, in any number of processes.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use preverify_protocol::Hello;
use serde_json::{Value, json};

use crate::arguments::{MachineSpec, Memory};
use crate::error::VmError;
use crate::machine::Machine;
use crate::monitor::{Monitor, MonitorError};

/// A machine that can be made a snapshot.
#[derive(Debug)]
pub struct Recording {
    machine: Machine,
    snapshot: Snapshot,
    state: File,
}

impl Recording {
    /// Boots a machine whose memory is a file in `folder`, which must exist.
    pub fn boot(
        spec: &MachineSpec,
        folder: &Path,
        limit: Duration,
    ) -> Result<(Self, Hello), VmError> {
        let snapshot = Snapshot::at(folder);
        let state = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(snapshot.state())
            .map_err(file_error("create", &snapshot.state()))?;
        let mut machine = Machine::start(spec, Memory::Recorded(&snapshot.memory()))?;
        let hello = machine.hello("boot", limit)?;
        Ok((
            Self {
                machine,
                snapshot,
                state,
            },
            hello,
        ))
    }

    /// The machine, to bring it to the state that the snapshot shall have.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Writes the snapshot, durably, and ends the machine.
    pub fn save(mut self, limit: Duration) -> Result<Snapshot, VmError> {
        const DURING: &str = "the saving of a snapshot";
        let deadline = Instant::now() + limit;
        let mut monitor = self.machine.monitor(DURING, limit)?;
        write_state(&mut monitor, &self.state, deadline)
            .map_err(|error| self.machine.monitor_failed(DURING, limit, error))?;
        // QEMU must be gone before the files are what they stay.
        drop(self.machine);
        for path in [self.snapshot.memory(), self.snapshot.state()] {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(file_error("write", &path))?;
        }
        Ok(self.snapshot)
    }
}

/// A booted guest on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    folder: PathBuf,
}

impl Snapshot {
    /// The snapshot that [`Recording::save`] wrote to `folder`.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Starts a machine that goes on where the snapshot was taken. `spec` must be the one that
    /// was recorded.
    pub fn restore(&self, spec: &MachineSpec, limit: Duration) -> Result<Machine, VmError> {
        const DURING: &str = "the restoring of a snapshot";
        let deadline = Instant::now() + limit;
        let state =
            File::open(self.state()).map_err(file_error("read the snapshot", &self.state()))?;
        // A missing file would be created, and the guest would find its memory empty.
        fs::metadata(self.memory()).map_err(file_error("read the snapshot", &self.memory()))?;
        let mut machine = Machine::start(spec, Memory::Restored(&self.memory()))?;
        let mut monitor = machine.monitor(DURING, limit)?;
        read_state(&mut monitor, &state, deadline)
            .map_err(|error| machine.monitor_failed(DURING, limit, error))?;
        Ok(machine)
    }

    fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }
}

/// Has QEMU stop the guest and write everything but the memory, which lies in its file.
fn write_state(monitor: &mut Monitor, state: &File, deadline: Instant) -> Result<(), MonitorError> {
    monitor.execute("stop", json!({}), deadline)?;
    leave_memory_alone(monitor, deadline)?;
    monitor.give_file("state", state, deadline)?;
    monitor.execute("migrate", json!({ "uri": "fd:state" }), deadline)?;
    wait_for_migration(monitor, deadline)
}

/// Has QEMU read what [`write_state`] wrote, and let the guest run.
fn read_state(monitor: &mut Monitor, state: &File, deadline: Instant) -> Result<(), MonitorError> {
    leave_memory_alone(monitor, deadline)?;
    monitor.give_file("state", state, deadline)?;
    monitor.execute("migrate-incoming", json!({ "uri": "fd:state" }), deadline)?;
    wait_for_migration(monitor, deadline)?;
    monitor.execute("cont", json!({}), deadline)?;
    Ok(())
}

fn leave_memory_alone(monitor: &mut Monitor, deadline: Instant) -> Result<(), MonitorError> {
    let arguments = json!({
        "capabilities": [{ "capability": "x-ignore-shared", "state": true }],
    });
    monitor.execute("migrate-set-capabilities", arguments, deadline)?;
    Ok(())
}

fn wait_for_migration(monitor: &mut Monitor, deadline: Instant) -> Result<(), MonitorError> {
    loop {
        let answer = monitor.execute("query-migrate", json!({}), deadline)?;
        match answer.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let description = answer.get("error-desc").and_then(Value::as_str);
                return Err(MonitorError::Refused {
                    command: "the transfer of the machine's state".to_owned(),
                    message: description.unwrap_or("it did not say why").to_owned(),
                });
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn file_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> VmError + 'a {
    move |source| VmError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
