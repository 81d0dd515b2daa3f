//! Building a kernel from its source tree.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::config;
use crate::arch::Arch;
use crate::run::{at, output, remove_folder, run_command};

/// How often a build says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// What a build would else take from this machine and moment.
const REPRODUCIBLE: [(&str, &str); 5] = [
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_USER", "preverify"),
    ("KBUILD_BUILD_HOST", "preverify"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("LC_ALL", "C"),
];

/// The versions of what compiles.
pub fn tool_versions(arch: Arch) -> Result<String, Box<dyn Error>> {
    let compiler = output(Command::new(format!("{}gcc", arch.tools())).arg("--version"))?;
    let pahole = output(Command::new("pahole").arg("--version"))?;
    Ok(format!("{compiler}{pahole}"))
}

/// Builds a kernel, and puts what comes out into a folder, whole or not at all.
pub fn build(
    tree: &Path,
    objects: &Path,
    fragments: &[PathBuf],
    arch: Arch,
    folder: &Path,
) -> Result<(), Box<dyn Error>> {
    let build = Build {
        tree,
        objects,
        arch,
    };
    build.configure(fragments)?;
    let modules = fs::read_to_string(objects.join(".config"))?.contains("CONFIG_MODULES=y\n");
    let mut what = vec![image_target(arch)];
    if modules {
        what.push("modules");
    }
    build.compile(&what, folder)?;

    let partial = folder.with_extension("partial");
    remove_folder(&partial)?;
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    build.keep(&partial)?;
    if modules {
        build.keep_modules(&partial)?;
    }
    fs::rename(&partial, folder).map_err(at(folder))?;
    Ok(())
}

fn image_target(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "bzImage",
        Arch::Arm64 => "Image.gz",
        Arch::Arm => "zImage",
    }
}

struct Build<'a> {
    tree: &'a Path,
    objects: &'a Path,
    arch: Arch,
}

impl Build<'_> {
    fn make(&self) -> Command {
        let mut objects = std::ffi::OsString::from("O=");
        objects.push(self.objects);
        let mut command = Command::new("make");
        command
            .arg("--directory")
            .arg(self.tree)
            .arg(objects)
            .arg(format!("ARCH={}", self.arch.in_kernel_builds()))
            .arg(format!("CROSS_COMPILE={}", self.arch.tools()))
            .env_remove("MAKEFLAGS")
            .envs(REPRODUCIBLE);
        command
    }

    fn configure(&self, fragments: &[PathBuf]) -> Result<(), Box<dyn Error>> {
        let wanted = config::merged(fragments)?;
        fs::create_dir_all(self.objects).map_err(at(self.objects))?;
        let file = self.objects.join("wanted.config");
        fs::write(&file, &wanted).map_err(at(&file))?;
        let mut all = std::ffi::OsString::from("KCONFIG_ALLCONFIG=");
        all.push(&file);
        output(self.make().arg("--silent").arg(all).arg("allnoconfig"))?;
        config::check(&wanted, &self.objects.join(".config"))
    }

    /// The log goes beside what will be the result; while it grows, a line now and then says so.
    fn compile(&self, what: &[&str], folder: &Path) -> Result<(), Box<dyn Error>> {
        let log = folder.with_extension("log");
        println!(
            "building the kernel in {} (several minutes; {})",
            folder.display(),
            log.display()
        );
        let mut file = File::create(&log).map_err(at(&log))?;
        let errors = file.try_clone()?;
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self
            .make()
            .arg(format!("--jobs={jobs}"))
            .args(what)
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let start = Instant::now();
        let mut said = start;
        let lines = make.stdout.take().expect("was started with a pipe");
        for (number, line) in BufReader::new(lines).lines().enumerate() {
            let line = line?;
            writeln!(file, "{line}")?;
            if said.elapsed() >= HEARTBEAT {
                said = Instant::now();
                let seconds = start.elapsed().as_secs();
                println!("[{seconds:>5} s, step {number}] {}", line.trim());
            }
        }
        match make.wait()?.success() {
            true => Ok(()),
            false => Err(format!("the kernel does not build: see {}", log.display()).into()),
        }
    }

    fn keep(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let arch = match self.arch {
            Arch::X86_64 => "x86",
            Arch::Arm64 => "arm64",
            Arch::Arm => "arm",
        };
        let image = format!("arch/{arch}/boot/{}", image_target(self.arch));
        let copies = [(image.as_str(), "image"), (".config", ".config")];
        for (from, to) in copies {
            let from = self.objects.join(from);
            fs::copy(&from, folder.join(to)).map_err(at(&from))?;
        }
        let vmlinux = self.objects.join("vmlinux");
        output(
            Command::new("pahole")
                .args(["-J", "--btf_gen_floats", "--lang_exclude=rust"])
                .arg("--btf_encode_detached")
                .arg(folder.join("btf"))
                .arg(&vmlinux),
        )?;
        output(
            Command::new(format!("{}objcopy", self.arch.tools()))
                .arg("--strip-debug")
                .arg(vmlinux)
                .arg(folder.join("vmlinux")),
        )?;
        Ok(())
    }

    /// The modules as they are installed, and what further ones are built against.
    fn keep_modules(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let installed = folder.join("installed");
        let mut to = std::ffi::OsString::from("INSTALL_MOD_PATH=");
        to.push(&installed);
        output(
            self.make()
                .args(["--silent", "modules_install", "DEPMOD=true"])
                .arg(to),
        )?;
        let release = fs::read_to_string(self.objects.join("include/config/kernel.release"))?;
        let from = installed.join("lib/modules").join(release.trim());
        let modules = folder.join("modules");
        fs::rename(&from, &modules).map_err(at(&from))?;
        remove_folder(&installed)?;
        for link in ["build", "source"] {
            // They point to where the kernel was built.
            let _ = fs::remove_file(modules.join(link));
        }
        // The host's programs are what builds here, whatever the kernel's architecture is.
        let script = format!(
            "KBUILD_RUN_COMMAND=CC=gcc HOSTCC=gcc $(srctree)/scripts/package/install-extmod-build {}",
            folder.join("headers").display()
        );
        run_command(self.make().args(["--silent", "run-command"]).arg(script))?;
        let config = folder.join("headers/.config");
        fs::copy(folder.join(".config"), &config).map_err(at(&config))?;
        Ok(())
    }
}
