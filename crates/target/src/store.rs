//! The store: targets by name, and what they are made of by digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Progress;
use crate::arch::Arch;
use crate::board::Board;
use crate::debian::Apt;
use crate::device_build::DeviceBuild;
use crate::error::TargetError;
use crate::files::{self, Lock, PARTIAL};
use crate::hardware::Hardware;
use crate::kernel::{self, Kernel};
use crate::layouts::{self, KERNEL_BTF};
use crate::source::{AddRequest, DeviceFiles, Packages, Source};
use crate::target::{Ready, Record, Target};

/// The targets of one cache.
#[derive(Clone, Debug)]
pub struct Store {
    cache: PathBuf,
}

/// Tells a target's record from what was there under its name before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    // Records are replaced, and not written over.
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(record: &Metadata) -> Self {
        Self {
            inode: record.ino(),
            changed: (record.ctime(), record.ctime_nsec()),
        }
    }
}

/// An added target.
#[derive(Debug)]
pub struct Added {
    /// The target.
    pub target: Target,
    /// Whether it was not there before.
    pub new: bool,
}

impl Store {
    /// The store in a cache; it is created if it is not there.
    pub fn open(cache: &Path) -> Result<Self, TargetError> {
        files::create_folder(cache)?;
        let cache = cache.canonicalize().map_err(files::at("find", cache))?;
        Ok(Self { cache })
    }

    /// Adds a target: imports its kernel, builds the kernel part for it, boots it, and keeps
    /// snapshots. Does nothing if it is there already.
    pub fn add(
        &self,
        request: &AddRequest,
        progress: &mut Progress<'_>,
    ) -> Result<Added, TargetError> {
        request.check()?;
        let board = request
            .fingerprint
            .as_deref()
            .map(Board::read)
            .transpose()?;
        let lock = self.lock(progress)?;
        let found = self.find(request, progress)?;
        let hardware = match &board {
            Some(board) => {
                board.check_kernel(&request.source, found.arch, &found.release)?;
                &board.machine(&request.hardware)?
            }
            None => &request.hardware,
        };
        let hardware = Hardware::requested(found.arch, hardware);
        let name = request.name.as_ref().unwrap_or(&found.release);
        check_name(name)?;
        if self.target_file(name).exists() {
            let target = self.get(name)?;
            let device = request.device.as_ref();
            let device = device.map(|files| DeviceBuild::id(&found.id, files));
            same(target.record(), &found.id, &hardware, device.transpose()?)?;
            // Comparing may make its snapshots anew, which takes the lock.
            drop(lock);
            if let Some(board) = &board {
                board.compare(&target)?;
            }
            return Ok(Added { target, new: false });
        }
        let kernel = self.import(&found, request, progress)?;
        if board.is_some() {
            progress(&format!("like the board: {}", hardware.options()));
        }
        let ready = Ready::make(self, &kernel, &hardware, progress, &lock)?;
        let device = match &request.device {
            Some(files) => Some(self.import_device(&kernel, &ready, files, progress)?),
            None => None,
        };
        let record = Record {
            device: device.as_ref().map(|device| device.id.clone()),
            name: name.clone(),
            kernel: kernel.id.clone(),
            hardware,
            facts: ready.layouts.facts()?,
            part: ready.part_id,
            layouts: ready.layouts.id.clone(),
        };
        let target = Target::new(self, record, kernel, device);
        if let Some(board) = &board {
            board.compare(&target)?;
        }
        self.write(target.record())?;
        self.collect_garbage(&lock)?;
        Ok(Added { target, new: true })
    }

    /// All targets, by name.
    pub fn list(&self) -> Result<Vec<Target>, TargetError> {
        self.names()?.iter().map(|name| self.get(name)).collect()
    }

    /// One target.
    pub fn get(&self, name: &str) -> Result<Target, TargetError> {
        self.check_known(name)?;
        let record = self.read(name)?;
        let kernel = Kernel::open(&self.kernels(), &record.kernel)?;
        let device = record.device.as_ref();
        let device = device.map(|id| DeviceBuild::open(&self.devices(), id));
        Ok(Target::new(self, record, kernel, device.transpose()?))
    }

