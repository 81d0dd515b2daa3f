//! Snapshots of one booted target, each with another layout of its addresses.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use preverify_abi::ABI_VERSION;
use preverify_abi::ioctl::Info;
use preverify_abi::manifest::Fingerprint;
use preverify_protocol::{Hello, PROTOCOL_VERSION, Reply, Request};
use preverify_vm::{Accelerator, Machine, MachineSpec, Recording, Snapshot, VmError};
use zerocopy::FromBytes;

use crate::Progress;
use crate::arch::Arch;
use crate::config::Config;
use crate::error::TargetError;
use crate::facts::{self, Facts};
use crate::files::{self, Digest, Lock};
use crate::guest::Guest;
use crate::hardware::Hardware;
use crate::kernel::Kernel;

/// Layouts of each target: two are what comparing needs.
pub(crate) const COUNT: usize = 2;
/// Boots that may pass until the layouts are different ones.
const MOST_BOOTS: usize = 8;

/// Where a kernel shows its BTF.
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Has the agent take places in the kernel's memory.
const OCCUPY: &str = "preverify.occupy=1";

/// A kernel that boots at all does so in a few seconds, emulated, on an idle host.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// A kernel that stops early has said everything long before.
const EXPLAIN_LIMIT: Duration = Duration::from_secs(20);
/// What works with KVM works at once.
const KVM_LIMIT: Duration = Duration::from_secs(20);
const SAVE_LIMIT: Duration = Duration::from_secs(60);
const RESTORE_LIMIT: Duration = Duration::from_secs(60);
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Everything that a target's snapshots are made from.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    pub kernel: &'a Kernel,
    pub hardware: &'a Hardware,
    pub agent: &'a Path,
    /// The kernel part in its exporting role.
    pub part: &'a Path,
    pub qemu: &'a str,
}

/// A machine, and the text of its kernel's symbols.
#[derive(Debug)]
pub struct Boot {
    /// The machine.
    pub machine: Machine,
    /// `/proc/kallsyms`.
    pub symbols: String,
}

/// The snapshots of one target, kept from being removed as long as this value lives.
#[derive(Debug)]
pub(crate) struct Layouts {
    /// What its folder is called.
    pub id: String,
    folder: PathBuf,
    spec: MachineSpec,
    _in_use: Lock,
}

impl Layouts {
    /// The snapshots made from this recipe, if they are there.
    pub(crate) fn open(
        all: &Path,
        recipe: &Recipe<'_>,
        accelerator: Accelerator,
    ) -> Result<Option<Self>, TargetError> {
        let id = recipe.id(accelerator)?;
        let folder = all.join(&id);
        Ok(files::use_folder(&folder)?.map(|in_use| Self {
            spec: recipe.spec(&initramfs(&folder), accelerator),
            id,
            folder,
            _in_use: in_use,
        }))
    }

    /// Boots and saves the snapshots of a recipe.
    pub(crate) fn record(
        all: &Path,
        recipe: &Recipe<'_>,
        accelerator: Accelerator,
        progress: &mut Progress<'_>,
    ) -> Result<(), TargetError> {
        let id = recipe.id(accelerator)?;
        let partial = files::start(all)?;
        let archive = initramfs(partial.path());
        files::write(&archive, &recipe.archive()?)?;
        let spec = recipe.spec(&archive, accelerator);
        let facts = record_all(recipe, &spec, partial.path(), progress)?;
        let text = serde_json::to_vec_pretty(&facts).expect("all its keys are strings");
        files::write(&facts_file(partial.path()), &text)?;
        files::finish(partial, &all.join(id))
    }

    /// What the boots told.
    pub(crate) fn facts(&self) -> Result<Facts, TargetError> {
        files::read_record(facts_file(&self.folder))
    }

    /// The text of the kernel's symbols in a layout.
    pub(crate) fn symbols(&self, index: usize) -> Result<String, TargetError> {
        files::read_text(&symbols(&self.layout(index)?))
    }

    /// The name of the kernel's symbol at an offset from `_text`.
    pub(crate) fn symbol_at(&self, offset: u64) -> Result<Option<String>, TargetError> {
        let symbols = self.symbols(0)?;
        Ok(symbol_at(&symbols, &base(&symbols)?, offset))
    }

