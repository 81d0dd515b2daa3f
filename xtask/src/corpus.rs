//! The corpus: real BPF objects to test on, made from Debian packages alone.
//!
//! Everything lives in the cache, under `corpus/`:
//!
//! ```text
//! debs/            downloaded packages
//! unpacked/        their contents
//! linux/           the parts of the kernel's source that its BPF selftests need
//! objects/         the objects
//! failures/        what the compiler said of selftests that it refused
//! objects.json     the objects' origins, digests, and what their authors expect of them
//! ```

mod compare;
mod debian;
mod expectations;
mod report;
mod run;
mod selftests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_abi::kinds::Architecture;
use preverify_target::debian::{Apt, DebianError};
use preverify_target::{TargetError, default_cache};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bpf::CompileError;
use crate::run::RunError;

pub use expectations::Expectation;
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
    #[error("{}: {cause}: `cargo xtask corpus build` makes it", path.display())]
    List { path: PathBuf, cause: io::Error },
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
    /// The object's file; in `objects.json` relative to the corpus.
    pub path: PathBuf,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
    /// What the object's authors expect of single programs, if they said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expectations: Vec<Expectation>,
}

/// Makes the corpus, or brings it up to date.
pub fn build() -> Result<(), CorpusError> {
    let cache = default_cache()?;
    let corpus = folder(&cache);
    let apt = Apt::open(&cache, Architecture::X86_64)?;
    if let Some(failure) = apt.update()? {
        println!("going on with the package lists that there are: {failure}");
    }
    let mut found = debian::collect(&apt, &corpus, &debian::PACKAGES)?;
    let selftests = selftests::compile(&apt, &corpus)?;
    found.extend(selftests.objects);
    found.sort_by(|a, b| a.id.cmp(&b.id));
    save(&corpus, &found)?;

    let objects = objects(&cache)?;
    let count = |source| {
        objects
            .iter()
            .filter(|object| object.source == source)
            .count()
    };
    let expectations: usize = objects.iter().map(|object| object.expectations.len()).sum();
    println!(
        "{} objects: {} from Debian's packages, {} selftests; {expectations} programs with \
         expectations: {}",
        objects.len(),
        count(Source::Debian),
        count(Source::Selftests),
        list(&corpus).display()
    );
    if !selftests.refused.is_empty() {
        println!(
            "{} selftests do not compile ({}): see {}",
            selftests.refused.len(),
            selftests.refused.join(", "),
            failures(&corpus).display()
        );
    }
    Ok(())
}

/// The parts of a kernel's source that the corpus was made from.
pub fn linux_source() -> Result<PathBuf, CorpusError> {
    let cache = default_cache()?;
    selftests::linux_source(&Apt::open(&cache, Architecture::X86_64)?, &folder(&cache))
}

/// The objects in one of Debian's packages, with absolute paths.
pub fn debian_objects(package: &'static str) -> Result<Vec<CorpusObject>, CorpusError> {
    let cache = default_cache()?;
    let corpus = folder(&cache);
    let mut found = debian::collect(
        &Apt::open(&cache, Architecture::X86_64)?,
        &corpus,
        &[package],
    )?;
    for object in &mut found {
        object.path = corpus.join(&object.path);
    }
    Ok(found)
}

/// The objects of the corpus in a cache, by id, with absolute paths.
pub fn objects(cache: &Path) -> Result<Vec<CorpusObject>, CorpusError> {
    let corpus = folder(cache);
    let path = list(&corpus);
    let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    let mut objects: Vec<CorpusObject> = read.map_err(|cause| CorpusError::List { path, cause })?;
    for object in &mut objects {
        object.path = corpus.join(&object.path);
    }
    Ok(objects)
}

fn save(corpus: &Path, objects: &[CorpusObject]) -> Result<(), CorpusError> {
    let mut text = serde_json::to_vec_pretty(objects).expect("has only strings as keys");
    text.push(b'\n');
    write(&list(corpus), &text)
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("corpus")
}

fn list(corpus: &Path) -> PathBuf {
    corpus.join("objects.json")
}

fn debs(corpus: &Path) -> PathBuf {
    corpus.join("debs")
}

fn unpacked(corpus: &Path) -> PathBuf {
    corpus.join("unpacked")
}

fn failures(corpus: &Path) -> PathBuf {
    corpus.join("failures")
}

/// Where the object of this id lies, relative to the corpus.
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

fn remove_folder(path: &Path) -> Result<(), CorpusError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(at(path)(cause)),
        _ => Ok(()),
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
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
        save(&folder(cache.path()), std::slice::from_ref(&object)).expect("saves");
        let found = objects(cache.path()).expect("reads");
        let path = cache.path().join("corpus/objects/selftests/loop1.bpf.o");
        assert_eq!(found, [CorpusObject { path, ..object }]);
        assert_eq!(&found[0].sha256[..8], "ba7816bf");
    }

    #[test]
    fn a_missing_corpus_says_how_to_make_it() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let error = objects(cache.path())
            .expect_err("there is none")
            .to_string();
        assert!(error.contains("cargo xtask corpus build"), "{error}");
    }
}
