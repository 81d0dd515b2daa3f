//! Two boots of a target's kernel, and what they make of an object.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use preverify_image::export::Export;
use preverify_image::image::Sections;
use preverify_image::symbols::KernelSymbols;
use preverify_image::{Capture, Proof, discover, prove};
use preverify_protocol::{Inputs, LoadReply, LoadRequest, Loaded, Reply, Request};
use preverify_target::Target;
use preverify_vm::Machine;

use crate::error::{BuildError, Disagreement, Problem, ProgramProblem};
use crate::object::Object;

/// What the host grants the agent beyond the time that the object has.
const ANSWER_MARGIN: Duration = Duration::from_secs(60);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Two snapshots of the target's kernel are restored.
    Restore,
    /// The kernels verify and compile the object.
    Verify,
    /// Addresses are found and taken out.
    Discover,
    /// The images are relinked and compared with what both kernels made.
    Prove,
}

/// Two boots of a target's kernel with different address layouts, ready to verify objects.
pub struct Verifier<'a> {
    target: &'a Target,
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
}

/// A program with its proved image.
#[derive(Debug)]
pub struct VerifiedProgram {
    /// What the kernel part exported in the first boot.
    pub export: Export,
    /// The image.
    pub sections: Sections,
    /// What was proved.
    pub proof: Proof,
}

impl<'a> Verifier<'a> {
    /// Restores two snapshots of the target.
    pub fn start(target: &'a Target) -> Result<Self, BuildError> {
        let [first, second] = both(|layout| Boot::restore(target, layout))?;
        Ok(Self {
            target,
            boots: [first, second],
        })
    }

    /// The target.
    pub fn target(&self) -> &'a Target {
        self.target
    }

    /// Has an object verified, finds its images and proves them. `stage` is told what is under way.
    ///
    /// After [`BuildError::Machine`], the verifier is of no more use: start another.
    pub fn verify(
        &mut self,
        object: &Object,
        time_limit: Duration,
        stage: &mut dyn FnMut(Stage),
    ) -> Result<Verified, BuildError> {
        stage(Stage::Verify);
        let modules = self.module_files(object)?;
        for boot in &mut self.boots {
            boot.write_files(&modules)?;
        }
        let [first, second] = &mut self.boots;
        let (loaded, again) = thread::scope(|scope| {
            let again =
                thread::Builder::new().spawn_scoped(scope, || second.load(object, time_limit));
            let loaded = first.load(object, time_limit);
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
        same_object(&loaded, &again)?;
        let programs = self.images(&loaded, &again, stage)?;
        Ok(Verified {
            name: object.name.clone(),
            object_sha256: object.sha256(),
            inputs: object.inputs.clone(),
            versions: self.boots[0].versions.clone(),
            loaded,
            programs,
        })
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

    /// The proved images of all programs, or what is wrong with all that have none.
    fn images(
        &self,
        loaded: &Loaded,
        again: &Loaded,
        stage: &mut dyn FnMut(Stage),
    ) -> Result<Vec<VerifiedProgram>, BuildError> {
        stage(Stage::Discover);
        let pairs = loaded.programs.iter().zip(&again.programs);
        let discovered = all_programs(pairs.map(|(program, again)| {
            let exports = parse(program.export.as_deref())
                .and_then(|first| Ok([first, parse(again.export.as_deref())?]));
            let discovered = exports.and_then(|exports| {
                let [first, second] = self.captures(&exports);
                let sections = discover(first, second)?.to_sections()?;
                Ok((exports, sections))
            });
            (program.function.as_str(), discovered)
        }))?;

        stage(Stage::Prove);
        let names = loaded
            .programs
            .iter()
            .map(|program| program.function.as_str());
        all_programs(names.zip(discovered).map(|(name, (exports, sections))| {
            let [first, second] = self.captures(&exports);
            let proof = prove(&sections, first).and_then(|_| prove(&sections, second));
            let proved = proof.map_err(Problem::from).map(|proof| {
                let [export, _] = exports;
                VerifiedProgram {
                    export,
                    sections,
                    proof,
                }
            });
            (name, proved)
        }))
    }

    fn captures<'b>(&'b self, exports: &'b [Export; 2]) -> [Capture<'b>; 2] {
        [0, 1].map(|boot| Capture {
            export: &exports[boot],
            symbols: &self.boots[boot].symbols,
        })
    }
}

impl Boot {
    fn restore(target: &Target, layout: usize) -> Result<Self, BuildError> {
        let mut boot = Self {
            machine: target.restore(layout)?,
            symbols: KernelSymbols::parse(target.symbols(layout)?)?,
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

    fn load(&mut self, object: &Object, time_limit: Duration) -> Result<LoadReply, BuildError> {
        let request = Request::Load(LoadRequest {
            object: object.elf.clone(),
            name: object.name.clone(),
            inputs: object.inputs.clone(),
            export: true,
            time_limit: u32::try_from(time_limit.as_secs()).unwrap_or(u32::MAX),
        });
        let reply = match self.request(&request, time_limit + ANSWER_MARGIN)? {
            Reply::Load(reply) => reply,
            other => return Err(unexpected("a verdict", &other)),
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

/// The results of all programs, or the problems of all that have some.
fn all_programs<'a, T>(
    programs: impl Iterator<Item = (&'a str, Result<T, Problem>)>,
) -> Result<Vec<T>, BuildError> {
    let mut done = Vec::new();
    let mut problems = Vec::new();
    for (program, result) in programs {
        match result {
            Ok(result) => done.push(result),
            Err(problem) => problems.push(ProgramProblem {
                program: program.into(),
                problem,
            }),
        }
    }
    if problems.is_empty() {
        Ok(done)
    } else {
        Err(BuildError::Programs(problems))
    }
}

fn parse(export: Option<&[u8]>) -> Result<Export, Problem> {
    Ok(Export::parse(export.ok_or(Problem::NoExport)?)?)
}

/// Everything but ids, addresses and times must be the same.
fn same_object(first: &Loaded, second: &Loaded) -> Result<(), Disagreement> {
    let names = |loaded: &Loaded| -> Vec<_> {
        let programs = loaded.programs.iter();
        programs
            .map(|program| (program.function.clone(), program.prog_flags))
            .collect()
    };
    Disagreement::unless_equal("the programs", &names(first), &names(second))?;
    let statistics = |loaded: &Loaded| -> Vec<_> {
        let programs = loaded.programs.iter();
        programs
            .map(|program| {
                (
                    program.statistics.total_insns,
                    program.statistics.peak_states,
                )
            })
            .collect()
    };
    Disagreement::unless_equal(
        "the verifier's statistics",
        &statistics(first),
        &statistics(second),
    )?;
    Disagreement::unless_equal("the number of maps", &first.maps.len(), &second.maps.len())?;
    for (map, again) in first.maps.iter().zip(&second.maps) {
        let mut again = again.clone();
        again.id = map.id;
        Disagreement::unless_equal(format!("the map `{}`", map.full_name), map, &again)?;
    }
    Disagreement::unless_equal("the static entries of maps", &first.slots, &second.slots)?;
    Disagreement::unless_equal("the object's BTF", &first.btf, &second.btf)
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
    preverify_vm::VmError::Answer { expected, found }.into()
}