    /// Machines like those of the snapshots, but with more memory: so they must be booted, which takes its time.
    pub(crate) fn boot_all(
        &self,
        arch: Arch,
        memory_mib: u32,
    ) -> Result<[Boot; COUNT], TargetError> {
        let facts = self.facts()?;
        let mut spec = self.spec.clone();
        spec.memory_mib = memory_mib;
        boot_layouts(arch, &facts.release, |index| {
            let spec = shifted(&spec, arch, index);
            let (mut machine, hello) = Machine::boot(&spec, BOOT_LIMIT)?;
            let symbols = kernel_symbols(&mut machine)?;
            let (build_id, fingerprint) = identity(&hello)?;
            if build_id != facts.build_id || fingerprint != facts.fingerprint {
                return Err(TargetError::KernelPart {
                    expected: "the same kernel and machine with more memory".to_owned(),
                    found: format!("another fingerprint with {memory_mib} MiB"),
                });
            }
            Ok((base(&symbols)?, Boot { machine, symbols }))
        })
    }

    /// A machine that goes on from a snapshot.
    pub(crate) fn restore(&self, index: usize) -> Result<Machine, TargetError> {
        Ok(Snapshot::at(&self.layout(index)?).restore(&self.spec, RESTORE_LIMIT)?)
    }

    fn layout(&self, index: usize) -> Result<PathBuf, TargetError> {
        if index < COUNT {
            Ok(layout(&self.folder, index))
        } else {
            Err(TargetError::NoLayout {
                index,
                count: COUNT,
            })
        }
    }
}

impl Recipe<'_> {
    /// Finds out whether KVM runs this kernel, by a boot.
    pub(crate) fn try_kvm(&self, progress: &mut Progress<'_>) -> Result<Accelerator, TargetError> {
        progress("trying KVM with a boot");
        let mut archive = tempfile::NamedTempFile::new()
            .map_err(files::at("create a file in", &std::env::temp_dir()))?;
        std::io::Write::write_all(&mut archive, &self.archive()?)
            .map_err(files::at("write", archive.path()))?;
        let spec = self.spec(archive.path(), Accelerator::Kvm);
        match Machine::boot(&spec, KVM_LIMIT) {
            Ok(_) => Ok(Accelerator::Kvm),
            Err(_) => Ok(Accelerator::Tcg),
        }
    }

    /// Whatever changes this makes a snapshot another one.
    fn id(&self, accelerator: Accelerator) -> Result<String, TargetError> {
        let spec = self.spec(Path::new(""), accelerator);
        let mut digest = Digest::default();
        digest
            .add(format!("{PROTOCOL_VERSION} {ABI_VERSION}"))
            .add(self.qemu)
            .add(spec.likeness())
            .add(shifted(&spec, self.kernel.arch(), COUNT - 1).likeness())
            .add(&self.kernel.id)
            .add_file(self.agent)?
            .add_file(self.part)?;
        if accelerator == Accelerator::Kvm {
            // The guest sees this host's processor.
            digest.add(processor()?);
        }
        Ok(digest.id())
    }

    fn spec(&self, initramfs: &Path, accelerator: Accelerator) -> MachineSpec {
        self.hardware.spec(self.kernel, initramfs, accelerator)
    }

    fn archive(&self) -> Result<Vec<u8>, TargetError> {
        Guest {
            kernel: self.kernel,
            agent: self.agent,
            part: Some(self.part),
            network: false,
            modules: &[],
            files: &[],
        }
        .archive()
    }
}

/// Boots until all layouts are there, and returns what the boots told.
fn record_all(
    recipe: &Recipe<'_>,
    spec: &MachineSpec,
    folder: &Path,
    progress: &mut Progress<'_>,
) -> Result<Facts, TargetError> {
    let (arch, release) = (recipe.kernel.arch(), recipe.kernel.release());
    progress(&format!(
        "booting {release} ({}) in {COUNT} layouts",
        spec.accelerator.name()
    ));
    let recorded = boot_layouts(arch, release, |index| {
        let at = layout(folder, index);
        files::remove_folder(&at)?;
        files::create_folder(&at)?;
        let spec = shifted(spec, arch, index);
        let (mut recording, hello) =
            Recording::boot(&spec, &at, BOOT_LIMIT).map_err(|error| explain(error, &spec))?;
        let text = kernel_symbols(recording.machine())?;
        let facts = gather(recipe, recording.machine(), hello, &text)?;
        files::write(&symbols(&at), text.as_bytes())?;
        Ok((base(&text)?, (recording, facts)))
    })?;
    let [(first, facts), (second, again)] = recorded;
    if let Some((what, expected, found)) = facts.difference(&again) {
        return Err(TargetError::KernelPart {
            expected: format!("{what} {expected} at every boot"),
            found,
        });
    }
    progress("saving the snapshots");
    for recording in [first, second] {
        recording.save(SAVE_LIMIT)?;
    }
    Ok(facts)
}

