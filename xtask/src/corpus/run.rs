//! `cargo xtask corpus run`: every object goes the whole way, and what it does on a device is compared with what
//! the same object does that was loaded there as ever.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use preverify_bundle::Bundle;
use preverify_image::symbols::SymbolsError;
use preverify_lab::{Device, DeviceError, LOADER, Lab, LabError, pinned};
use preverify_pipeline::inputs::{self, InputsError};
use preverify_pipeline::{
    BuildError, ImageKind, Limits, Mismatch, MismatchReason, Object, Verified, VerifiedProgram,
    Verifier,
};
use preverify_protocol::{
    Inputs, LoadReply, LoadRequest, ProgramRef, Rejection, Stage, WantedLimits,
};
use preverify_target::{DeviceOptions, Target, TargetError};
use serde::Deserialize;

use super::compare::{self, Comparison};
use super::expectations::Verdict;
use super::report::{self, BY_STOCK, Images, Load, NEEDS_BTF, Row};
use super::{CorpusError, CorpusObject, Extent, objects, path_of, sample};
use crate::arch::Arch;
use crate::linux::Role;
use crate::paths::{target_dir, workspace};

/// What one object may take to verify. The heaviest that are accepted take 30 s on emulated machines.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);
/// Programs that an object may have beside those that load: each costs an attempt.
const ATTEMPTS: usize = 200;
/// Objects after which machines are made anew, so that none suffers from what others left.
const FRESH_AFTER: usize = 100;

/// How often stock programs are run again, to see whether they do the same each time.
const AGAIN: usize = 7;

const BUNDLE: &str = "/tmp/object.pvb";
const PINS: &str = "/sys/fs/bpf/object";

/// Which objects.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only objects whose ids contain one of these, as in `libbpf-tools/` or `selftests/loop`
    filter: Vec<String>,
    /// Only the fixed sample that `cargo xtask test` takes
    #[arg(long)]
    sample: bool,
    /// The kernel, as in `debian:6.1-arm64`; its architecture's objects are taken
    #[arg(long, default_value = preverify_lab::TARGET)]
    target: String,
    /// Kernels of `cargo xtask kernel` instead: devices run this one, the verifier kernel verifies
    #[arg(long, value_enum, conflicts_with = "target")]
    built: Option<Role>,
    /// The architecture of those kernels
    #[arg(long, value_enum, default_value_t = Arch::X86_64, requires = "built")]
    arch: Arch,
    /// What devices load; both, one after the other, if not given
    #[arg(long, value_enum)]
    image: Option<Images>,
}

impl Args {
    /// The fixed sample, for a target.
    pub fn sample(target: &str) -> Self {
        Self {
            filter: Vec::new(),
            sample: true,
            target: target.into(),
            built: None,
            arch: Arch::X86_64,
            image: None,
        }
    }

    /// The fixed sample, for devices with machine code alone and no verifier.
    pub fn sample_on_devices(arch: Arch) -> Self {
        Self {
            built: Some(Role::Device),
            arch,
            image: Some(Images::Native),
            ..Self::sample(preverify_lab::TARGET)
        }
    }

    /// The kernel of `cargo xtask kernel` that devices run, if that is asked for.
    pub fn built(&self) -> Option<(Role, Arch)> {
        Some((self.built?, self.arch))
    }

    /// The kernel.
    pub fn target(&self) -> &str {
        &self.target
    }

    fn images(&self) -> &[Images] {
        match &self.image {
            Some(images) => std::slice::from_ref(images),
            None => &Images::ALL,
        }
    }
}

