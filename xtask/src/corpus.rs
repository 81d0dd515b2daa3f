//! The corpus: real BPF objects to test on, made from Debian packages alone, for each architecture.
//!
//! Everything lives in the cache, under `corpus/`:
//!
//! ```text
//! debs/                 downloaded packages
//! unpacked/             their contents
//! linux/                the parts of the kernel's source that its BPF selftests need
//! ARCH/objects/         the objects
//! ARCH/failures/        what the compiler said of selftests that it refused
//! ARCH/objects.json     the objects' origins, digests, and what their authors expect of them
//! ARCH/sample.json      the same of the sample alone
//! ```

mod compare;
mod debian;
mod expectations;
mod limits;
mod linked;
mod report;
mod run;
mod selftests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_target::debian::{Apt, Deb, DebianError};
use preverify_target::{TargetError, default_cache};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arch::Arch;
use crate::bpf::CompileError;
use crate::run::RunError;

pub use expectations::Expectation;
pub use limits::{Args as LimitsArgs, limits};
pub use run::{Args as RunArgs, run};

/// The corpus could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A package could not be had.
    #[error(transparent)]
    Package(#[from] DebianError),
    /// There is no cache, or apt has no place in it.
    #[error(transparent)]
    Cache(#[from] TargetError),
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The compiler could not be run.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    /// A file of a package is not where it was expected.
    #[error("`{package}` has no {}: its layout has changed", path.display())]
    Layout { package: String, path: PathBuf },
    /// The list of objects is not there or not readable.
    #[error("{}: {cause}: `cargo xtask corpus build{extent} --arch {arch}` makes it", path.display())]
    List {
        path: PathBuf,
        extent: Extent,
        arch: Arch,
        cause: io::Error,
    },
}

/// Where an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A Debian package has it ready to load.
    Debian,
    /// Compiled from the kernel's selftests.
    Selftests,
}

/// One BPF object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusObject {
    /// A name that no other object has: `libbpf-tools/execsnoop`, `selftests/loop1`.
    pub id: String,
    /// Where it came from.
    pub source: Source,
    /// Name, version and architecture of the Debian package with the object or its source.
    pub package: String,
    /// The object's file; in `objects.json` relative to its folder.
    pub path: PathBuf,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
    /// What the object's authors expect of single programs, if they said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expectations: Vec<Expectation>,
}

/// How much of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All objects.
    All,
    /// A few of many kinds, each of which goes the whole way.
    Sample,
}

impl Extent {
    /// The sample, if that is asked for.
    pub fn sample_if(asked: bool) -> Self {
        if asked { Self::Sample } else { Self::All }
    }

    /// Whether the object with an id is of it.
    fn has(self, id: &str) -> bool {
        self == Self::All || sample().any(|of_sample| of_sample == id)
    }
}

/// As an option of `cargo xtask corpus build`.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "",
            Self::Sample => " --sample",
        })
    }
}