/// Boots a machine for each layout, all at the same time. Each says where its kernel lies, with what is wanted of it; one whose
/// kernel lies where another does is booted again.
fn boot_layouts<T: Send>(
    arch: Arch,
    release: &str,
    boot: impl Fn(usize) -> Result<(String, T), TargetError> + Sync,
) -> Result<[T; COUNT], TargetError> {
    let mut done: Vec<(String, T)> = Vec::new();
    let mut boots = 0;
    while done.len() < COUNT {
        if boots >= MOST_BOOTS {
            return Err(TargetError::SameLayout {
                release: release.to_owned(),
                boots,
                hint: arch.layout_hint(),
            });
        }
        let missing = done.len()..COUNT;
        boots += missing.len();
        for booted in all_at_once(missing, &boot) {
            let (base, booted) = booted?;
            if !arch.has_kaslr() || done.iter().all(|(other, _)| *other != base) {
                done.push((base, booted));
            }
        }
    }
    let mut done = done.into_iter().map(|(_, booted)| booted);
    Ok(std::array::from_fn(|_| {
        done.next().expect("there are so many")
    }))
}

fn all_at_once<T: Send>(
    indices: Range<usize>,
    work: &(impl Fn(usize) -> Result<T, TargetError> + Sync),
) -> Vec<Result<T, TargetError>> {
    thread::scope(|scope| {
        let threads: Vec<_> = indices
            .map(|index| {
                thread::Builder::new()
                    .spawn_scoped(scope, move || work(index))
                    .map_err(TargetError::Thread)
            })
            .collect();
        let outcome = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let threads = threads.into_iter();
        threads.map(|thread| thread.and_then(outcome)).collect()
    })
}

/// The machine for a layout. Where kernels do not choose all their addresses at random, what they allocate lies at
/// the same place in every boot, unless there is less memory, or it is divided in another way, or places are taken by
/// something else. Programs see nothing of that.
fn shifted(spec: &MachineSpec, arch: Arch, index: usize) -> MachineSpec {
    let mut spec = spec.clone();
    if index == 0 {
        return spec;
    }
    let memory = spec.memory_mib - spec.memory_mib / 8;
    let elsewhere = match arch {
        Arch::X86_64 | Arch::Arm64 => "",
        Arch::Arm => " vmalloc=496M",
    };
    spec.command_line
        .push_str(&format!(" mem={memory}M {OCCUPY}{elsewhere}"));
    spec
}

/// A kernel that stops before it has its console says why only if it may print earlier. That costs
/// another boot, and every boot would look different: so it is asked only then.
fn explain(error: VmError, spec: &MachineSpec) -> VmError {
    let silent = match &error {
        VmError::Ended { printed, .. } | VmError::TimedOut { printed, .. } => {
            printed.console.trim().is_empty()
        }
        _ => false,
    };
    if !silent {
        return error;
    }
    let mut talkative = spec.clone();
    talkative.command_line.push(' ');
    talkative.command_line.push_str(spec.kind.early_console());
    match Machine::boot(&talkative, EXPLAIN_LIMIT) {
        Err(explained) => explained,
        Ok(_) => error,
    }
}

