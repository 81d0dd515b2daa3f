//! Objects compiled from the kernel's BPF selftests, with the headers of the kernel that they are
//! tested on.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use preverify_target::debian::{self, Apt, Deb};

use super::{
    Corpus, CorpusError, CorpusObject, Extent, Source, create_folder, expectations, hex_digest,
    object_path, read, write,
};
use crate::arch::Arch;
use crate::bpf::{self, CompileError, Compiler};
use crate::linux;
use crate::run::{output, remove_folder, run_command};

/// What the selftests and bpftool need of the kernel's source.
const SOURCE_PARTS: [&str; 5] = ["arch/x86", "include", "kernel/bpf", "scripts", "tools"];

const FLAGS: [&str; 2] = [
    "-DENABLE_ATOMICS_TESTS",
    "-Wno-compare-distinct-pointer-types",
];

/// Flags of single selftests, as the selftests' makefile has them.
const OWN_FLAGS: [(&str, &str); 13] = [
    ("bind4_prog", "-fno-strict-aliasing"),
    ("bind6_prog", "-fno-strict-aliasing"),
    ("dynptr_fail", "-fno-strict-aliasing"),
    ("linked_list_fail", "-fno-strict-aliasing"),
    ("map_kptr_fail", "-fno-strict-aliasing"),
    ("syscall", "-fno-strict-aliasing"),
    ("test_l4lb_noinline", "-fno-inline"),
    ("test_pkt_md_access", "-fno-strict-aliasing"),
    ("test_sk_lookup", "-fno-strict-aliasing"),
    ("test_xdp_noinline", "-fno-inline"),
    ("timer_crash", "-fno-strict-aliasing"),
    ("verifier_nocsr", "-fno-strict-aliasing"),
    ("test_global_func9", "-fno-strict-aliasing"),
];

/// What came of compiling the selftests.
pub(super) struct Selftests {
    /// The objects, by name.
    pub(super) objects: Vec<CorpusObject>,
    /// The names of those that the compiler refused.
    pub(super) refused: Vec<String>,
}

/// Compiles those selftests that are not compiled yet.
pub(super) fn compile(
    corpus: &Corpus,
    packages: &Packages,
    extent: Extent,
) -> Result<Selftests, CorpusError> {
    let linux = Linux::prepare(corpus, packages)?;
    forget_other_recipes(corpus, packages)?;

    let mut sources = bpf::sources(&linux.selftests().join("progs"))?;
    sources.retain(|file| extent.has(&id_of(file)));
    let compiler = linux.compiler(corpus.arch);
    let source = &packages.source;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some(file) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compile_one(corpus, &compiler, file, source);
            let mut results = results
                .lock()
                .expect("no thread panics while it holds the lock");
            results.push(result);
            if results.len().is_multiple_of(100) {
                println!("{} of {} selftests compiled", results.len(), sources.len());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });

    let mut selftests = Selftests {
        objects: Vec::new(),
        refused: Vec::new(),
    };
    for result in results.into_inner().expect("no thread panicked") {
        match result? {
            Compiled::Object(object) => selftests.objects.push(object),
            Compiled::Refused(name) => selftests.refused.push(name),
        }
    }
    selftests.refused.sort();
    Ok(selftests)
}

/// The parts of a kernel's source that selftests need, unpacked.
pub(super) fn linux_source(corpus: &Corpus, source: &Deb) -> Result<PathBuf, CorpusError> {
    let unpacked = source_folder(corpus, source);
    linux::unpack(source, &SOURCE_PARTS, &unpacked)?;
    Ok(unpacked)
}

/// Downloads the kernel's source.
pub(super) fn source(apt: &Apt, corpus: &Corpus) -> Result<Deb, CorpusError> {
    let debs = apt.download(&[linux::PACKAGE], &corpus.debs())?;
    Ok(debs.into_iter().next().expect("one file for each package"))
}

/// Downloads the headers of the kernel whose types the selftests are compiled for: the package has its BTF.
pub(super) fn headers(apt: &Apt, corpus: &Corpus) -> Result<Option<Deb>, CorpusError> {
    let Some(meta) = corpus.arch.headers_with_btf() else {
        return Ok(None);
    };
    let name = apt.meant_by(&apt.package(meta))?;
    let debs = apt.download(&[&name], &corpus.debs())?;
    Ok(debs.into_iter().next())
}

/// What selftests are made from.
pub(super) struct Packages {
    /// [`source()`].
    pub(super) source: Deb,
    /// [`headers()`].
    pub(super) headers: Option<Deb>,
}

impl Packages {
    fn stems(&self) -> impl Iterator<Item = &str> {
        let debs = [Some(&self.source), self.headers.as_ref()];
        debs.into_iter().flatten().map(|deb| deb.stem.as_str())
    }
}

enum Compiled {
    Object(CorpusObject),
    Refused(String),
}

