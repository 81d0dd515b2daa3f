//! Two boots of a target's kernel, and what they make of an object.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::thread;
use std::time::Duration;

use preverify_image::symbols::KernelSymbols;
use preverify_protocol::{Inputs, LoadReply, LoadRequest, Loaded, Reply, Request, Statistics};
use preverify_target::Target;
use preverify_vm::{Machine, VmError};

use crate::error::{BuildError, Disagreement};
use crate::images::{self, Discovered, Note, VerifiedProgram};
use crate::limits::Limits;
use crate::object::Object;
use crate::other_kernel::{self, OnDevice};

/// What the host grants the agent beyond the time that the object has.
const ANSWER_MARGIN: Duration = Duration::from_secs(60);

/// How often an object is loaded again at most because addresses coincide.
const MOST_MOVES: u32 = 4;

/// How often an object is loaded at most until both boots have the same statistics.
const MOST_ATTEMPTS: u32 = 8;

/// What the agent's answer has if an object took too long.
const ETIMEDOUT: i32 = 110;
/// What it has if the kernel ended the object's process for want of memory.
const ENOMEM: i32 = 12;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The kernels verify and compile the object.
    Verify,
    /// They still do, and one has processed so many instructions.
    Processed(u64),
    /// Addresses are found and taken out.
    Discover,
    /// The images are relinked and compared with what both kernels made.
    Prove,
}

/// Two boots of a target's kernel with different address layouts, ready to verify objects.
///
/// What they have verified before can show in their statistics of an object, and so in its bundle. Whoever wants the same
/// bundle each time verifies one object with each.
///
/// `T` refers to the target.
pub struct Verifier<T> {
    target: T,
    limits: Limits,
    boots: [Boot; 2],
}

struct Boot {
    machine: Machine,
    symbols: KernelSymbols,
    /// The versions of what the verdict depends on.
    versions: BTreeMap<String, String>,
}

/// An accepted object: the verdict, and the proved images of its programs.
#[derive(Debug)]
pub struct Verified {
    /// The object's name.
    pub name: String,
    /// The object's SHA-256 in hexadecimal.
    pub object_sha256: String,
    /// What was set between its opening and its loading.
    pub inputs: Inputs,
    /// The versions of what the verdict depends on, by name.
    pub versions: BTreeMap<String, String>,
    /// What libbpf and the kernel made of it.
    pub loaded: Loaded,
    /// Its programs, in the order of [`Loaded::programs`].
    pub programs: Vec<VerifiedProgram>,
    /// What the kernel of devices needs, if that is another one.
    pub on_device: Option<OnDevice>,
    /// The images that could not be made, of programs that have their other one.
    pub notes: Vec<Note>,
}

