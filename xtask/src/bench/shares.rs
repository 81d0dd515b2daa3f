//! `cargo xtask bench shares`: an object with many programs, verified by one worker and by several.
//!
//! Two cores are no several machines. So each worker is given half of a core, and its machines share that: as weak
//! machines of their own would be. All that is verified is real.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use preverify_lab::TARGET;

use super::{results, write};
use crate::arch::Arch;
use crate::cluster::{Cluster, Plan};
use crate::paths::target_dir;
use crate::{artifacts, bpf};

/// Rounds of each program: so the verifier takes about a tenth of a second for one, emulated.
const INPUTS: &str = "[globals]\nrounds = 1000\n";
const WORKERS: [usize; 3] = [1, 2, 4];
/// Of a core, for each worker.
const PERCENT: u32 = 50;

/// Measures.
pub fn shares() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[Arch::X86_64])?;
    let preverify = artifacts::command(&binaries)?;
    let lab = binaries.lab(TARGET, preverify_lab::signer()?)?;
    let object = bpf::test_programs(Arch::X86_64)?.join("many.bpf.o");
    let elf = fs::read(object)?;
    let mut text = format!(
        "# An object with 90 programs on several workers\n\n\
         `cargo xtask bench shares`: `tests/programs/many.bpf.c` with 1000 rounds, for `{TARGET}`, emulated. Each \
         worker and its machines have {PERCENT} % of a core, which stands for a weak machine of its own: all workers run \
         on the same two cores. The time is that from the submission to the end of the job; the object is verified in 4 \
         shares, which are joined to the bundle of a local build.\n\n\
         | workers | seconds | times as fast |\n|--:|--:|--:|\n"
    );
    print!("{text}");
    let mut alone = None;
    for workers in WORKERS {
        let time = measure(&preverify, lab.target.name(), &elf, workers)?;
        let alone = *alone.get_or_insert(time);
        let ratio = alone.as_secs_f64() / time.as_secs_f64();
        let row = format!("| {workers} | {:.1} | {ratio:.2} |\n", time.as_secs_f64());
        print!("{row}");
        text += &row;
    }
    write(&results()?.join("shares.md"), &text)
}

fn measure(
    preverify: &Path,
    target: &str,
    elf: &[u8],
    workers: usize,
) -> Result<Duration, Box<dyn Error>> {
    let plan = Plan {
        nats: 1,
        apis: 1,
        workers,
        // One that has waited since before the limit would be a present, and the more of them, the more workers.
        warm: 0,
    };
    let folder = target_dir().join("bench-shares");
    let cluster = Cluster::start(plan, preverify, target, &folder)?;
    let mut weak = Vec::new();
    for worker in 0..workers {
        let limit = CpuLimit::new(&format!("preverify-{worker}"), PERCENT)?;
        if let Some(process) = cluster.worker_process(worker) {
            limit.add(process)?;
        }
        weak.push(limit);
    }
    let client = &cluster.clients()[0];
    let start = Instant::now();
    let job = client.submit("many", elf, &[("inputs", INPUTS), ("target", target)])?;
    let job = client.wait(&job)?;
    let time = start.elapsed();
    if job["state"] != "accepted" {
        return Err(format!("the object was not accepted: {job:#}").into());
    }
    // Groups can be removed once nobody is in them.
    drop(cluster);
    drop(weak);
    Ok(time)
}

/// A control group whose processes have a part of a core together.
struct CpuLimit {
    folder: PathBuf,
}

impl CpuLimit {
    /// Where control groups of the second version are, or those of the first for processors.
    const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"];
    const PERIOD_US: u32 = 100_000;

    fn new(name: &str, percent: u32) -> io::Result<Self> {
        let quota = Self::PERIOD_US / 100 * percent;
        let is_second = Path::new(Self::ROOTS[0])
            .join("cgroup.controllers")
            .exists();
        let root = Path::new(Self::ROOTS[usize::from(!is_second)]);
        let limit = Self {
            folder: root.join(name),
        };
        if is_second {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
        }
        match fs::create_dir(&limit.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match is_second {
            true => fs::write(
                limit.folder.join("cpu.max"),
                format!("{quota} {}", Self::PERIOD_US),
            )?,
            false => {
                let period = Self::PERIOD_US.to_string();
                fs::write(limit.folder.join("cpu.cfs_period_us"), period)?;
                fs::write(limit.folder.join("cpu.cfs_quota_us"), quota.to_string())?;
            }
        }
        Ok(limit)
    }

    /// Puts a process into the group, and all that it starts from now on.
    fn add(&self, process: u32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), process.to_string())
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