/// The corpus could not be run: nothing is said about any object.
#[derive(Debug, thiserror::Error)]
pub enum RunCorpusError {
    /// There is none.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// There is no laboratory.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A target cannot be read.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its device kernel's symbols are not those of a kernel.
    #[error("the symbols of the kernel of devices: {0}")]
    Symbols(#[from] SymbolsError),
    /// An input file of ours is wrong.
    #[error("{}: {cause}", path.display())]
    Inputs { path: PathBuf, cause: InputsError },
    /// The sample names an object that the corpus does not have.
    #[error("the sample names `{0}`, which the corpus does not have")]
    Sample(&'static str),
    /// A filter that lets nothing through.
    #[error("no object's id contains `{0}`")]
    NoneChosen(String),
    /// A file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        path: PathBuf,
        cause: std::io::Error,
    },
    /// Kernels whose limits are raised make other images.
    #[error("{0} programs have other images where limits are raised")]
    OtherImages(usize),
    /// Objects of the sample did not do what they did before.
    #[error("{0} objects of the sample did not go the whole way")]
    Regressed(usize),
}

/// Runs objects and prints what became of them.
pub fn run(args: &Args, lab: &Lab) -> Result<(), RunCorpusError> {
    let arch = Arch::from(lab.architecture());
    let chosen = chosen(Extent::sample_if(args.sample), &args.filter, arch)?;
    let mut machines = Machines::new(lab, args.images());
    let start = Instant::now();
    let mut rows = Vec::with_capacity(chosen.len());
    for (index, object) in chosen.iter().enumerate() {
        let row = machines.row(object)?;
        println!(
            "[{:>4}/{} {:>5} s] {}",
            index + 1,
            chosen.len(),
            start.elapsed().as_secs(),
            row
        );
        rows.push(row);
    }
    machines.finish()?;
    let results = results_file(lab.target.name());
    let text = serde_json::to_vec_pretty(&rows).expect("rows have only strings as keys");
    fs::write(&results, text).map_err(|cause| RunCorpusError::File {
        path: results.clone(),
        cause,
    })?;
    println!("\n{}", report::table(&rows));
    if arch != Arch::X86_64
        && let Some(x86_64) = rows_on_x86_64()
    {
        println!("{}", report::covered(&rows, &x86_64));
    }
    println!("each object: {}", results.display());
    // The sample was chosen on one kernel: others take less of it, or do not come to an end with it.
    let usual = args.built.is_none() && args.target == preverify_lab::TARGET;
    let excused = |row: &Row| row.stopped_by_stock() && !usual;
    let needs_btf = |row: &Row| row.needs_btf() && args.built.is_some();
    let short = rows
        .iter()
        .filter(|row| !row.whole_way() && !excused(row) && !needs_btf(row));
    let short = short.count();
    match args.sample && short > 0 {
        true => Err(RunCorpusError::Regressed(short)),
        false => Ok(()),
    }
}

/// What became of each object, for a target.
fn results_file(target: &str) -> PathBuf {
    target_dir().join(format!("corpus-{target}.json"))
}

/// What became of each object on x86_64, if that was run.
fn rows_on_x86_64() -> Option<Vec<Row>> {
    let name = preverify_lab::TARGET.replace(':', "-");
    let text = fs::read(results_file(&name)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Those objects whose ids contain a part that is asked for; all, if none is.
pub fn chosen(
    extent: Extent,
    parts: &[String],
    arch: Arch,
) -> Result<Vec<CorpusObject>, RunCorpusError> {
    let mut chosen = objects(arch, extent)?;
    if extent == Extent::Sample
        && let Some(missing) = sample().find(|id| path_of(&chosen, id).is_none())
    {
        return Err(RunCorpusError::Sample(missing));
    }
    if !parts.is_empty() {
        chosen.retain(|object| parts.iter().any(|part| object.id.contains(part.as_str())));
    }
    match chosen.is_empty() {
        true => Err(RunCorpusError::NoneChosen(parts.join("`, `"))),
        false => Ok(chosen),
    }
}

/// The machines that objects go through.
struct Machines<'a> {
    lab: &'a Lab,
    images: &'a [Images],
    device: Option<Device>,
    /// What loads objects as ever, where devices have a kernel that does not.
    stock: Option<Device>,
    served: usize,
}

impl<'a> Machines<'a> {
    fn new(lab: &'a Lab, images: &'a [Images]) -> Self {
        Self {
            lab,
            images,
            device: None,
            stock: None,
            served: 0,
        }
    }

    /// What becomes of an object. Machines that fail are replaced, and the failure is the object's.
    fn row(&mut self, found: &CorpusObject) -> Result<Row, RunCorpusError> {
        self.served += 1;
        if self.served.is_multiple_of(FRESH_AFTER) {
            self.finish()?;
        }
        let mut row = Row::new(&found.id, found.source);
        let mut object = read(found)?;
        match self.whole_way(&mut object, &mut row) {
            Ok(()) => {}
            Err(Failure::Object(reason)) => row.stopped(reason),
            Err(Failure::Device(error)) => {
                self.device = None;
                self.stock = None;
                row.stopped(format!("device: {error}"));
            }
            Err(Failure::StockDevice(error)) => {
                self.device = None;
                self.stock = None;
                row.stopped(format!("{BY_STOCK}device: {error}"));
            }
            Err(Failure::Listing { listed, cause }) => {
                row.stopped(format!("the loader's list: {cause}: {listed}"));
            }
            Err(Failure::Verifier(error)) => row.stopped(format!("verifier VM: {error}")),
            Err(Failure::Lab(error)) => return Err(error.into()),
        }
        Ok(row)
    }

    fn whole_way(&mut self, object: &mut Object, row: &mut Row) -> Result<(), Failure> {
        self.settle(object, row)?;
        let verified = self.verify(object, row)?;
        let bundle = self.lab.bundle(&verified).map_err(Failure::of)?;
        row.proved = true;
        let loaded = verified.loaded.programs.iter();
        row.carried = loaded.map(|program| program.function.clone()).collect();
        for note in &verified.notes {
            let remarks = match note.image {
                ImageKind::Native => &mut row.bytecode_only,
                ImageKind::Bytecode => &mut row.native_only,
            };
            remarks.push((note.program.clone(), note.problem.to_string()));
        }
        row.bundle_bytes = bundle.to_bytes().len();
        self.verify_again(object, &bundle, row)?;
        self.compare(object, &bundle, &verified, row)
    }

    /// Leaves out what the stock kernel does not take, as the object's own user space would.
    fn settle(&mut self, object: &mut Object, row: &mut Row) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let reply = self.stock()?.load_stock(request(object, false))?;
            match reply {
                LoadReply::Accepted(loaded) => {
                    self.stock()?.unload_stock(loaded.handle)?;
                    let programs = loaded.programs.into_iter();
                    row.accepted = programs.map(|program| program.function).collect();
                    return match row.accepted.is_empty() {
                        true => Err(Failure::Object(format!("{BY_STOCK}no program is accepted"))),
                        false => Ok(()),
                    };
                }
                LoadReply::Rejected(rejection) => {
                    let autoload = blamed(&rejection)
                        .map(|program| {
                            &mut object.inputs.programs.entry(program).or_default().autoload
                        })
                        // libbpf loads some programs whatever is asked of it.
                        .filter(|autoload| **autoload != Some(false));
                    match autoload {
                        Some(autoload) => *autoload = Some(false),
                        None => {
                            let words = last_words(&rejection);
                            return Err(Failure::Object(format!("{BY_STOCK}{words}")));
                        }
                    }
                    row.rejected += 1;
                }
            }
        }
        Err(Failure::Object("too many programs are rejected".into()))
    }