    /// Removes a target, and what no other target needs. What a process uses stays until another one changes the store,
    /// or somebody [tidies](Self::tidy) it.
    pub fn remove(&self, name: &str) -> Result<(), TargetError> {
        let lock = self.lock(&mut |_| {})?;
        self.remove_under(name, &lock)
    }

    /// Does the same, unless somebody else changes the store: then nothing is done, and it returns false.
    pub fn try_remove(&self, name: &str) -> Result<bool, TargetError> {
        match self.try_lock()? {
            Some(lock) => self.remove_under(name, &lock).map(|()| true),
            None => Ok(false),
        }
    }

    /// Removes what no target needs and no process uses. Whoever changes the store at this time does that, too.
    pub fn tidy(&self) -> Result<(), TargetError> {
        match self.try_lock()? {
            Some(lock) => self.collect_garbage(&lock),
            None => Ok(()),
        }
    }

    /// The names of all targets, and for each what is another one when it was written anew.
    pub fn stamps(&self) -> Result<BTreeMap<String, Stamp>, TargetError> {
        let mut stamps = BTreeMap::new();
        for name in self.names()? {
            let path = self.target_file(&name);
            match fs::metadata(&path) {
                Ok(found) => drop(stamps.insert(name, Stamp::of(&found))),
                // It was removed a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(files::at("read", &path)(error)),
            }
        }
        Ok(stamps)
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn kernels(&self) -> PathBuf {
        self.cache.join("kernels")
    }

    pub(crate) fn parts(&self) -> PathBuf {
        self.cache.join("parts")
    }

    pub(crate) fn layouts(&self) -> PathBuf {
        self.cache.join("layouts")
    }

    pub(crate) fn devices(&self) -> PathBuf {
        self.cache.join("devices")
    }

    /// Taken by whoever changes the store.
    pub(crate) fn lock(&self, progress: &mut Progress<'_>) -> Result<Lock, TargetError> {
        Lock::exclusive(&self.cache.join("store.lock"), || {
            progress("waiting for another process that changes the store");
        })
    }

    fn try_lock(&self) -> Result<Option<Lock>, TargetError> {
        Lock::try_exclusive(&self.cache.join("store.lock"))
    }

    /// Has a target refer to what is used with it now.
    pub(crate) fn refer(&self, name: &str, ready: &Ready, lock: &Lock) -> Result<(), TargetError> {
        // It may have been removed meanwhile, and shall not come back.
        self.check_known(name)?;
        let mut record = self.read(name)?;
        record.part.clone_from(&ready.part_id);
        record.layouts.clone_from(&ready.layouts.id);
        self.write(&record)?;
        self.collect_garbage(lock)
    }

    fn remove_under(&self, name: &str, lock: &Lock) -> Result<(), TargetError> {
        self.check_known(name)?;
        let path = self.target_file(name);
        fs::remove_file(&path).map_err(files::at("remove", &path))?;
        self.collect_garbage(lock)
    }

    fn target_file(&self, name: &str) -> PathBuf {
        self.cache.join("targets").join(format!("{name}.json"))
    }

    fn names(&self) -> Result<Vec<String>, TargetError> {
        let names = files::entries(&self.cache.join("targets"))?;
        Ok(names
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".json"))
            .map(str::to_owned)
            .collect())
    }

    fn check_known(&self, name: &str) -> Result<(), TargetError> {
        let known = self.names()?;
        if known.iter().any(|there| there == name) {
            return Ok(());
        }
        Err(TargetError::Unknown {
            name: name.to_owned(),
            known,
        })
    }

    fn read(&self, name: &str) -> Result<Record, TargetError> {
        files::read_record(self.target_file(name))
    }

    fn write(&self, record: &Record) -> Result<(), TargetError> {
        let text = serde_json::to_vec_pretty(record).expect("all its keys are strings");
        files::write(&self.target_file(&record.name), &text)
    }

    fn find(
        &self,
        request: &AddRequest,
        progress: &mut Progress<'_>,
    ) -> Result<Found, TargetError> {
        let btf = request.btf.as_deref();
        match &request.source {
            Source::Debian(kernel) => {
                let apt = Apt::open(&self.cache, kernel.arch().architecture())?;
                let packages = kernel.find(&apt, progress)?;
                Ok(Found {
                    arch: kernel.arch(),
                    release: packages.release.clone(),
                    id: kernel::debian_id(&packages, btf)?,
                    packages: Some((apt, packages)),
                })
            }
            Source::Files(source) => {
                let (arch, release) = kernel::identify(source)?;
                Ok(Found {
                    arch,
                    release,
                    id: kernel::files_id(source, btf)?,
                    packages: None,
                })
            }
        }
    }

    fn import(
        &self,
        found: &Found,
        request: &AddRequest,
        progress: &mut Progress<'_>,
    ) -> Result<Kernel, TargetError> {
        let (kernels, btf) = (self.kernels(), request.btf.as_deref());
        match (&request.source, &found.packages) {
            (Source::Files(source), _) => kernel::import_files(&kernels, source, btf, progress),
            (Source::Debian(_), Some((apt, packages))) => {
                kernel::import_debian(&kernels, apt, packages, btf, progress)
            }
            (Source::Debian(_), None) => unreachable!("packages were found for it"),
        }
    }

    fn import_device(
        &self,
        kernel: &Kernel,
        ready: &Ready,
        source: &DeviceFiles,
        progress: &mut Progress<'_>,
    ) -> Result<DeviceBuild, TargetError> {
        progress("comparing it with the kernel of devices");
        let btf = layouts::file(&mut ready.layouts.restore(0)?, KERNEL_BTF)?;
        let btf = btf.ok_or_else(|| TargetError::NoBtf {
            release: kernel.release().to_owned(),
        })?;
        DeviceBuild::import(&self.devices(), kernel, source, &btf)
    }

    /// Removes what no target refers to and no process uses.
    fn collect_garbage(&self, _lock: &Lock) -> Result<(), TargetError> {
        let records = self
            .names()?
            .iter()
            .map(|name| self.read(name))
            .collect::<Result<Vec<_>, _>>()?;
        let referred = |of: fn(&Record) -> &String| records.iter().map(of).collect();
        remove_others(&self.kernels(), &referred(|record| &record.kernel))?;
        remove_others(&self.parts(), &referred(|record| &record.part))?;
        remove_others(&self.layouts(), &referred(|record| &record.layouts))?;
        let devices = records.iter().filter_map(|record| record.device.as_ref());
        remove_others(&self.devices(), &devices.collect())
    }
}