/// The ids of the sample's objects.
fn sample() -> impl Iterator<Item = &'static str> {
    include_str!("corpus/sample.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Makes the corpus of an architecture, or brings it up to date.
pub fn build(arch: Arch, extent: Extent) -> Result<(), CorpusError> {
    let corpus = Corpus::at(&default_cache()?, arch);
    let mut apt = up_to_date(Arch::X86_64)?;
    // The same for all architectures, so it does not depend on the lists of any but the host's.
    let source = selftests::source(&apt, &corpus)?;
    if arch != Arch::X86_64 {
        drop(apt);
        apt = up_to_date(arch)?;
    }
    let mut found = debian::collect(&apt, &corpus, debian::packages(arch))?;
    let headers = selftests::headers(&apt, &corpus)?;
    let packages = selftests::Packages { source, headers };
    // Compiling takes minutes, and others may want packages meanwhile.
    drop(apt);
    let selftests = selftests::compile(&corpus, &packages, extent)?;
    found.extend(selftests.objects);
    found.retain(|object| extent.has(&object.id));
    found.sort_by(|a, b| a.id.cmp(&b.id));
    corpus.save(&found, extent)?;
    if extent == Extent::All {
        // Whoever has all of it has the sample, too.
        found.retain(|object| Extent::Sample.has(&object.id));
        corpus.save(&found, Extent::Sample)?;
    }

    let objects = corpus.objects(extent)?;
    let count = |source| {
        objects
            .iter()
            .filter(|object| object.source == source)
            .count()
    };
    let expectations: usize = objects.iter().map(|object| object.expectations.len()).sum();
    println!(
        "{} objects for {arch}: {} from Debian's packages, {} selftests; {expectations} programs with \
         expectations: {}",
        objects.len(),
        count(Source::Debian),
        count(Source::Selftests),
        corpus.list(extent).display()
    );
    if !selftests.refused.is_empty() {
        println!(
            "{} selftests do not compile ({}): see {}",
            selftests.refused.len(),
            selftests.refused.join(", "),
            corpus.failures().display()
        );
    }
    Ok(())
}

/// The parts of a kernel's source that the corpus was made from.
pub fn linux_source() -> Result<PathBuf, CorpusError> {
    let corpus = Corpus::at(&default_cache()?, Arch::X86_64);
    let source = selftests::source(&up_to_date(Arch::X86_64)?, &corpus)?;
    selftests::linux_source(&corpus, &source)
}

/// The package with the source of the kernel that the corpus was made from.
pub fn linux_package() -> Result<Deb, CorpusError> {
    let apt = Apt::open(&default_cache()?, Arch::X86_64.architecture())?;
    if !apt.has_lists()? {
        apt.update()?;
    }
    selftests::source(&apt, &Corpus::at(&default_cache()?, Arch::X86_64))
}

/// apt, with new package lists of an architecture.
fn up_to_date(arch: Arch) -> Result<Apt, CorpusError> {
    let apt = Apt::open(&default_cache()?, arch.architecture())?;
    if let Some(failure) = apt.update()? {
        println!("going on with the package lists that there are: {failure}");
    }
    Ok(apt)
}

/// Objects in one of Debian's packages, by name.
pub fn debian_objects<const N: usize>(
    arch: Arch,
    package: &'static str,
    names: [&str; N],
) -> Result<[PathBuf; N], CorpusError> {
    let corpus = Corpus::at(&default_cache()?, arch);
    let apt = Apt::open(&default_cache()?, arch.architecture())?;
    if !apt.has_lists()? {
        apt.update()?;
    }
    let objects = corpus.absolute(debian::collect(&apt, &corpus, &[package])?);
    let mut paths = names.map(PathBuf::from);
    for path in &mut paths {
        let id = format!("{package}/{}", path.display());
        *path = path_of(&objects, &id).ok_or_else(|| CorpusError::Layout {
            package: package.to_owned(),
            path: path.clone(),
        })?;
    }
    Ok(paths)
}

/// Where the object with an id lies.
pub fn path_of(objects: &[CorpusObject], id: &str) -> Option<PathBuf> {
    let found = objects.iter().find(|object| object.id == id)?;
    Some(found.path.clone())
}

/// The objects of an architecture's corpus, by id, with absolute paths.
pub fn objects(arch: Arch, extent: Extent) -> Result<Vec<CorpusObject>, CorpusError> {
    Corpus::at(&default_cache()?, arch).objects(extent)
}

/// Where the corpus of an architecture lies.
struct Corpus {
    arch: Arch,
    /// What all architectures share.
    shared: PathBuf,
    /// What is this architecture's.
    own: PathBuf,
}

impl Corpus {
    fn at(cache: &Path, arch: Arch) -> Self {
        let shared = cache.join("corpus");
        Self {
            arch,
            own: shared.join(arch.to_string()),
            shared,
        }
    }

    fn objects(&self, extent: Extent) -> Result<Vec<CorpusObject>, CorpusError> {
        let path = self.list(extent);
        let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let objects: Vec<CorpusObject> = read.map_err(|cause| CorpusError::List {
            path,
            extent,
            arch: self.arch,
            cause,
        })?;
        Ok(self.absolute(objects))
    }

    fn absolute(&self, mut objects: Vec<CorpusObject>) -> Vec<CorpusObject> {
        for object in &mut objects {
            object.path = self.own.join(&object.path);
        }
        objects
    }

    fn save(&self, objects: &[CorpusObject], extent: Extent) -> Result<(), CorpusError> {
        let mut text = serde_json::to_vec_pretty(objects).expect("has only strings as keys");
        text.push(b'\n');
        write(&self.list(extent), &text)
    }

    fn debs(&self) -> PathBuf {
        self.shared.join("debs")
    }

    fn unpacked(&self) -> PathBuf {
        self.shared.join("unpacked")
    }

    fn list(&self, extent: Extent) -> PathBuf {
        self.own.join(match extent {
            Extent::All => "objects.json",
            Extent::Sample => "sample.json",
        })
    }

    fn failures(&self) -> PathBuf {
        self.own.join("failures")
    }
}

/// Where the object of this id lies, relative to its architecture's folder.
fn object_path(id: &str) -> PathBuf {
    PathBuf::from(format!("objects/{id}.bpf.o"))
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CorpusError> {
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).map_err(at(&partial))?;
    fs::rename(&partial, path).map_err(at(path))
}

fn read(path: &Path) -> Result<Vec<u8>, CorpusError> {
    fs::read(path).map_err(at(path))
}

fn create_folder(path: &Path) -> Result<(), CorpusError> {
    fs::create_dir_all(path).map_err(at(path))
}

fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CorpusError {
    let path = path.to_owned();
    move |cause| CorpusError::File { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_where_they_were_written() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let object = CorpusObject {
            id: "selftests/loop1".into(),
            source: Source::Selftests,
            package: "linux-source-6.12_6.12.117-1_all".into(),
            path: object_path("selftests/loop1"),
            sha256: hex_digest(b"abc"),
            expectations: Vec::new(),
        };
        let corpus = Corpus::at(cache.path(), Arch::Arm64);
        corpus
            .save(std::slice::from_ref(&object), Extent::All)
            .expect("saves");
        let found = corpus.objects(Extent::All).expect("reads");
        let path = cache
            .path()
            .join("corpus/arm64/objects/selftests/loop1.bpf.o");
        assert_eq!(found, [CorpusObject { path, ..object }]);
        assert_eq!(&found[0].sha256[..8], "ba7816bf");
    }

    #[test]
    fn a_missing_corpus_says_how_to_make_it() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let corpus = Corpus::at(cache.path(), Arch::Arm64);
        for (extent, command) in [
            (Extent::All, "cargo xtask corpus build --arch arm64"),
            (
                Extent::Sample,
                "cargo xtask corpus build --sample --arch arm64",
            ),
        ] {
            let error = corpus.objects(extent).expect_err("there is none");
            assert!(error.to_string().contains(command), "{error}");
        }
    }
}