/// Puts together what a machine tells.
fn gather(
    recipe: &Recipe<'_>,
    machine: &mut Machine,
    hello: Hello,
    symbols: &str,
) -> Result<Facts, TargetError> {
    check_protocol(&hello, recipe.agent)?;
    if hello.release != recipe.kernel.release() {
        return Err(TargetError::OtherRelease {
            expected: recipe.kernel.release().to_owned(),
            found: hello.release,
        });
    }
    let (build_id, fingerprint) = identity(&hello)?;
    let base = base(symbols)?;
    let config = recipe.kernel.config()?;
    let lsms = file(machine, "/sys/kernel/security/lsm")?.unwrap_or_default();
    let btf = file(machine, KERNEL_BTF)?;
    Ok(Facts {
        release: hello.release,
        version: hello.version,
        machine: hello.machine,
        command_line: hello.command_line,
        build_id,
        fingerprint,
        return_thunk: symbol_at(symbols, &base, fingerprint.return_thunk.get()),
        security_modules: String::from_utf8_lossy(&lsms)
            .trim()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        btf_size: btf.map(|bytes| bytes.len() as u64),
        given_btf_size: match recipe.kernel.given_btf() {
            Some(path) => Some(files::size(&path)?),
            None => None,
        },
        config: Config::parse(&config).telling(recipe.kernel.arch()),
    })
}

/// Refuses an agent that was built from other sources.
pub(crate) fn check_protocol(hello: &Hello, agent: &Path) -> Result<(), TargetError> {
    if hello.protocol == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(TargetError::Protocol {
            path: agent.to_owned(),
            found: hello.protocol,
        })
    }
}

/// The kernel and the machine, as the kernel part knows them.
fn identity(hello: &Hello) -> Result<(Vec<u8>, Fingerprint), TargetError> {
    let info = part_info(hello)?;
    facts::identity(&info).ok_or_else(|| TargetError::KernelPart {
        expected: "a build id of at most 32 bytes".to_owned(),
        found: format!("one of {}", info.build_id_size),
    })
}

fn kernel_symbols(machine: &mut Machine) -> Result<String, TargetError> {
    match ask(machine, &Request::Symbols)? {
        Reply::Symbols(text) => Ok(text),
        _ => Err(TargetError::Answer {
            expected: "the kernel's symbols",
        }),
    }
}

fn part_info(hello: &Hello) -> Result<Info, TargetError> {
    let wrong = |found: String| TargetError::KernelPart {
        expected: format!("an answer of version {ABI_VERSION}"),
        found,
    };
    let bytes = hello
        .info
        .as_ref()
        .ok_or_else(|| wrong("none".to_owned()))?;
    let info = Info::read_from_bytes(bytes).map_err(|_| wrong(format!("{} bytes", bytes.len())))?;
    if info.abi_version == ABI_VERSION {
        Ok(info)
    } else {
        Err(wrong(format!("version {}", info.abi_version)))
    }
}

/// A file of the guest, if it is there.
pub(crate) fn file(machine: &mut Machine, path: &str) -> Result<Option<Vec<u8>>, TargetError> {
    const ENOENT: i32 = 2;
    let request = Request::ReadFile { path: path.into() };
    match machine.request(&request, REQUEST_LIMIT)? {
        Reply::File(contents) => Ok(Some(contents)),
        Reply::Failed { errno: ENOENT, .. } => Ok(None),
        Reply::Failed { message, .. } => Err(TargetError::AgentFailed { message }),
        _ => Err(TargetError::Answer { expected: "a file" }),
    }
}

fn ask(machine: &mut Machine, request: &Request) -> Result<Reply, TargetError> {
    match machine.request(request, REQUEST_LIMIT)? {
        Reply::Failed { message, .. } => Err(TargetError::AgentFailed { message }),
        reply => Ok(reply),
    }
}

/// The address of `_text`, as kallsyms has it, or that of `_stext` if it names functions only.
fn base(symbols: &str) -> Result<String, TargetError> {
    let address = |wanted| {
        symbols.lines().find_map(|line| {
            let (address, name) = symbol(line)?;
            (name == wanted).then_some(address)
        })
    };
    match address("_text").or_else(|| address("_stext")) {
        Some(address) if address.bytes().any(|digit| digit != b'0') => Ok(address.to_owned()),
        _ => Err(TargetError::Answer {
            expected: "the address of _text among the kernel's symbols",
        }),
    }
}

/// The name of the kernel's symbol at an offset from `_text`.
fn symbol_at(symbols: &str, base: &str, offset: u64) -> Option<String> {
    if offset == 0 {
        return None;
    }
    let address = u64::from_str_radix(base, 16).ok()?.wrapping_add(offset);
    let wanted = format!("{address:016x}");
    symbols.lines().find_map(|line| {
        let (address, name) = symbol(line)?;
        (address == wanted).then(|| name.to_owned())
    })
}

/// The address and the name in a line of kallsyms.
fn symbol(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let address = words.next()?;
    words.next()?;
    Some((address, words.next()?))
}

