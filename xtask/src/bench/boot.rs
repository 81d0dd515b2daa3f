//! `cargo xtask bench boot`: from the kernel's start to an attached XDP program, on boards with little memory.
//!
//! A board boots one file system with what it needs and nothing else: busybox, what loads, and the program. Its kernel
//! tells by its own clock when the program is attached; a ping that is dropped then, and answered when it is detached,
//! shows that it runs.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use preverify_bench::median;
use preverify_lab::Lab;
use preverify_pipeline::Object;
use preverify_vm::initramfs::Initramfs;

use super::{middle, paths, results, write};
use crate::arch::Arch;
use crate::linux::{self, Role};
use crate::paths::target_dir;
use crate::{artifacts, corpus};

const ARCH: Arch = Arch::Arm64;
/// A processor of small boards.
const CPU: &str = "cortex-a53";
/// What the boards have. On the first one everything is timed; on the others it is tried once.
const MEMORY_MIB: [u32; 3] = [48, 32, 64];
const RUNS: usize = 5;
/// Two nanoseconds for an instruction: so the outcome does not depend on this host.
const INSTRUCTION_COUNT: &str = "shift=1";
/// As products have it: no self-tests of algorithms, of which those of RSA take longer than all the rest.
const COMMAND_LINE: &str = "console=ttyAMA0 quiet printk.time=1 panic=-1";
const LIMIT_SECONDS: &str = "300";

/// What lines of the console start with that are for us, after the time.
const MARK: &str = "preverify-boot: ";

/// Runs on the board as its first process.
const INIT: &str = r#"#!/bin/busybox sh
say() { echo "<3>preverify-boot: $*" > /dev/kmsg; }
export PATH=/commands
/bin/busybox mkdir -p /commands /proc /sys
/bin/busybox --install -s /commands
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
say started
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
answers() { ping -q -c 1 -W 2 10.0.2.2 > /dev/null && echo yes || echo no; }
. /load
attach > /dev/kmsg 2>&1 && say attached || say failed
say answers $(answers)
say $(grep MemAvailable /proc/meminfo)
detach
say answers $(answers)
poweroff -f
"#;

/// One way to the program.
struct Way {
    name: &'static str,
    kernel: PathBuf,
    loader: PathBuf,
    /// The functions `attach` and `detach`.
    load: String,
    /// The program, and what else the loader needs.
    files: Vec<(&'static str, Vec<u8>)>,
}

struct Subject {
    name: &'static str,
    object: PathBuf,
    program: &'static str,
}

/// What one boot told.
struct Boot {
    /// Nanoseconds from the kernel's start to its first process, and to the attached program; `None` if that failed.
    started: u64,
    attached: Option<u64>,
    /// Free for programs then, in KiB.
    available: u64,
}

/// Measures the boards.
pub fn boot() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[ARCH])?;
    let stock = linux::build(Role::Stock, ARCH)?;
    let lab = linux::lab(Role::Device, ARCH, &binaries)?;
    let device = linux::build(Role::Device, ARCH)?;
    let bench = artifacts::bench(ARCH)?;
    let folder = target_dir().join("boot");
    fs::create_dir_all(&folder)?;
    let mut text = String::new();
    for subject in subjects()? {
        let ways = [
            Way::stock(&subject, stock.image(), bench.clone())?,
            Way::preverified(&subject, &lab, device.image(), binaries.loader(ARCH))?,
        ];
        let images = ways
            .iter()
            .map(|way| way.file_system(&lab.busybox()?, &folder))
            .collect::<Result<Vec<_>, _>>()?;
        for memory in MEMORY_MIB {
            let runs = if memory == MEMORY_MIB[0] { RUNS } else { 1 };
            let mut boots = [Vec::new(), Vec::new()];
            for _ in 0..runs {
                for ((way, image), boots) in ways.iter().zip(&images).zip(&mut boots) {
                    boots.push(way.boot(image, memory)?);
                }
            }
            for ((way, image), boots) in ways.iter().zip(&images).zip(&boots) {
                let row = row(&subject, way, image, memory, boots)?;
                println!("{}", row.trim_end());
                text += &row;
            }
        }
    }
    write(&results()?.join("boot-arm64.md"), &report(&text))
}