/// A kernel that was found, and what it will be called.
struct Found {
    arch: Arch,
    release: String,
    id: String,
    packages: Option<(Apt, Packages)>,
}

fn remove_others(folder: &Path, referred: &BTreeSet<&String>) -> Result<(), TargetError> {
    for path in files::entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if referred.contains(&name.clone().into_owned()) {
            continue;
        }
        if path.is_file() {
            fs::remove_file(&path).map_err(files::at("remove", &path))?;
        } else if name.starts_with(PARTIAL) {
            // Only who holds the store's lock makes these, and that is this process.
            files::remove_folder(&path)?;
        } else if let Some(_unused) = Lock::try_exclusive(&files::use_lock(&path))? {
            files::remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Refuses to take one target for another.
fn same(
    there: &Record,
    kernel: &str,
    hardware: &Hardware,
    device: Option<String>,
) -> Result<(), TargetError> {
    let difference = if there.kernel != kernel {
        "kernel"
    } else if there.hardware != *hardware {
        "machine"
    } else if there.device != device {
        "kernel of devices"
    } else {
        return Ok(());
    };
    Err(TargetError::Exists {
        name: there.name.clone(),
        difference,
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), TargetError> {
    let mut characters = name.chars();
    let fits = characters
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
        && name.len() <= 100;
    if fits {
        Ok(())
    } else {
        Err(TargetError::Name {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts;

    fn record(name: &str, kernel: &str) -> Record {
        Record {
            name: name.into(),
            kernel: kernel.into(),
            hardware: Hardware::usual(Arch::X86_64),
            facts: facts::tests::sample(),
            part: format!("part of {kernel}"),
            layouts: format!("layouts of {kernel}"),
            device: None,
        }
    }

    /// A store with targets that share a kernel or not.
    fn store(cache: &Path, targets: &[(&str, &str)]) -> Store {
        let store = Store::open(cache).unwrap();
        for (name, kernel) in targets {
            let record = record(name, kernel);
            store.write(&record).unwrap();
            for folder in [
                store.kernels().join(kernel),
                store.parts().join(&record.part),
                store.layouts().join(&record.layouts),
            ] {
                files::create_folder(&folder).unwrap();
            }
            let kernel = r#"{"release": "6.12", "headers": "/"}"#;
            let path = store.kernels().join(&record.kernel).join("kernel.json");
            files::write(&path, kernel.as_bytes()).unwrap();
        }
        store
    }

    fn count(folder: &Path) -> usize {
        files::entries(folder).unwrap().len()
    }

    #[test]
    fn removing_leaves_what_others_need() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one"), ("b", "one"), ("c", "two")]);
        store.remove("a").unwrap();
        assert_eq!(count(&store.kernels()), 2);
        store.remove("b").unwrap();
        assert_eq!(count(&store.kernels()), 1);
        assert_eq!(count(&store.parts()), 1);
        assert_eq!(count(&store.layouts()), 1);
        assert_eq!(store.names().unwrap(), ["c"]);
    }

    #[test]
    fn what_changes_shows() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one"), ("b", "two")]);
        let before = store.stamps().unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(store.stamps().unwrap(), before);
        // Also if it says the same as before.
        store.write(&record("a", "one")).unwrap();
        let after = store.stamps().unwrap();
        assert_ne!(after["a"], before["a"]);
        assert_eq!(after["b"], before["b"]);
        assert!(store.try_remove("b").unwrap());
        assert_eq!(store.stamps().unwrap().len(), 1);
    }

    #[test]
    fn who_does_not_wait_leaves_alone_what_others_change() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one")]);
        let lock = store.lock(&mut |_| {}).unwrap();
        assert!(!store.try_remove("a").unwrap());
        store.tidy().unwrap();
        drop(lock);
        let target = store.get("a").unwrap();
        assert!(target.is_like(&store.get("a").unwrap()));
        assert!(store.try_remove("a").unwrap());
        assert_eq!(count(&store.kernels()), 1, "somebody has it open");
        drop(target);
        store.tidy().unwrap();
        assert_eq!(count(&store.kernels()), 0);
    }

    #[test]
    fn what_is_in_use_stays_until_it_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one"), ("b", "two")]);
        let used = store.layouts().join("layouts of one");
        let in_use = files::use_folder(&used).unwrap().unwrap();
        store.remove("a").unwrap();
        assert!(used.exists());
        drop(in_use);
        store.remove("b").unwrap();
        assert!(!used.exists());
        assert!(files::use_folder(&used).unwrap().is_none());
    }

    #[test]
    fn what_an_interrupted_import_left_is_no_target_and_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one")]);
        let left = store.kernels().join(".partial-x/root");
        files::create_folder(&left).unwrap();
        files::write(&store.cache().join("targets/.partial-y"), b"{").unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("a").unwrap();
        assert_eq!(count(&store.kernels()), 0);
    }

    #[test]
    fn one_name_is_one_target() {
        let there = record("a", "one");
        let mut hardware = there.hardware.clone();
        same(&there, "one", &hardware, None).unwrap();
        let error = same(&there, "two", &hardware, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("its kernel differs"), "{error}");
        hardware.cpu = "qemu64".into();
        let error = same(&there, "one", &hardware, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("its machine differs"), "{error}");
        let device = Some("device".to_owned());
        let error = same(&there, "one", &there.hardware, device)
            .unwrap_err()
            .to_string();
        assert!(error.contains("its kernel of devices differs"), "{error}");
    }

    #[test]
    fn unknown_targets_are_told_with_the_known_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path(), &[("a", "one"), ("b", "two")]);
        for name in ["c", "../targets/a", ""] {
            let error = store.get(name).unwrap_err().to_string();
            assert!(error.ends_with("there are: a, b"), "{error}");
        }
        files::write(&store.target_file("b"), b"{").unwrap();
        let error = store.get("b").unwrap_err().to_string();
        assert!(error.contains("b.json cannot be understood"), "{error}");
    }

    #[test]
    fn names_are_file_names() {
        for name in ["6.12.117+deb12-cloud-amd64", "a", "my_target.2"] {
            check_name(name).unwrap();
        }
        for name in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "-a",
            "a b",
            "a\0",
            &"a".repeat(101),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