fn name_of(source: &Path) -> String {
    let stem = source.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn id_of(source: &Path) -> String {
    format!("selftests/{}", name_of(source))
}

fn compile_one(
    corpus: &Corpus,
    compiler: &Compiler,
    file: &Path,
    package: &Deb,
) -> Result<Compiled, CorpusError> {
    let name = name_of(file);
    let id = id_of(file);
    let path = object_path(&id);
    let object = corpus.own.join(&path);
    if !object.exists() {
        let own = OWN_FLAGS.iter().filter(|(of, _)| *of == name);
        let flags: Vec<_> = own.map(|(_, flag)| *flag).collect();
        match compiler.compile(file, &flags, &object) {
            Ok(()) => {}
            Err(CompileError::Refused { messages, .. }) => {
                write(
                    &corpus.failures().join(format!("{name}.log")),
                    messages.as_bytes(),
                )?;
                return Ok(Compiled::Refused(name));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let bytes = read(&object)?;
    Ok(Compiled::Object(CorpusObject {
        id,
        source: Source::Selftests,
        package: package.stem.clone(),
        path,
        sha256: hex_digest(&bytes),
        expectations: expectations::of_object(&bytes),
    }))
}

/// Removes the objects if they were made from other packages, by another compiler, or with other
/// flags.
fn forget_other_recipes(corpus: &Corpus, packages: &Packages) -> Result<(), CorpusError> {
    let folder = corpus.own.join("objects/selftests");
    let stamp = folder.join("recipe");
    let mut recipe = bpf::compiler_version()?;
    for stem in packages.stems() {
        recipe += &format!("{stem}\n");
    }
    recipe += &format!("{FLAGS:?}\n{OWN_FLAGS:?}\n");
    if fs::read(&stamp).is_ok_and(|found| found == recipe.as_bytes()) {
        return Ok(());
    }
    remove_folder(&folder)?;
    remove_folder(&corpus.failures())?;
    write(&stamp, recipe.as_bytes())
}

/// The parts of the kernel's source that selftests need, and what is generated from them.
struct Linux {
    source: PathBuf,
    /// The kernel's build's own bpftool, and libbpf's headers.
    bpftool: PathBuf,
    /// A folder with the kernel's types as C.
    types: Option<PathBuf>,
}

impl Linux {
    fn at(corpus: &Corpus, packages: &Packages) -> Self {
        let folder = corpus.shared.join("linux");
        let generated = |deb: &Deb| folder.join(format!("{}.generated", deb.stem));
        Self {
            source: source_folder(corpus, &packages.source),
            bpftool: generated(&packages.source).join("bpftool"),
            types: packages.headers.as_ref().map(generated),
        }
    }

    fn prepare(corpus: &Corpus, packages: &Packages) -> Result<Self, CorpusError> {
        let linux = Self::at(corpus, packages);
        linux::unpack(&packages.source, &SOURCE_PARTS, &linux.source)?;
        linux.make_bpftool()?;
        if let (Some(headers), Some(types)) = (&packages.headers, &linux.types) {
            let contents = debian::unpack(headers, &corpus.unpacked())?;
            linux.write_vmlinux_h(headers, &contents, types)?;
        }
        Ok(linux)
    }

    /// Builds the small bpftool that the kernel's build uses, and libbpf's headers with it.
    fn make_bpftool(&self) -> Result<(), CorpusError> {
        if self.program().exists() {
            return Ok(());
        }
        create_folder(&self.bpftool)?;
        run_command(
            Command::new("make")
                .args(["--silent", "--jobs=2", "--directory"])
                .arg(self.source.join("tools/bpf/bpftool"))
                .arg(format!("OUTPUT={}/", self.bpftool.display()))
                .arg("bootstrap")
                .stdout(Stdio::null()),
        )?;
        Ok(())
    }

    /// Writes the kernel's types as C. Debian's package of headers has a `vmlinux` with just BTF.
    fn write_vmlinux_h(
        &self,
        headers: &Deb,
        contents: &Path,
        types: &Path,
    ) -> Result<(), CorpusError> {
        let header = types.join("vmlinux.h");
        if header.exists() {
            return Ok(());
        }
        let btf = contents.join("usr/src").join(&headers.name).join("vmlinux");
        if !btf.exists() {
            return Err(CorpusError::Layout {
                package: headers.name.clone(),
                path: btf,
            });
        }
        let mut bpftool = Command::new(self.program());
        bpftool
            .args(["btf", "dump", "file"])
            .arg(&btf)
            .args(["format", "c"]);
        write(&header, output(&mut bpftool)?.as_bytes())
    }

    fn compiler(&self, arch: Arch) -> Compiler {
        let mut includes: Vec<_> = self.types.iter().cloned().collect();
        includes.extend([
            self.bpftool.join("bootstrap/libbpf/include"),
            self.selftests(),
            self.source.join("tools/include/uapi"),
        ]);
        Compiler {
            arch,
            root: self.source.clone(),
            includes,
            flags: FLAGS.to_vec(),
        }
    }

    fn selftests(&self) -> PathBuf {
        self.source.join("tools/testing/selftests/bpf")
    }

    fn program(&self) -> PathBuf {
        self.bpftool.join("bootstrap/bpftool")
    }
}

fn source_folder(corpus: &Corpus, source: &Deb) -> PathBuf {
    corpus.shared.join("linux").join(&source.stem)
}