fn subjects() -> Result<[Subject; 2], Box<dyn Error>> {
    let filter = "xdpfilt_dny_all";
    let [denying] = corpus::debian_objects(ARCH, "libxdp1", [filter])?;
    Ok([
        Subject {
            name: "xdp-filter, deny all",
            object: denying,
            program: filter,
        },
        Subject {
            name: "2^11 paths",
            object: paths(ARCH, 11)?,
            program: "paths",
        },
    ])
}

impl Way {
    /// The kernel's own way: libbpf, and the verifier on the board.
    fn stock(subject: &Subject, kernel: PathBuf, loader: PathBuf) -> Result<Self, Box<dyn Error>> {
        const LINK: &str = "/sys/fs/bpf/link";
        Ok(Self {
            name: "stock",
            kernel,
            loader,
            load: format!(
                "attach() {{ /bin/loader attach /program {} eth0 {LINK}; }}\ndetach() {{ rm {LINK}; }}\n",
                subject.program
            ),
            files: vec![("/program", fs::read(&subject.object)?)],
        })
    }

    fn preverified(
        subject: &Subject,
        lab: &Lab,
        kernel: PathBuf,
        loader: PathBuf,
    ) -> Result<Self, Box<dyn Error>> {
        const PINS: &str = "/sys/fs/bpf/program";
        let verified = lab.verify(&Object::read(&subject.object)?)?;
        Ok(Self {
            name: "pre-verified",
            kernel,
            loader,
            load: format!(
                "attach() {{ /bin/loader trust /signer.x509 && \
                 /bin/loader load /program --pin {PINS} --attach {}=xdpdrv:eth0; }}\n\
                 detach() {{ /bin/loader unload {PINS}; }}\n",
                subject.program
            ),
            files: vec![
                ("/program", lab.bundle(&verified)?.to_bytes()),
                ("/signer.x509", lab.signer.certificate().to_der().to_vec()),
            ],
        })
    }

    /// The board's file system, in one packed file.
    fn file_system(&self, busybox: &Path, folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
        let mut files = Initramfs::new();
        files
            .character_device("/dev/console", 0o600, 5, 1)?
            .host_file("/bin/busybox", 0o755, busybox)?
            .host_file("/bin/loader", 0o755, &self.loader)?
            .file("/init", 0o755, INIT)?
            .file("/load", 0o644, self.load.as_str())?;
        for (path, contents) in &self.files {
            files.file(path, 0o644, contents.clone())?;
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&files.archive()?)?;
        let path = folder.join(format!("{}.cpio.gz", self.name));
        fs::write(&path, packed.finish()?)?;
        Ok(path)
    }

    fn boot(&self, file_system: &Path, memory_mib: u32) -> Result<Boot, Box<dyn Error>> {
        let output = Command::new("timeout")
            .args([LIMIT_SECONDS, "qemu-system-aarch64", "-nodefaults"])
            .args(["-machine", "virt,gic-version=3", "-cpu", CPU])
            .args(["-accel", "tcg", "-icount", INSTRUCTION_COUNT])
            .args(["-m", &format!("{memory_mib}M"), "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-netdev", "user,id=net,restrict=on", "-device"])
            .arg("virtio-net-pci,netdev=net,romfile=,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off")
            .args(["-append", COMMAND_LINE, "-kernel"])
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(file_system)
            .output()?;
        let console = String::from_utf8_lossy(&output.stdout);
        Boot::read(&console).map_err(|problem| {
            format!("{}, {memory_mib} MiB: {problem}:\n{console}", self.name).into()
        })
    }
}

