//! The kernel's source: Debian's, with the patches of `kernel/patches` and the kernel part in its place in the tree.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use preverify_target::debian::Deb;
use sha2::{Digest, Sha256};

use crate::corpus;
use crate::paths::workspace;
use crate::run::{RunError, at, output, remove_folder};

/// The package with the source.
pub const PACKAGE: &str = "linux-source-6.12";

/// The patches, in order.
const PATCHES: &str = "kernel/patches/linux-6.12";
/// Where the kernel part lies in the tree.
const PART: &str = "kernel/bpf/preverified";
/// Files of `kernel/` that a module needs and the tree does not.
const NOT_IN_THE_TREE: [&str; 4] = ["export.c", "symbol_table.h", "symbols.c", "compat/id.c"];
/// The folders of the kernel part, in `kernel/` and in the tree.
const PART_FOLDERS: [&str; 3] = ["", "compat", "include"];
/// The patch that the kernel part's sources belong to.
const PART_PATCH: &str = "Load-programs-that-were-verified-elsewhere";

/// The patched source. What is there already is only brought up to date, so that what did not change is not compiled
/// again.
pub fn patched(cache: &Path, source: &Deb) -> Result<PathBuf, Box<dyn Error>> {
    let tree = cache.join(format!("source-{}", digest(source)?));
    if !tree.exists() {
        let partial = tree.with_extension("partial");
        remove_folder(&partial)?;
        unpack(source, &[], &partial)?;
        for patch in patch_files()? {
            apply(&partial, &patch)?;
        }
        fs::rename(&partial, &tree).map_err(at(&tree))?;
    }
    put_part(&tree)?;
    Ok(tree)
}

/// The source as it is.
pub fn unpatched(cache: &Path, source: &Deb) -> Result<PathBuf, Box<dyn Error>> {
    let tree = cache.join(&source.stem);
    unpack(source, &[], &tree)?;
    Ok(tree)
}

/// The names of the patches, in order.
pub fn patch_files() -> io::Result<Vec<PathBuf>> {
    let folder = workspace().join(PATCHES);
    let mut patches: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    patches.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
    });
    patches.sort();
    Ok(patches)
}

/// The kernel part's sources that go into the tree.
pub fn part_files() -> io::Result<Vec<PathBuf>> {
    let kernel = workspace().join("kernel");
    let mut files = Vec::new();
    for folder in PART_FOLDERS {
        for entry in fs::read_dir(kernel.join(folder))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_source = name.ends_with(".c") || name.ends_with(".h") || name.starts_with("K");
            let in_tree = !NOT_IN_THE_TREE.iter().any(|other| path.ends_with(other));
            if path.is_file() && is_source && in_tree && !name.ends_with(".mod.c") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the whole series into a folder: the patches, and the kernel part's sources in the one that they belong to.
pub fn series(cache: &Path, source: &Deb, out: &Path) -> Result<(), Box<dyn Error>> {
    let tree = patched(cache, source)?;
    fs::create_dir_all(out).map_err(at(out))?;
    for patch in patch_files()? {
        let name = patch.file_name().expect("it was listed in a folder");
        let mut text = fs::read_to_string(&patch)?;
        if name.to_string_lossy().contains(PART_PATCH) {
            text.push_str(&part_as_patch(&tree)?);
        }
        let path = out.join(name);
        fs::write(&path, text).map_err(at(&path))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The kernel part's sources as `git diff` shows new files.
fn part_as_patch(tree: &Path) -> Result<String, Box<dyn Error>> {
    let kernel = workspace().join("kernel");
    let mut patch = String::new();
    for file in part_files()? {
        let in_tree = Path::new(PART).join(file.strip_prefix(&kernel)?);
        let mut diff = Command::new("git");
        diff.args(["diff", "--no-index", "--no-color", "/dev/null"])
            .arg(&in_tree)
            .current_dir(tree);
        let printed = diff.output()?;
        // It says that there are differences by failing.
        if printed.status.code() != Some(1) || printed.stdout.is_empty() {
            let complaint = String::from_utf8_lossy(&printed.stderr);
            return Err(format!("git diff of {}: {complaint}", in_tree.display()).into());
        }
        patch += &String::from_utf8(printed.stdout)?;
    }
    Ok(patch)
}

/// What the tree is made of but for the kernel part.
fn digest(source: &Deb) -> Result<String, Box<dyn Error>> {
    let mut digest = Sha256::new();
    digest.update(&source.stem);
    for patch in patch_files()? {
        digest.update(fs::read(&patch)?);
    }
    Ok(short(digest))
}

/// A digest as names of folders have it.
pub fn short(digest: Sha256) -> String {
    corpus::hex(&digest.finalize()[..8])
}

fn apply(tree: &Path, patch: &Path) -> Result<(), Box<dyn Error>> {
    output(
        Command::new("patch")
            .args(["--strip=1", "--forward", "--batch", "--input"])
            .arg(patch)
            .current_dir(tree),
    )?;
    Ok(())
}

/// Puts the kernel part's sources into the tree; those that are there already keep their times.
fn put_part(tree: &Path) -> Result<(), Box<dyn Error>> {
    let kernel = workspace().join("kernel");
    let part = tree.join(PART);
    let mut expected = Vec::new();
    for file in part_files()? {
        let to = part.join(file.strip_prefix(&kernel)?);
        let contents = fs::read(&file)?;
        fs::create_dir_all(to.parent().expect("it lies in the tree")).map_err(at(&to))?;
        if fs::read(&to).ok().as_ref() != Some(&contents) {
            fs::write(&to, contents).map_err(at(&to))?;
        }
        expected.push(to);
    }
    for folder in PART_FOLDERS {
        for entry in fs::read_dir(part.join(folder))? {
            let path = entry?.path();
            if path.is_file() && !expected.contains(&path) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
    }
    Ok(())
}

/// Unpacks the source's tar file, which is inside the package, or parts of it.
pub fn unpack(deb: &Deb, parts: &[&str], folder: &Path) -> Result<(), RunError> {
    if folder.exists() {
        return Ok(());
    }
    println!("unpacking {}", deb.stem);
    let partial = folder.with_extension("unpacking");
    remove_folder(&partial)?;
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    let member = format!("./usr/src/{PACKAGE}.tar.xz");
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
    let mut contents = start(
        Command::new("tar")
            .args(["--extract", "--xz", "--strip-components=1", "--directory"])
            .arg(&partial)
            .args(parts.iter().map(|part| format!("{PACKAGE}/{part}")))
            .stdin(piped(&mut member)),
    )?;
    finish("tar", &mut contents)?;
    finish("tar", &mut member)?;
    finish("dpkg-deb", &mut package)?;
    fs::rename(&partial, folder).map_err(at(folder))
}

fn start(command: &mut Command) -> Result<Child, RunError> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|cause| RunError::Start {
        command: name,
        cause,
    })
}

fn piped(child: &mut Child) -> Stdio {
    child.stdout.take().expect("was started with a pipe").into()
}

fn finish(name: &str, child: &mut Child) -> Result<(), RunError> {
    let command = name.to_owned();
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RunError::Failed { command, status }),
        Err(cause) => Err(RunError::Start { command, cause }),
    }
}