    /// Builds; programs that cannot be carried are left out, and their reasons kept.
    fn verify(&self, object: &mut Object, row: &mut Row) -> Result<Verified, Failure> {
        loop {
            match self.verifier()?.verify(object, &mut |_| {}) {
                Ok(verified) => return Ok(verified),
                Err(BuildError::Programs(problems)) => {
                    if problems.len() + row.left_out.len() >= row.accepted.len() {
                        let problem = problems.into_iter().next().expect("there is a problem");
                        return Err(Failure::Object(format!("build: {}", problem.problem)));
                    }
                    for problem in problems {
                        let entry = object.inputs.programs.entry(problem.program.clone());
                        entry.or_default().autoload = Some(false);
                        row.left_out
                            .push((problem.program, problem.problem.to_string()));
                    }
                }
                Err(error) => return Err(Failure::of(error.into())),
            }
        }
    }

    /// The same once more must give the same bytes.
    fn verify_again(&self, object: &Object, bundle: &Bundle, row: &mut Row) -> Result<(), Failure> {
        let again = self.verifier()?.verify(object, &mut |_| {});
        let again = again.map_err(|error| Failure::of(error.into()))?;
        let again = self.lab.bundle(&again).map_err(Failure::of)?;
        row.same_twice = again.manifest_bytes() == bundle.manifest_bytes();
        Ok(())
    }