impl Boot {
    fn read(console: &str) -> Result<Self, String> {
        let told: Vec<(u64, &str)> = console.lines().filter_map(told).collect();
        let time = |words: &str| {
            let line = told.iter().find(|(_, told)| *told == words);
            line.map(|(time, _)| *time)
        };
        let attached = time("attached");
        let answers: Vec<_> = told
            .iter()
            .filter_map(|(_, told)| told.strip_prefix("answers "))
            .collect();
        // Detached, it answers: so it is the program that drops.
        let expected = match attached {
            Some(_) => ["no", "yes"],
            None => ["yes", "yes"],
        };
        if answers != expected {
            return Err(format!("expected answers {expected:?}, found {answers:?}"));
        }
        let memory = told
            .iter()
            .find_map(|(_, told)| told.strip_prefix("MemAvailable: "));
        Ok(Self {
            started: time("started").ok_or("it did not start")?,
            attached,
            available: memory
                .and_then(|memory| memory.trim_end_matches(" kB").parse().ok())
                .ok_or("it does not tell its memory")?,
        })
    }
}

/// A line for us: when, in nanoseconds, and what.
fn told(line: &str) -> Option<(u64, &str)> {
    let (time, told) = line.trim_end().split_once(MARK)?;
    let (seconds, micros) = time.trim_matches(['[', ']', ' ']).split_once('.')?;
    let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
    Some(((seconds * 1_000_000 + micros) * 1000, told))
}

fn row(
    subject: &Subject,
    way: &Way,
    file_system: &Path,
    memory: u32,
    boots: &[Boot],
) -> Result<String, Box<dyn Error>> {
    let bytes = |path: &Path| Ok::<_, Box<dyn Error>>(fs::metadata(path)?.len());
    let (kernel, files) = (bytes(&way.kernel)?, bytes(file_system)?);
    let milliseconds = |times: Vec<u64>| format!("{:.0}", middle(&times) / 1000.0);
    let started = milliseconds(boots.iter().map(|boot| boot.started).collect());
    let attached: Option<Vec<_>> = boots.iter().map(|boot| boot.attached).collect();
    let attached = attached.map_or("no: out of memory".to_owned(), milliseconds);
    let available: Vec<_> = boots.iter().map(|boot| boot.available).collect();
    Ok(format!(
        "| {} | {memory} | {} | {kernel} | {files} | {} | {started} | {attached} | {} |\n",
        subject.name,
        way.name,
        kernel + files,
        median(&available),
    ))
}

fn report(rows: &str) -> String {
    let mut text = String::new();
    write!(
        text,
        "# From the kernel's start to an attached XDP program: arm64\n\n\
         `cargo xtask bench boot`: QEMU's machine `virt` with one `{CPU}`, 2 ns for each instruction (`-icount \
         {INSTRUCTION_COUNT}`), whatever the host does; `{COMMAND_LINE}`. Both kernels are Linux 6.12 with the options of `kernel/configs`. *Stock*: \
         all of BPF, the program is loaded by libbpf and verified on the board. *Pre-verified*: no verifier, JIT compiler and BTF, \
         the program is loaded by `preverify-load` from a signed bundle. Beside the loader and the program, the file system \
         has busybox. The program drops all packets: a ping has no answer while it is attached, and one when it is detached. \
         Times are the kernel's own, from its start, in milliseconds: to the first process, and to the attached program; with \
         {} MiB medians of {RUNS} boots, else of one. Bytes; available memory, with the program attached, in KiB.\n\n\
         | program | MiB | kernel | kernel, bytes | file system, bytes | both, bytes | first process, ms | attached, ms | available, KiB |\n\
         |---|--:|---|--:|--:|--:|--:|--:|--:|\n{rows}",
        MEMORY_MIB[0]
    )
    .expect("a String takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.500000] preverify-boot: started\r\n\
        [    1.250000] preverify-boot: attached\r\n\
        [    3.000000] preverify-boot: answers no\r\n\
        [    3.100000] preverify-boot: MemAvailable: 20000 kB\r\n\
        [    3.200000] preverify-boot: answers yes\r\n";

    #[test]
    fn what_a_board_tells() {
        let boot = Boot::read(CONSOLE).expect("it tells all");
        assert_eq!(boot.started, 500_000_000);
        assert_eq!(boot.attached, Some(1_250_000_000));
        assert_eq!(boot.available, 20_000);
    }

    #[test]
    fn a_program_that_does_not_run_is_no_measurement() {
        let passes = CONSOLE.replace("answers no", "answers yes");
        assert!(Boot::read(&passes).is_err());
    }
}
