//! A kernel in the store: its file, configuration, modules and headers.
//!
//! Everything lies where a Debian system has it, below `root/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Progress;
use crate::arch::Arch;
use crate::boot_file::BootFile;
use crate::btf;
use crate::config::Config;
use crate::debian::{self, Apt};
use crate::error::TargetError;
use crate::files::{self, Digest, Lock};
use crate::modules::Modules;
use crate::run;
use crate::source::{KernelFiles, Packages};

/// A kernel in the store.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The name of its folder.
    pub id: String,
    folder: PathBuf,
    record: Record,
    /// It stays for as long as this is there, also if no target refers to it any longer.
    _in_use: Arc<Lock>,
}

/// `kernel.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    arch: Arch,
    release: String,
    /// What modules are built against; relative to the kernel's folder, or a folder of the host.
    headers: PathBuf,
}

impl Kernel {
    pub(crate) fn open(kernels: &Path, id: &str) -> Result<Self, TargetError> {
        let folder = kernels.join(id);
        let in_use = files::keep_folder(&folder)?;
        let path = folder.join("kernel.json");
        let record = files::read_record(path)?;
        Ok(Self {
            id: id.to_owned(),
            folder,
            record,
            _in_use: Arc::new(in_use),
        })
    }

    /// `uname -r`.
    pub(crate) fn release(&self) -> &str {
        &self.record.release
    }

    /// What processors it is for.
    pub(crate) fn arch(&self) -> Arch {
        self.record.arch
    }

    /// Its file, as boot loaders take it.
    pub(crate) fn image(&self) -> PathBuf {
        image(&self.folder, self.release())
    }

    /// The text of its configuration.
    pub(crate) fn config(&self) -> Result<String, TargetError> {
        files::read_text(&config(&self.folder, self.release()))
    }

    /// Whether it was built with the kernel part, and so takes no module that is the same.
    pub(crate) fn has_part_built_in(&self) -> Result<bool, TargetError> {
        let text = self.config()?;
        Ok(Config::parse(&text).get("BPF_PREVERIFIED") == Some("y"))
    }

    /// Its `/lib/modules/RELEASE`.
    pub(crate) fn module_folder(&self) -> PathBuf {
        modules(&self.folder, self.release())
    }

    pub(crate) fn modules(&self) -> Result<Modules, TargetError> {
        Modules::open(&self.module_folder())
    }

    /// The file with its BTF, if it was built without and one was given.
    pub(crate) fn given_btf(&self) -> Option<PathBuf> {
        let file = given_btf(&self.folder);
        file.exists().then_some(file)
    }

    /// What modules are built against.
    pub(crate) fn headers(&self) -> PathBuf {
        self.folder.join(&self.record.headers)
    }

    pub(crate) fn occupied(&self) -> Result<u64, TargetError> {
        files::occupied(&self.folder)
    }
}

fn image(folder: &Path, release: &str) -> PathBuf {
    folder.join(format!("root/boot/vmlinuz-{release}"))
}

fn config(folder: &Path, release: &str) -> PathBuf {
    folder.join(format!("root/boot/config-{release}"))
}

fn modules(folder: &Path, release: &str) -> PathBuf {
    folder.join("root/lib/modules").join(release)
}

fn given_btf(folder: &Path) -> PathBuf {
    folder.join("vmlinux.btf")
}

/// What the kernel in these packages is called in the store, with the BTF that is given for it.
pub(crate) fn debian_id(packages: &Packages, btf: Option<&Path>) -> Result<String, TargetError> {
    let mut digest = Digest::default();
    digest.add("debian");
    for offer in &packages.offers {
        digest.add(&offer.file).add(&offer.sha256);
    }
    add_btf(&mut digest, btf)?;
    Ok(digest.id())
}

fn add_btf(digest: &mut Digest, btf: Option<&Path>) -> Result<(), TargetError> {
    if let Some(path) = btf {
        digest.add("BTF").add_file(path)?;
    }
    Ok(())
}