    fn compare(
        &mut self,
        object: &Object,
        bundle: &Bundle,
        verified: &Verified,
        row: &mut Row,
    ) -> Result<(), Failure> {
        let images = self.images;
        let first = stock_runs(self.stock()?, object, verified, 0).map_err(Failure::of_stock)?;
        let device = self.device()?;
        device.put(BUNDLE, 0o644, bundle.to_bytes())?;
        let mut ours = Vec::new();
        for &images in images {
            if !verified
                .programs
                .iter()
                .any(|program| able(program, images))
            {
                continue;
            }
            let (load, runs) = load(device, verified, images)?;
            row.loads.insert(images, load);
            ours.push((images, runs));
        }
        device.healthy_log()?;
        let second = stock_runs(self.stock()?, object, verified, AGAIN)?;
        for (images, runs) in ours {
            let load = row.loads.entry(images).or_default();
            load.runs = Comparison::of(&first, &runs, &second);
        }
        self.stock()?.healthy_log()?;
        Ok(())
    }

    fn device(&mut self) -> Result<&mut Device, Failure> {
        if self.device.is_none() {
            self.device = Some(self.lab.boot(machine()).map_err(Failure::Lab)?);
        }
        Ok(self.device.as_mut().expect("was just made"))
    }

    /// The device, unless its kernel does not verify.
    fn stock(&mut self) -> Result<&mut Device, Failure> {
        if self.lab.device_kernel().is_none() {
            return self.device();
        }
        if self.stock.is_none() {
            self.stock = Some(self.lab.boot_verifying(machine()).map_err(Failure::Lab)?);
        }
        Ok(self.stock.as_mut().expect("was just made"))
    }

    /// Machines that have verified nothing yet, as builds have them: what a kernel has verified before shows in its statistics
    /// of some objects.
    fn verifier(&self) -> Result<Verifier<&'a Target>, Failure> {
        Verifier::start(&self.lab.target, Limits::of_time(TIME_LIMIT))
            .map_err(|error| Failure::Lab(error.into()))
    }

    /// Ends the devices, whose kernels must have stayed healthy.
    fn finish(&mut self) -> Result<(), RunCorpusError> {
        for mut device in [self.device.take(), self.stock.take()]
            .into_iter()
            .flatten()
        {
            device.healthy_log().map_err(LabError::from)?;
        }
        Ok(())
    }
}

fn machine() -> DeviceOptions {
    DeviceOptions {
        memory_mib: Some(2048),
        cpus: Some(2),
        ..DeviceOptions::default()
    }
}

/// Why an object stopped on its way.
enum Failure {
    /// The object's own doing.
    Object(String),
    /// A device failed, and must be replaced.
    Device(DeviceError),
    /// A device failed with programs that were loaded as ever, and must be replaced.
    StockDevice(DeviceError),
    /// The loader did not list what it says it does.
    Listing {
        listed: String,
        cause: serde_json::Error,
    },
    /// A verifier VM failed.
    Verifier(BuildError),
    /// Nothing can go on.
    Lab(LabError),
}