impl<T: Deref<Target = Target>> Verifier<T> {
    /// Restores two snapshots of the target; if the limits ask for more memory, boots two machines instead.
    pub fn start(target: T, limits: Limits) -> Result<Self, BuildError> {
        let boots = match limits.more_memory(&target) {
            Some(memory) => {
                let [first, second] = target.boot_all(memory)?;
                [Boot::new(first)?, Boot::new(second)?]
            }
            None => {
                let target = &*target;
                both(|layout| Boot::restore(target, layout))?
            }
        };
        Ok(Self {
            target,
            limits,
            boots,
        })
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Has limits other than those it was started with, which ask for no more memory.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Has an object verified, finds its images and proves them. `stage` is told what is under way;
    /// where statistics differ, the object is verified again, and where addresses coincide, again with its maps
    /// elsewhere.
    ///
    /// After an error that is no verdict, the verifier is of no more use: start another.
    pub fn verify(
        &mut self,
        object: &Object,
        stage: &mut dyn FnMut(Stage),
    ) -> Result<Verified, BuildError> {
        let modules = self.module_files(object)?;
        for boot in &mut self.boots {
            boot.write_files(&modules)?;
        }
        let mut moves = 0;
        let (loaded, discovered) = loop {
            let [loaded, again] = agreed(|| {
                stage(Stage::Verify);
                self.load(object, doubles(moves), &mut |insns| {
                    stage(Stage::Processed(insns))
                })
            })?;
            stage(Stage::Discover);
            let discovered = images::discover([&loaded, &again], self.symbols())?;
            if moves == MOST_MOVES || !discovered.iter().any(Discovered::depends_on_layout) {
                break (loaded, discovered);
            }
            moves += 1;
        };
        let symbols = self.symbols();
        let (chosen, notes) = images::choose(discovered)?;

        stage(Stage::Prove);
        let programs = images::prove(chosen, symbols)?;
        let on_device = other_kernel::fit(&self.target, object, &loaded, &programs, symbols[0])?;
        Ok(Verified {
            name: object.name.clone(),
            object_sha256: object.sha256(),
            inputs: object.inputs.clone(),
            versions: self.boots[0].versions.clone(),
            loaded,
            programs,
            on_device,
            notes,
        })
    }

    fn symbols(&self) -> [&KernelSymbols; 2] {
        self.boots.each_ref().map(|boot| &boot.symbols)
    }

    /// Loads an object in both boots, and unloads it again.
    fn load(
        &mut self,
        object: &Object,
        doubles: [u32; 2],
        tell: &mut dyn FnMut(u64),
    ) -> Result<[Loaded; 2], BuildError> {
        let limits = &self.limits;
        let [first, second] = &mut self.boots;
        let (loaded, again) = thread::scope(|scope| {
            let again = thread::Builder::new().spawn_scoped(scope, || {
                second.load(object, doubles[1], limits, &mut |_| {})
            });
            let loaded = first.load(object, doubles[0], limits, tell);
            let again = again.map(|thread| match thread.join() {
                Ok(again) => again,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            (loaded, again)
        });
        let (loaded, again) = match (loaded?, again.map_err(BuildError::Thread)??) {
            (LoadReply::Accepted(loaded), LoadReply::Accepted(again)) => (*loaded, *again),
            (LoadReply::Rejected(rejection), LoadReply::Rejected(_)) => {
                return Err(BuildError::Rejected(Box::new(rejection)));
            }
            (LoadReply::Accepted(_), LoadReply::Rejected(rejection)) => {
                return Err(verdicts_differ("accepted", &rejection));
            }
            (LoadReply::Rejected(rejection), LoadReply::Accepted(_)) => {
                return Err(verdicts_differ(&rejection, "accepted"));
            }
        };
        for (boot, loaded) in self.boots.iter_mut().zip([&loaded, &again]) {
            boot.unload(loaded)?;
        }
        Ok([loaded, again])
    }

    /// The kernel modules that an object's inputs name, with all that they depend on, as files for the guests.
    fn module_files(&self, object: &Object) -> Result<Vec<(String, Vec<u8>)>, BuildError> {
        let names: Vec<_> = object.inputs.modules.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let files = self.target.module_files(&names)?.into_iter();
        files
            .map(|(path, file)| match fs::read(&file) {
                Ok(contents) => Ok((path, contents)),
                Err(source) => Err(BuildError::Module { file, source }),
            })
            .collect()
    }
}

impl Boot {
    fn restore(target: &Target, layout: usize) -> Result<Self, BuildError> {
        Self::new(preverify_target::Boot {
            machine: target.restore(layout)?,
            symbols: target.symbols(layout)?,
        })
    }

    fn new(boot: preverify_target::Boot) -> Result<Self, BuildError> {
        let mut boot = Self {
            machine: boot.machine,
            symbols: KernelSymbols::parse(boot.symbols)?,
            versions: BTreeMap::new(),
        };
        match boot.request(&Request::Hello, ANSWER_MARGIN)? {
            Reply::Hello(hello) => boot.versions = hello.versions,
            other => return Err(unexpected("its greeting", &other)),
        }
        Ok(boot)
    }

    fn write_files(&mut self, files: &[(String, Vec<u8>)]) -> Result<(), BuildError> {
        for (path, contents) in files {
            let request = Request::WriteFile {
                path: path.clone(),
                mode: 0o644,
                contents: contents.clone(),
            };
            self.request(&request, ANSWER_MARGIN)?;
        }
        Ok(())
    }

    fn load(
        &mut self,
        object: &Object,
        doubles: u32,
        limits: &Limits,
        tell: &mut dyn FnMut(u64),
    ) -> Result<LoadReply, BuildError> {
        let request = Request::Load(LoadRequest {
            object: object.elf.clone(),
            name: object.name.clone(),
            inputs: object.inputs.clone(),
            share: object.share,
            export: true,
            doubles,
            limits: limits.verifier,
            time_limit: u32::try_from(limits.time.as_secs()).unwrap_or(u32::MAX),
        });
        let mut processed = None;
        let reply = self
            .machine
            .follow(&request, limits.time + ANSWER_MARGIN, &mut |insns| {
                processed = Some(insns);
                tell(insns);
            });
        let reply = match reply {
            Ok(Reply::Load(reply)) => reply,
            Err(VmError::TimedOut { .. })
            | Ok(Reply::Failed {
                errno: ETIMEDOUT, ..
            }) => {
                let limit = limits.time;
                return Err(BuildError::TimedOut { limit, processed });
            }
            Ok(Reply::FixedLimits(own)) => return Err(BuildError::FixedLimits(own)),
            Ok(Reply::Failed { errno: ENOMEM, .. }) => {
                return Err(BuildError::OutOfMemory { processed });
            }
            Ok(Reply::Failed { message, .. }) => return Err(BuildError::Agent { message }),
            Ok(other) => return Err(unexpected("a verdict", &other)),
            Err(error) => return Err(error.into()),
        };
        // Modules that came with the object have symbols of their own.
        if !object.inputs.modules.is_empty() {
            match self.request(&Request::Symbols, ANSWER_MARGIN)? {
                Reply::Symbols(text) => self.symbols = KernelSymbols::parse(text)?,
                other => return Err(unexpected("the kernel's symbols", &other)),
            }
        }
        Ok(reply)
    }

    fn unload(&mut self, loaded: &Loaded) -> Result<(), BuildError> {
        let handle = loaded.handle;
        match self.request(&Request::Unload { handle }, ANSWER_MARGIN)? {
            Reply::Done => Ok(()),
            other => Err(unexpected("success", &other)),
        }
    }

    fn request(&mut self, request: &Request, limit: Duration) -> Result<Reply, BuildError> {
        match self.machine.request(request, limit)? {
            Reply::Failed { message, .. } => Err(BuildError::Agent { message }),
            reply => Ok(reply),
        }
    }
}

/// Does the same for both boots at the same time.
fn both<T: Send>(
    work: impl Fn(usize) -> Result<T, BuildError> + Sync,
) -> Result<[T; 2], BuildError> {
    thread::scope(|scope| {
        let second = thread::Builder::new()
            .spawn_scoped(scope, || work(1))
            .map_err(BuildError::Thread)?;
        let first = work(0);
        let second = match second.join() {
            Ok(second) => second,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok([first?, second?])
    })
}

/// How many doubles of each map the boots create. Kernels that do not choose addresses at random put maps at the same ones
/// in both, unless the boots differ in what was created before; and since they may differ in that from the start, they
/// differ by another number each time.
const fn doubles(moves: u32) -> [u32; 2] {
    [moves, 2 * moves + 1]
}

/// Has both boots load an object until they have the same statistics of it. All else but ids, addresses and times must
/// be the same at once.
///
/// A kernel's statistics of some programs are not the same each time, even in one boot: 6.1's and 6.12's verifiers drop
/// states that were of little use and free them, but `parent` pointers of their children stay. When a path is pruned,
/// `propagate_liveness` has `mark_reg_read` compare such a pointer with the current state's registers. If the allocator
/// happened to give them the freed memory, both are equal, a read mark is not passed on, and states are pruned
/// otherwise. Statistics are what tells of that. So they are neither reason to refuse nor to be ignored: two boots that
/// were just restored, and have verified nothing else, agree in nearly all cases, and in the same.
fn agreed(
    mut load: impl FnMut() -> Result<[Loaded; 2], BuildError>,
) -> Result<[Loaded; 2], BuildError> {
    let mut attempt = 1;
    loop {
        let [loaded, again] = load()?;
        same_object(&loaded, &again)?;
        match same_statistics(&loaded, &again) {
            Err(disagreement) if attempt == MOST_ATTEMPTS => return Err(disagreement.into()),
            Err(_) => attempt += 1,
            Ok(()) => return Ok([loaded, again]),
        }
    }
}

/// Everything but statistics, ids, addresses and times must be the same.
fn same_object(first: &Loaded, second: &Loaded) -> Result<(), Disagreement> {
    let names = |loaded: &Loaded| -> Vec<_> {
        let programs = loaded.programs.iter();
        programs
            .map(|program| (program.function.clone(), program.prog_flags))
            .collect()
    };
    Disagreement::unless_equal("the programs", &names(first), &names(second))?;
    Disagreement::unless_equal("the number of maps", &first.maps.len(), &second.maps.len())?;
    for (map, again) in first.maps.iter().zip(&second.maps) {
        let mut again = again.clone();
        again.id = map.id;
        Disagreement::unless_equal(format!("the map `{}`", map.full_name), map, &again)?;
    }
    Disagreement::unless_equal("the static entries of maps", &first.slots, &second.slots)?;
    Disagreement::unless_equal("the verifier's limits", &first.limits, &second.limits)?;
    Disagreement::unless_equal("the object's BTF", &first.btf, &second.btf)
}

/// All of the verifier's statistics but its time.
fn same_statistics(first: &Loaded, second: &Loaded) -> Result<(), Disagreement> {
    for (program, again) in first.programs.iter().zip(&second.programs) {
        Disagreement::unless_equal(
            format!(
                "the verifier's statistics of `{}`, {MOST_ATTEMPTS} times",
                program.function
            ),
            &timeless(program.statistics),
            &timeless(again.statistics),
        )?;
    }
    Ok(())
}

fn timeless(statistics: Statistics) -> Statistics {
    Statistics {
        duration_us: 0,
        ..statistics
    }
}

fn verdicts_differ(first: impl std::fmt::Debug, second: impl std::fmt::Debug) -> BuildError {
    Disagreement {
        what: "their verdict".into(),
        first: format!("{first:?}"),
        second: format!("{second:?}"),
    }
    .into()
}

fn unexpected(expected: &'static str, found: &Reply) -> BuildError {
    let found = format!("{found:?}").chars().take(80).collect();
    VmError::Answer { expected, found }.into()
}

#[cfg(test)]
mod tests {
    use preverify_protocol::LoadedProgram;

    use super::*;

    fn loaded(total_insns: u32, mark_read: u32, duration_us: u32) -> Loaded {
        Loaded {
            handle: 1,
            programs: vec![LoadedProgram {
                function: "redirect".into(),
                elf_section: "tc".into(),
                prog_flags: 0,
                attach_name: None,
                statistics: Statistics {
                    total_insns,
                    mark_read,
                    duration_us,
                    ..Statistics::default()
                },
                export: None,
            }],
            maps: Vec::new(),
            slots: Vec::new(),
            limits: preverify_protocol::Limits::STOCK,
            btf: None,
            warnings: String::new(),
        }
    }

    /// What both boots agree in, and how often they were asked; they say one after the other what is given, and the
    /// last for ever.
    fn asked(answers: &[[Loaded; 2]]) -> (Result<[Loaded; 2], BuildError>, usize) {
        let mut asked = 0;
        let result = agreed(|| {
            let answer = answers.get(asked).or(answers.last());
            asked += 1;
            Ok(answer.expect("there are answers").clone())
        });
        (result, asked)
    }

    #[test]
    fn times_may_differ() {
        let (agreed, asked) = asked(&[[loaded(57_544, 29, 1000), loaded(57_544, 29, 2000)]]);
        assert_eq!(asked, 1);
        assert_eq!(agreed.unwrap()[1], loaded(57_544, 29, 2000));
    }

    #[test]
    fn where_statistics_differ_both_boots_are_asked_again() {
        let (agreed, asked) = asked(&[
            [loaded(57_535, 29, 0), loaded(57_544, 29, 0)],
            [loaded(57_544, 28, 0), loaded(57_544, 29, 0)],
            [loaded(57_544, 29, 0), loaded(57_544, 29, 0)],
        ]);
        assert_eq!(asked, 3);
        assert_eq!(agreed.unwrap()[0], loaded(57_544, 29, 0));
    }

    #[test]
    fn statistics_that_never_agree_are_refused() {
        let (agreed, asked) = asked(&[[loaded(1, 0, 0), loaded(2, 0, 0)]]);
        assert_eq!(asked, MOST_ATTEMPTS as usize);
        let message = agreed.unwrap_err().to_string();
        assert!(
            message.contains("the verifier's statistics of `redirect`, 8 times"),
            "{message}"
        );
    }

    #[test]
    fn what_else_differs_is_refused_at_once() {
        let mut other = loaded(1, 0, 0);
        other.programs[0].prog_flags = 1;
        let (agreed, asked) = asked(&[[loaded(1, 0, 0), other]]);
        assert_eq!(asked, 1);
        let message = agreed.unwrap_err().to_string();
        assert!(message.contains("differ in the programs"), "{message}");
    }
}
