//! Objects compiled from the kernel's BPF selftests, with the headers of the kernel that they are
//! tested on.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use preverify_target::debian::{self, Apt, Deb};

use super::{
    CorpusError, CorpusObject, Source, at, create_folder, debs, expectations, failures, hex_digest,
    object_path, read, remove_folder, unpacked, write,
};
use crate::bpf::{self, CompileError, Compiler};
use crate::run::{RunError, run_command};

const SOURCE_PACKAGE: &str = "linux-source-6.12";
/// The kernel whose types the selftests are compiled for: its package of headers has its BTF.
const HEADERS_PACKAGE: &str = "linux-headers-6.12-cloud-amd64";

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
pub(super) fn compile(apt: &Apt, corpus: &Path) -> Result<Selftests, CorpusError> {
    let [source, headers] = download(apt, corpus)?;
    let linux = Linux::prepare(corpus, &source, &headers)?;
    forget_other_recipes(corpus, &[&source, &headers])?;

    let sources = bpf::sources(&linux.selftests().join("progs"))?;
    let compiler = linux.compiler();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some(file) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compile_one(corpus, &compiler, file, &source);
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

/// Where the parts of the kernel's source are that selftests need.
pub(super) fn linux_source(apt: &Apt, corpus: &Path) -> Result<PathBuf, CorpusError> {
    let [source, headers] = download(apt, corpus)?;
    Ok(Linux::at(corpus, &source, &headers).source)
}

fn download(apt: &Apt, corpus: &Path) -> Result<[Deb; 2], CorpusError> {
    let headers = apt.meant_by(HEADERS_PACKAGE)?;
    let debs = apt.download(&[SOURCE_PACKAGE, &headers], &debs(corpus))?;
    Ok(<[Deb; 2]>::try_from(debs).expect("one file for each package"))
}

enum Compiled {
    Object(CorpusObject),
    Refused(String),
}

fn compile_one(
    corpus: &Path,
    compiler: &Compiler,
    file: &Path,
    package: &Deb,
) -> Result<Compiled, CorpusError> {
    let name = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let id = format!("selftests/{name}");
    let path = object_path(&id);
    let object = corpus.join(&path);
    if !object.exists() {
        let own = OWN_FLAGS.iter().filter(|(of, _)| *of == name);
        let flags: Vec<_> = own.map(|(_, flag)| *flag).collect();
        match compiler.compile(file, &flags, &object) {
            Ok(()) => {}
            Err(CompileError::Refused { messages, .. }) => {
                write(
                    &failures(corpus).join(format!("{name}.log")),
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
fn forget_other_recipes(corpus: &Path, packages: &[&Deb]) -> Result<(), CorpusError> {
    let folder = corpus.join("objects/selftests");
    let stamp = folder.join("recipe");
    let mut recipe = bpf::compiler_version()?;
    for package in packages {
        recipe += &format!("{}\n", package.stem);
    }
    recipe += &format!("{FLAGS:?}\n{OWN_FLAGS:?}\n");
    if fs::read(&stamp).is_ok_and(|found| found == recipe.as_bytes()) {
        return Ok(());
    }
    remove_folder(&folder)?;
    remove_folder(&failures(corpus))?;
    write(&stamp, recipe.as_bytes())
}

/// The parts of the kernel's source that selftests need, and what is generated from them.
struct Linux {
    source: PathBuf,
    generated: PathBuf,
}

impl Linux {
    fn at(corpus: &Path, source: &Deb, headers: &Deb) -> Self {
        let folder = corpus.join("linux");
        Self {
            source: folder.join(&source.stem),
            generated: folder.join(format!("{}.generated", headers.stem)),
        }
    }

    fn prepare(corpus: &Path, source: &Deb, headers: &Deb) -> Result<Self, CorpusError> {
        let linux = Self::at(corpus, source, headers);
        linux.unpack_source(source)?;
        linux.make_bpftool()?;
        let headers_contents = debian::unpack(headers, &unpacked(corpus))?;
        linux.write_vmlinux_h(headers, &headers_contents)?;
        Ok(linux)
    }

    /// Unpacks the source's tar file, which is inside the package.
    fn unpack_source(&self, deb: &Deb) -> Result<(), CorpusError> {
        if self.source.exists() {
            return Ok(());
        }
        println!("unpacking {}", deb.stem);
        let partial = self.source.with_extension("partial");
        remove_folder(&partial)?;
        create_folder(&partial)?;
        let member = format!("./usr/src/{SOURCE_PACKAGE}.tar.xz");
        let mut package = start(
            Command::new("dpkg-deb")
                .arg("--fsys-tarfile")
                .arg(&deb.path)
                .stdout(Stdio::piped()),
        )?;
        let mut member = start(
            Command::new("tar")
                .args(["--extract", "--to-stdout", &member])
                .stdin(piped(&mut package))
                .stdout(Stdio::piped()),
        )?;
        let mut parts = start(
            Command::new("tar")
                .args(["--extract", "--xz", "--strip-components=1", "--directory"])
                .arg(&partial)
                .args(SOURCE_PARTS.map(|part| format!("{SOURCE_PACKAGE}/{part}")))
                .stdin(piped(&mut member)),
        )?;
        finish("tar", &mut parts)?;
        finish("tar", &mut member)?;
        finish("dpkg-deb", &mut package)?;
        fs::rename(&partial, &self.source).map_err(at(&self.source))
    }

    /// Builds the small bpftool that the kernel's build uses, and libbpf's headers with it.
    fn make_bpftool(&self) -> Result<(), CorpusError> {
        if self.bpftool().exists() {
            return Ok(());
        }
        let output = self.generated.join("bpftool");
        create_folder(&output)?;
        run_command(
            Command::new("make")
                .args(["--silent", "--jobs=2", "--directory"])
                .arg(self.source.join("tools/bpf/bpftool"))
                .arg(format!("OUTPUT={}/", output.display()))
                .arg("bootstrap")
                .stdout(Stdio::null()),
        )?;
        Ok(())
    }

    /// Writes the kernel's types as C. Debian's package of headers has a `vmlinux` with just BTF.
    fn write_vmlinux_h(&self, headers: &Deb, contents: &Path) -> Result<(), CorpusError> {
        let header = self.generated.join("vmlinux.h");
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
        let mut bpftool = Command::new(self.bpftool());
        bpftool
            .args(["btf", "dump", "file"])
            .arg(&btf)
            .args(["format", "c"]);
        let output = bpftool.stderr(Stdio::inherit()).output();
        let command = "bpftool btf dump".to_owned();
        let output = output.map_err(|cause| RunError::Start {
            command: command.clone(),
            cause,
        })?;
        if !output.status.success() {
            return Err(RunError::Failed {
                command,
                status: output.status,
            }
            .into());
        }
        write(&header, &output.stdout)
    }

    fn compiler(&self) -> Compiler {
        Compiler {
            root: self.source.clone(),
            includes: vec![
                self.generated.clone(),
                self.generated.join("bpftool/bootstrap/libbpf/include"),
                self.selftests(),
                self.source.join("tools/include/uapi"),
            ],
            flags: FLAGS.to_vec(),
        }
    }

    fn selftests(&self) -> PathBuf {
        self.source.join("tools/testing/selftests/bpf")
    }

    fn bpftool(&self) -> PathBuf {
        self.generated.join("bpftool/bootstrap/bpftool")
    }
}

fn start(command: &mut Command) -> Result<Child, CorpusError> {
    let name = command.get_program().to_string_lossy().into_owned();
    Ok(command.spawn().map_err(|cause| RunError::Start {
        command: name,
        cause,
    })?)
}

fn piped(child: &mut Child) -> Stdio {
    child.stdout.take().expect("was started with a pipe").into()
}

fn finish(name: &str, child: &mut Child) -> Result<(), CorpusError> {
    let command = name.to_owned();
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RunError::Failed { command, status }.into()),
        Err(cause) => Err(RunError::Start { command, cause }.into()),
    }
}