impl Failure {
    fn of(error: LabError) -> Self {
        match error {
            LabError::Build(
                error @ (BuildError::Machine(_)
                | BuildError::Agent { .. }
                | BuildError::TimedOut { .. }
                | BuildError::OutOfMemory { .. }),
            ) => Self::Verifier(error),
            LabError::Build(BuildError::OtherKernel(mismatches)) => {
                let needs_btf = |mismatch: &Mismatch| {
                    matches!(mismatch.reason, MismatchReason::KernelPointer { .. })
                };
                let other = mismatches.iter().find(|mismatch| !needs_btf(mismatch));
                let reason = other.or(mismatches.first()).map(|found| &found.reason);
                let words = reason.map_or(String::new(), first_line);
                Self::Object(match other {
                    None => format!("{NEEDS_BTF}{words}"),
                    Some(_) => format!("build: the kernels are not the same: {words}"),
                })
            }
            LabError::Build(error) => Self::Object(format!("build: {}", first_line(&error))),
            other => Self::Lab(other),
        }
    }

    /// The same, with what was loaded as ever.
    fn of_stock(self) -> Self {
        match self {
            Self::Device(error) => Self::StockDevice(error),
            other => other,
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// Loads the bundle one way, runs its programs, and unloads it.
fn load(
    device: &mut Device,
    verified: &Verified,
    images: Images,
) -> Result<(Load, Vec<compare::Run>), Failure> {
    let mut command = vec![LOADER, "load", BUNDLE, "--pin", PINS];
    if images == Images::Bytecode {
        command.extend(["--image", "bytecode"]);
    }
    let able = |program: &VerifiedProgram| able(program, images);
    if !verified.programs.iter().all(able) {
        for (program, loaded) in verified.programs.iter().zip(&verified.loaded.programs) {
            if able(program) {
                command.extend(["--program", &loaded.function]);
            }
        }
    }
    let loaded = device.try_run(&command)?;
    if loaded.status != 0 {
        let reason = String::from_utf8_lossy(&loaded.stderr).trim().to_owned();
        return Err(Failure::Object(format!("load, {images}: {reason}")));
    }
    let listed = device.run(&[LOADER, "list", PINS, "--json"])?;
    let load = counted(&listed).map_err(|cause| Failure::Listing { listed, cause })?;
    let runs = compare::runs(device, verified, 0, able, |function| {
        pinned(&format!("{PINS}/{function}"))
    })?;
    device.run(&[LOADER, "unload", PINS])?;
    Ok((load, runs))
}

/// Whether a program can be loaded that way.
fn able(program: &VerifiedProgram, images: Images) -> bool {
    images == Images::Native || program.bytecode.is_some()
}

/// One of what the loader lists.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Listed {
    Program {
        path: String,
        jited_size: u32,
        image: Images,
    },
    #[serde(other)]
    Other,
}

/// What programs were loaded from, as the device says.
fn counted(listed: &str) -> serde_json::Result<Load> {
    let mut load = Load::default();
    for one in serde_json::from_str::<Vec<Listed>>(listed)? {
        let Listed::Program {
            path,
            jited_size,
            image,
        } = one
        else {
            continue;
        };
        let function = path.trim_start_matches(PINS).trim_start_matches('/');
        if jited_size == 0 {
            load.interpreted.push(function.into());
        }
        let loaded = match image {
            Images::Native => &mut load.native,
            Images::Bytecode => &mut load.bytecode,
        };
        loaded.push(function.into());
    }
    Ok(load)
}

fn stock_runs(
    device: &mut Device,
    object: &Object,
    verified: &Verified,
    again: usize,
) -> Result<Vec<compare::Run>, Failure> {
    let loaded = match device.load_stock(request(object, false))? {
        LoadReply::Accepted(loaded) => loaded,
        LoadReply::Rejected(rejection) => {
            return Err(Failure::Object(format!(
                "{BY_STOCK}once more: {}",
                last_words(&rejection)
            )));
        }
    };
    let handle = loaded.handle;
    let runs = compare::runs(
        device,
        verified,
        again,
        |_| true,
        |function| ProgramRef::Loaded {
            handle,
            function: function.to_owned(),
        },
    )?;
    device.unload_stock(handle)?;
    Ok(runs)
}

fn request(object: &Object, export: bool) -> LoadRequest {
    LoadRequest {
        object: object.elf.clone(),
        name: object.name.clone(),
        inputs: object.inputs.clone(),
        share: None,
        export,
        doubles: 0,
        limits: WantedLimits::default(),
        time_limit: u32::try_from(TIME_LIMIT.as_secs()).unwrap_or(u32::MAX),
    }
}

/// An object with its inputs.
pub fn read(found: &CorpusObject) -> Result<Object, RunCorpusError> {
    let mut object = Object::read(&found.path).map_err(|cause| RunCorpusError::File {
        path: found.path.clone(),
        cause,
    })?;
    object.inputs = starting_inputs(found)?;
    Ok(object)
}

/// What its user space would set, as far as files of ours and the object's own annotations say.
fn starting_inputs(object: &CorpusObject) -> Result<Inputs, RunCorpusError> {
    let path = inputs_file(&object.id);
    let mut inputs = match fs::read_to_string(&path) {
        Ok(text) => inputs::parse(&text).map_err(|cause| RunCorpusError::Inputs { path, cause })?,
        Err(_) => Inputs::default(),
    };
    for expectation in &object.expectations {
        let autoload = match expectation.verdict {
            Some(Verdict::Accepted) => true,
            Some(Verdict::Rejected) => false,
            None => continue,
        };
        let program = inputs.programs.entry(expectation.program.clone());
        program.or_default().autoload.get_or_insert(autoload);
    }
    Ok(inputs)
}

fn inputs_file(id: &str) -> PathBuf {
    workspace()
        .join("xtask/corpus-inputs")
        .join(format!("{id}.toml"))
}

/// The program that cannot be loaded: the verifier rejects it, or what it attaches to is not in this kernel, so that
/// its own user space would leave it out.
pub fn blamed(rejection: &Rejection) -> Option<String> {
    match rejection.stage {
        Stage::Verify => rejection.program.clone(),
        Stage::Prepare => rejection.libbpf_log.lines().find_map(|line| {
            let (_, named) = line.split_once("prog '")?;
            let (program, why) = named.split_once('\'')?;
            why.contains("failed to").then(|| program.to_owned())
        }),
        _ => None,
    }
}

fn last_words(rejection: &Rejection) -> String {
    let log = rejection.libbpf_log.lines().rev();
    let telling = log.map(str::trim).find(|line| !line.is_empty());
    format!(
        "{:?}, errno {}: {}",
        rejection.stage,
        rejection.errno.abs(),
        telling.unwrap_or("libbpf says nothing")
    )
}

pub fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_counted_by_what_they_were_loaded_from() {
        let load = counted(
            r#"[{"path":"/sys/fs/bpf/object/maps/m","kind":"map","id":1},
                {"path":"/sys/fs/bpf/object/f","kind":"program","jited_size":9,"image":"native"},
                {"path":"/sys/fs/bpf/object/g","kind":"program","jited_size":0,"image":"bytecode"}]"#,
        )
        .expect("a list");
        assert_eq!(
            (&load.native[..], &load.bytecode[..]),
            (&["f".to_owned()][..], &["g".to_owned()][..])
        );
        assert_eq!(load.interpreted, ["g"]);
        assert!(counted("no list").is_err());
    }
}
