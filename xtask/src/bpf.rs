//! Compiles BPF programs written in C.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use preverify_pipeline::Object;

use crate::arch::Arch;
use crate::paths::{target_dir, workspace};

const CLANG: &str = "clang-19";
const STRIP: &str = "llvm-strip-19";

/// A BPF program was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A program could not be started.
    #[error("cannot start `{program}` ({cause}): `cargo xtask setup` installs it")]
    Start { program: String, cause: io::Error },
    /// The compiler refused the source.
    #[error("{} does not compile:\n{messages}", source_file.display())]
    Refused {
        source_file: PathBuf,
        messages: String,
    },
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// How to compile.
pub struct Compiler {
    /// The architecture of the kernels that it is for.
    pub arch: Arch,
    /// The folder that objects name their sources relative to, so that they are the same wherever
    /// it lies.
    pub root: PathBuf,
    /// Folders with headers, searched before the system's.
    pub includes: Vec<PathBuf>,
    /// Flags for every source.
    pub flags: Vec<&'static str>,
}

impl Compiler {
    /// Compiles one source into an object with BTF and without other debugging information.
    pub fn compile(
        &self,
        source: &Path,
        flags: &[&str],
        object: &Path,
    ) -> Result<(), CompileError> {
        // Interrupted, we leave no object that looks like a finished one.
        let partial = object.with_extension("partial");
        for command in [
            &mut self.clang(source, flags, &partial),
            &mut strip(&partial),
        ] {
            let output = output(command)?;
            if !output.status.success() {
                let messages = String::from_utf8_lossy(&output.stderr).trim_end().into();
                return Err(CompileError::Refused {
                    source_file: source.into(),
                    messages,
                });
            }
        }
        fs::rename(&partial, object).map_err(at(object))
    }

    fn clang(&self, source: &Path, flags: &[&str], object: &Path) -> Command {
        let mut prefix_map = OsString::from("-ffile-prefix-map=");
        prefix_map.push(&self.root);
        prefix_map.push("/=");
        let mut clang = Command::new(CLANG);
        clang
            .args(["-g", "-O2", "--target=bpf", "-mcpu=v3", "-mlittle-endian"])
            .arg(self.arch.define())
            .arg(prefix_map)
            .args(&self.flags)
            .args(flags);
        for include in &self.includes {
            clang.arg("-I").arg(include);
        }
        // After all others.
        for include in self.arch.system_includes() {
            clang.args(["-idirafter", include]);
        }
        clang.arg("-c").arg(source).arg("-o").arg(object);
        clang
    }
}

/// What the compiler calls itself, version included.
pub fn compiler_version() -> Result<String, CompileError> {
    let output = output(Command::new(CLANG).arg("--version"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compiles the programs of `examples/`, and says where the objects are.
pub fn build_examples(arch: Arch) -> Result<(), CompileError> {
    for object in examples(arch)? {
        println!("{}", object.display());
    }
    Ok(())
}

/// Compiles the programs of `examples/`; returns the objects.
pub fn examples(arch: Arch) -> Result<Vec<PathBuf>, CompileError> {
    compile_all(&own_compiler(arch), "examples", &objects(arch))
}

/// Compiles the programs of `examples/`; returns the object of one of them, `NAME.bpf.c`.
pub fn example(arch: Arch, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let file = format!("{name}.bpf.o");
    examples(arch)?
        .into_iter()
        .find(|object| object.ends_with(&file))
        .ok_or_else(|| format!("examples/ has no {name}.bpf.c").into())
}

/// Compiles the programs of tests; returns the folder with the objects.
pub fn test_programs(arch: Arch) -> Result<PathBuf, CompileError> {
    compile_all(&own_compiler(arch), "tests/programs", &objects(arch))?;
    Ok(objects(arch))
}

/// Compiles the programs that are too complex for stock kernels. One is of the kernel's own tests.
pub fn complex_programs(arch: Arch, linux_source: &Path) -> Result<(), CompileError> {
    let selftests = linux_source.join("tools/testing/selftests/bpf");
    let mut compiler = own_compiler(arch);
    compiler.includes = vec![
        selftests.join("progs"),
        selftests,
        linux_source.join("tools/include/uapi"),
    ];
    let folder = "tests/programs/complex";
    compile_all(&compiler, folder, &objects(arch).join("complex"))?;
    Ok(())
}

/// A small object of which there is another for each number.
pub fn distinct(number: usize) -> Result<Object, Box<dyn Error>> {
    let folder = objects(Arch::X86_64).join("distinct");
    fs::create_dir_all(&folder)?;
    let object = folder.join(format!("distinct{number}.bpf.o"));
    let source = workspace().join("bench/programs/distinct.bpf.c");
    let number = format!("-DNUMBER={number}");
    own_compiler(Arch::X86_64).compile(&source, &[&number], &object)?;
    Ok(Object::read(&object)?)
}

/// How our own programs are compiled.
pub fn own_compiler(arch: Arch) -> Compiler {
    Compiler {
        arch,
        root: workspace().to_owned(),
        includes: Vec::new(),
        flags: vec!["-Wall", "-Wextra", "-Werror"],
    }
}

/// Where the objects of our own programs go.
pub fn objects(arch: Arch) -> PathBuf {
    let objects = target_dir().join("bpf");
    match arch {
        Arch::X86_64 => objects,
        other => objects.join(other.to_string()),
    }
}

fn compile_all(
    compiler: &Compiler,
    folder: &str,
    objects: &Path,
) -> Result<Vec<PathBuf>, CompileError> {
    fs::create_dir_all(objects).map_err(at(objects))?;
    sources(&workspace().join(folder))?
        .iter()
        .map(|source| {
            let name = source.file_name().unwrap_or(source.as_os_str());
            let object = objects.join(name).with_extension("o");
            compiler.compile(source, &[], &object)?;
            Ok(object)
        })
        .collect()
}

/// The C files of a folder, by name.
pub fn sources(folder: &Path) -> Result<Vec<PathBuf>, CompileError> {
    let mut sources = fs::read_dir(folder)
        .map_err(at(folder))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(at(folder))?;
    sources.retain(|path| path.extension() == Some(OsStr::new("c")));
    sources.sort();
    Ok(sources)
}

/// Removes debugging information, and keeps BTF.
fn strip(object: &Path) -> Command {
    let mut strip = Command::new(STRIP);
    strip.arg("--strip-debug").arg(object);
    strip
}

fn output(command: &mut Command) -> Result<Output, CompileError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .map_err(|cause| CompileError::Start { program, cause })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CompileError {
    let path = path.to_owned();
    move |cause| CompileError::File { path, cause }
}