/// Downloads and unpacks a kernel's packages.
pub(crate) fn import_debian(
    kernels: &Path,
    apt: &Apt,
    packages: &Packages,
    btf: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Kernel, TargetError> {
    let id = debian_id(packages, btf)?;
    let folder = kernels.join(&id);
    if folder.exists() {
        return Kernel::open(kernels, &id);
    }
    let release = &packages.release;
    let partial = files::start(kernels)?;
    let root = partial.path().join("root");
    let debs = partial.path().join("debs");
    let bytes: u64 = packages.offers.iter().map(|offer| offer.size).sum();
    progress(&format!(
        "downloading {} packages of {release}, {} MB",
        packages.offers.len(),
        bytes.div_ceil(1_000_000)
    ));
    let downloaded = apt.fetch(&packages.offers, &debs)?;
    progress("unpacking the packages");
    for deb in downloaded {
        debian::extract(&deb, &root)?;
    }
    files::remove_folder(&debs)?;
    files::remove_folder(&root.join("usr/share"))?;
    let headers = PathBuf::from(format!("root/usr/src/linux-headers-{release}"));
    point_makefile_to(
        &partial.path().join(&headers).join("Makefile"),
        &folder.join("root/usr/src"),
    )?;
    let image = image(partial.path(), release);
    let file = BootFile::parse(&image, &files::read(&image)?)?;
    if let Some(found) = file.release.filter(|found| found != release) {
        return Err(TargetError::NotAKernel {
            path: image,
            found: format!("the kernel {found} instead of {release}"),
        });
    }
    let record = Record {
        arch: file.arch,
        release: release.clone(),
        headers,
    };
    complete(partial, kernels, id, record, btf)
}

/// The headers' Makefile includes the common one by its path on an installed system.
fn point_makefile_to(makefile: &Path, sources: &Path) -> Result<(), TargetError> {
    const INSTALLED: &str = "include /usr/src/";
    let text = files::read_text(makefile)?;
    if !text.contains(INSTALLED) {
        return Err(TargetError::Headers {
            folder: makefile.to_owned(),
            missing: "a line `include /usr/src/...`, as Debian's headers have it",
        });
    }
    let text = text.replace(INSTALLED, &format!("include {}/", sources.display()));
    files::write(makefile, text.as_bytes())
}

/// What the kernel in these files is called in the store, with the BTF that is given for it.
pub(crate) fn files_id(source: &KernelFiles, btf: Option<&Path>) -> Result<String, TargetError> {
    let mut digest = Digest::default();
    digest.add("files").add_file(&source.kernel)?;
    for file in module_files(&source.modules)? {
        digest.add(file.to_string_lossy().as_bytes());
        digest.add_file(&source.modules.join(file))?;
    }
    let headers = source
        .headers
        .canonicalize()
        .map_err(files::at("find", &source.headers))?;
    digest.add(headers.to_string_lossy().as_bytes());
    for file in HEADER_FILES {
        digest.add_file(&headers.join(file))?;
    }
    add_btf(&mut digest, btf)?;
    Ok(digest.id())
}

/// Copies a kernel's files.
pub(crate) fn import_files(
    kernels: &Path,
    source: &KernelFiles,
    btf: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Kernel, TargetError> {
    let (arch, release) = identify(source)?;
    progress(&format!("copying the kernel {release} and its modules"));
    let id = files_id(source, btf)?;
    if kernels.join(&id).exists() {
        return Kernel::open(kernels, &id);
    }
    let partial = files::start(kernels)?;
    files::copy(&source.kernel, &image(partial.path(), &release))?;
    files::copy(
        &source.headers.join(".config"),
        &config(partial.path(), &release),
    )?;
    let to = modules(partial.path(), &release);
    files::create_folder(&to)?;
    for file in module_files(&source.modules)? {
        files::copy(&source.modules.join(&file), &to.join(&file))?;
    }
    let headers = source
        .headers
        .canonicalize()
        .map_err(files::at("find", &source.headers))?;
    let record = Record {
        arch,
        release,
        headers,
    };
    complete(partial, kernels, id, record, btf)
}

/// The architecture and the release of a kernel in files.
pub(crate) fn identify(source: &KernelFiles) -> Result<(Arch, String), TargetError> {
    let file = BootFile::parse(&source.kernel, &files::read(&source.kernel)?)?;
    let of_headers = release_of_headers(&source.headers)?;
    match file.release {
        Some(expected) if expected != of_headers => Err(TargetError::OtherHeaders {
            folder: source.headers.clone(),
            found: of_headers,
            expected,
        }),
        _ => Ok((file.arch, of_headers)),
    }
}

/// What tells one kernel's headers from another's, and what `make` needs of them first.
const HEADER_FILES: [&str; 4] = [
    "Makefile",
    ".config",
    "Module.symvers",
    "include/config/kernel.release",
];

/// What counts of a folder of modules.
fn module_files(folder: &Path) -> Result<Vec<PathBuf>, TargetError> {
    if !folder.join("modules.builtin").exists() {
        return Err(TargetError::Modules {
            folder: folder.to_owned(),
        });
    }
    let counts = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // What depmod writes is written anew.
        let list = matches!(
            &*name,
            "modules.order" | "modules.builtin" | "modules.builtin.modinfo"
        );
        list || name
            .split_once(".ko")
            .is_some_and(|(_, rest)| matches!(rest, "" | ".xz" | ".gz" | ".zst"))
    };
    Ok(files::tree(folder)?.into_iter().filter(counts).collect())
}

fn release_of_headers(folder: &Path) -> Result<String, TargetError> {
    for missing in HEADER_FILES {
        if !folder.join(missing).exists() {
            return Err(TargetError::Headers {
                folder: folder.to_owned(),
                missing,
            });
        }
    }
    let text = files::read_text(&folder.join("include/config/kernel.release"))?;
    Ok(text.trim().to_owned())
}

/// Checks the configuration, lists the modules' dependencies, and gives the folder its name.
fn complete(
    partial: tempfile::TempDir,
    kernels: &Path,
    id: String,
    record: Record,
    btf: Option<&Path>,
) -> Result<Kernel, TargetError> {
    let release = &record.release;
    let config = files::read_text(&config(partial.path(), release))?;
    let config = Config::parse(&config);
    config.check(record.arch, release)?;
    if let Some(path) = btf {
        if config.get("DEBUG_INFO_BTF") == Some("y") {
            return Err(TargetError::BtfNotNeeded {
                release: release.clone(),
            });
        }
        btf::check(path)?;
        files::copy(path, &given_btf(partial.path()))?;
    }
    let mut depmod = Command::new("depmod");
    depmod
        .arg("--basedir")
        .arg(partial.path().join("root"))
        .arg(release)
        // An ordinary user of Debian does not have these folders.
        .env("PATH", system_path());
    run::output(&mut depmod, "kmod")?;
    let text = serde_json::to_vec_pretty(&record).expect("it has only strings");
    files::write(&partial.path().join("kernel.json"), &text)?;
    files::finish(partial, &kernels.join(&id))?;
    Kernel::open(kernels, &id)
}

fn system_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::boot_file::tests::kernel;
    use crate::config::tests::fit;

    const RELEASE: &str = "6.12.1-test";

    fn sample(folder: &Path) -> KernelFiles {
        let source = KernelFiles {
            kernel: folder.join("bzImage"),
            modules: folder.join("modules"),
            headers: folder.join("headers"),
        };
        fs::write(&source.kernel, kernel(&format!("{RELEASE} (x)"))).unwrap();
        let put = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(source.modules.join("modules.builtin"), "kernel/a.ko\n");
        put(source.modules.join("modules.order"), "");
        put(source.modules.join("source.txt"), "not a module\n");
        put(source.headers.join("Makefile"), "all:\n");
        put(source.headers.join(".config"), &fit(Arch::X86_64));
        put(source.headers.join("Module.symvers"), "");
        put(
            source.headers.join("include/config/kernel.release"),
            &format!("{RELEASE}\n"),
        );
        source
    }

    fn names(folder: &Path) -> Vec<String> {
        files::entries(folder)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn files_are_imported_once() {
        let scratch = tempfile::tempdir().unwrap();
        let source = sample(scratch.path());
        let kernels = scratch.path().join("kernels");
        let first = import_files(&kernels, &source, None, &mut |_| {}).unwrap();
        assert_eq!(first.release(), RELEASE);
        assert_eq!(names(&kernels), [&*first.id]);
        assert!(first.image().exists());
        assert!(first.module_folder().join("modules.dep").exists());
        assert!(!first.module_folder().join("source.txt").exists());
        assert_eq!(first.headers(), source.headers.canonicalize().unwrap());
        let second = import_files(&kernels, &source, None, &mut |_| {}).unwrap();
        assert_eq!(second.id, first.id);

        fs::write(source.modules.join("modules.order"), "x").unwrap();
        assert_ne!(files_id(&source, None).unwrap(), first.id);
    }

    #[test]
    fn what_cannot_be_a_target_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let source = sample(scratch.path());
        let kernels = scratch.path().join("kernels");
        let fails = |expected: &str| {
            let error = import_files(&kernels, &source, None, &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(names(&kernels).is_empty());
        };
        let config = source.headers.join(".config");
        fs::write(&config, fit(Arch::X86_64).replace("CONFIG_BPF_JIT=y", "")).unwrap();
        fails("CONFIG_BPF_JIT");
        fs::write(&config, fit(Arch::X86_64)).unwrap();
        let release = source.headers.join("include/config/kernel.release");
        fs::write(&release, "6.12.2").unwrap();
        fails("6.12.2");
        fs::write(&release, RELEASE).unwrap();
        fs::remove_file(source.modules.join("modules.builtin")).unwrap();
        fails("modules.builtin");
    }

    #[test]
    fn debians_makefile_points_to_where_its_files_are() {
        let scratch = tempfile::tempdir().unwrap();
        let makefile = scratch.path().join("Makefile");
        fs::write(
            &makefile,
            "include /usr/src/linux-headers-6.12-common/Makefile\n",
        )
        .unwrap();
        point_makefile_to(&makefile, Path::new("/cache/root/usr/src")).unwrap();
        assert_eq!(
            fs::read_to_string(&makefile).unwrap(),
            "include /cache/root/usr/src/linux-headers-6.12-common/Makefile\n"
        );
        fs::write(&makefile, "all:\n").unwrap();
        assert!(point_makefile_to(&makefile, Path::new("/cache")).is_err());
    }
}