/// What this host's processor is and can do.
fn processor() -> Result<String, TargetError> {
    let text = files::read_text(Path::new("/proc/cpuinfo"))?;
    Ok(text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| {
            [
                "vendor_id",
                "cpu family",
                "model",
                "stepping",
                "microcode",
                "flags",
                "bugs",
            ]
            .iter()
            .any(|name| line.starts_with(name))
        })
        .collect::<Vec<_>>()
        .join("\n"))
}

fn layout(folder: &Path, index: usize) -> PathBuf {
    folder.join(index.to_string())
}

fn symbols(layout: &Path) -> PathBuf {
    layout.join("symbols")
}

fn initramfs(folder: &Path) -> PathBuf {
    folder.join("initramfs")
}

fn facts_file(folder: &Path) -> PathBuf {
    folder.join("facts.json")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SYMBOLS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81001000 T its_return_thunk
ffffffffc0001000 t inside\t[module]
";

    #[test]
    fn the_base_is_the_address_of_text() {
        assert_eq!(base(SYMBOLS).unwrap(), "ffffffff81000000");
        assert_eq!(base("c0300000 T _stext\n").unwrap(), "c0300000");
        assert!(base("").is_err());
        // What a kernel shows that hides its addresses.
        assert!(base("0000000000000000 T _text\n").is_err());
    }

    /// Boots layouts of kernels that lie where it is said, one after the other; says which were booted.
    fn boot(arch: Arch, bases: &[&str]) -> (Result<[usize; COUNT], TargetError>, Vec<usize>) {
        let booted = Mutex::new(Vec::new());
        let outcome = boot_layouts(arch, "6.12", |index| {
            let mut booted = booted.lock().unwrap();
            booted.push(index);
            match bases[booted.len() - 1] {
                "" => Err(TargetError::NoCache),
                base => Ok((base.to_owned(), index)),
            }
        });
        (outcome, booted.into_inner().unwrap())
    }

    #[test]
    fn kernels_that_lie_where_another_does_are_booted_again() {
        let (outcome, mut booted) = boot(Arch::X86_64, &["a", "b"]);
        assert_eq!(outcome.unwrap(), [0, 1]);
        booted.sort_unstable();
        assert_eq!(booted, [0, 1]);
        let (outcome, booted) = boot(Arch::X86_64, &["a", "a", "a", "b"]);
        assert!(outcome.unwrap().contains(&1));
        assert_eq!(booted.len(), 4);
        assert_eq!(booted[2..], [1, 1]);
        let (outcome, booted) = boot(Arch::Arm, &["a", "a"]);
        assert_eq!(outcome.unwrap(), [0, 1], "there, they all lie at one place");
        assert_eq!(booted.len(), 2);
    }

    #[test]
    fn boots_that_do_not_help_come_to_an_end() {
        let (outcome, booted) = boot(Arch::X86_64, &["a"; 20]);
        let message = outcome.unwrap_err().to_string();
        assert!(
            message.contains("6.12") && message.contains('8'),
            "{message}"
        );
        assert_eq!(booted.len(), MOST_BOOTS);
        let (outcome, _) = boot(Arch::X86_64, &["a", ""]);
        assert!(matches!(outcome, Err(TargetError::NoCache)));
    }

    #[test]
    fn return_thunks_are_named() {
        let name = |offset| symbol_at(SYMBOLS, "ffffffff81000000", offset);
        assert_eq!(name(0), None);
        assert_eq!(name(0x1000).as_deref(), Some("its_return_thunk"));
        assert_eq!(name(0x1001), None);
    }

    #[test]
    fn answers_of_another_version_are_refused() {
        let hello = |info| Hello {
            protocol: PROTOCOL_VERSION,
            release: String::new(),
            version: String::new(),
            machine: String::new(),
            command_line: String::new(),
            versions: Default::default(),
            info,
            kernel_config: None,
        };
        let mut answer = vec![0; size_of::<Info>()];
        answer[..4].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        part_info(&hello(Some(answer.clone()))).unwrap();
        assert!(part_info(&hello(Some(answer[1..].to_vec()))).is_err());
        answer[0] = answer[0].wrapping_add(1);
        assert!(part_info(&hello(Some(answer))).is_err());
        assert!(part_info(&hello(None)).is_err());
    }
}
