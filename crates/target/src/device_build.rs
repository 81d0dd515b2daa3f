//! The kernel that devices run where that is another build than the one that verifies: slimmer, of the same source.
//!
//! Of its files the store keeps what bundles need: identity, symbols, types and configuration; and the types of the
//! kernel that verifies, to hold both against each other.

mod machinery;
mod symbols;
mod vmlinux;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use preverify_btf::{Btf, BtfError, Comparison, Difference};
use serde::{Deserialize, Serialize};

pub use symbols::{DeviceSymbols, Place};

use crate::config::Config;
use crate::error::TargetError;
use crate::facts::hexadecimal;
use crate::files::{self, Digest, Lock, hex};
use crate::kernel::Kernel;
use crate::source::DeviceFiles;
use vmlinux::Vmlinux;

/// The kernel that devices run, in the store.
#[derive(Clone, Debug)]
pub struct DeviceBuild {
    /// The name of its folder.
    pub(crate) id: String,
    folder: PathBuf,
    record: Record,
    /// It stays for as long as this is there, also if no target refers to it any longer.
    _in_use: Arc<Lock>,
}

/// `device.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Record {
    release: String,
    #[serde(with = "hexadecimal")]
    build_id: Vec<u8>,
}

/// What of a kernel is not in its code.
#[derive(Debug)]
pub struct Build {
    /// Its types.
    pub btf: Btf,
    config: String,
}

impl Build {
    /// The value of an option of its configuration, with `CONFIG_`. `None` if it is not set.
    pub fn option(&self, name: &str) -> Option<&str> {
        Config::parse(&self.config).get(name.strip_prefix("CONFIG_")?)
    }
}

/// What is kept of both kernels of a target.
#[derive(Debug)]
pub struct Builds {
    /// The one that verifies.
    pub verifier: Build,
    /// The one of devices.
    pub device: Build,
    /// The symbols of the one of devices.
    pub symbols: DeviceSymbols,
}

impl Builds {
    /// Both kernels' types, to be compared by name.
    pub fn comparison(&self) -> Comparison<'_> {
        Comparison::new(&self.verifier.btf, &self.device.btf)
    }
}

impl DeviceBuild {
    pub(crate) fn open(all: &Path, id: &str) -> Result<Self, TargetError> {
        let folder = all.join(id);
        let in_use = files::keep_folder(&folder)?;
        let record = files::read_record(record(&folder))?;
        Ok(Self {
            id: id.to_owned(),
            folder,
            record,
            _in_use: Arc::new(in_use),
        })
    }

    /// What the kernel in these files, with that one that verifies, is called in the store.
    pub(crate) fn id(kernel: &str, source: &DeviceFiles) -> Result<String, TargetError> {
        let mut digest = Digest::default();
        digest.add("device").add(kernel);
        digest.add_file(&source.kernel)?.add_file(&source.btf)?;
        let beside = vmlinux::config_beside(&source.kernel);
        if beside.exists() {
            digest.add_file(&beside)?;
        }
        Ok(digest.id())
    }

    /// Takes what is needed from a kernel's files, and refuses one whose devices would not be as the kernel that
    /// verifies takes them to be, whatever the program.
    pub(crate) fn import(
        all: &Path,
        kernel: &Kernel,
        source: &DeviceFiles,
        verifier_btf: &[u8],
    ) -> Result<Self, TargetError> {
        let id = Self::id(&kernel.id, source)?;
        let file = Vmlinux::read(&source.kernel, kernel.arch())?;
        if version(&file.release) != version(kernel.release()) {
            return Err(TargetError::OtherSource {
                path: source.kernel.clone(),
                found: file.release,
                expected: kernel.release().to_owned(),
            });
        }
        let device_btf = vmlinux::btf(&source.btf)?;
        let partial = files::start(all)?;
        let put = |name, bytes: &[u8]| files::write(&partial.path().join(name), bytes);
        put(SYMBOLS, file.symbols.to_text().as_bytes())?;
        put(CONFIG, file.config.as_bytes())?;
        put(BTF, &device_btf)?;
        put(VERIFIER_BTF, verifier_btf)?;
        put(VERIFIER_CONFIG, kernel.config()?.as_bytes())?;
        let record_text = serde_json::to_vec_pretty(&Record {
            release: file.release,
            build_id: file.build_id,
        });
        let record_text = record_text.expect("it has only strings");
        files::write(&record(partial.path()), &record_text)?;
        files::finish(partial, &all.join(&id))?;

        let build = Self::open(all, &id)?;
        let relied_on = machinery::differences(&build.load()?.comparison(), kernel.arch());
        if relied_on.is_empty() {
            return Ok(build);
        }
        files::remove_folder(&build.folder)?;
        Err(TargetError::Machinery {
            path: source.kernel.clone(),
            differences: relied_on,
        })
    }

    /// `uname -r`.
    pub fn release(&self) -> &str {
        &self.record.release
    }

    /// Its GNU build id.
    pub fn build_id(&self) -> &[u8] {
        &self.record.build_id
    }

    /// The build id in hexadecimal.
    pub fn build_id_text(&self) -> String {
        hex(&self.record.build_id)
    }

    /// Everything that is not the same in both kernels: it only matters to programs that rely on it.
    pub fn differences(&self) -> Result<Vec<Difference>, TargetError> {
        Ok(self.load()?.comparison().all())
    }

    /// What is kept of both kernels.
    pub fn load(&self) -> Result<Builds, TargetError> {
        let build = |btf, config| {
            let btf = self.folder.join(btf);
            Ok::<_, TargetError>(Build {
                btf: Btf::parse(&files::read(&btf)?).map_err(at(&btf))?,
                config: files::read_text(&self.folder.join(config))?,
            })
        };
        let symbols = self.folder.join(SYMBOLS);
        Ok(Builds {
            verifier: build(VERIFIER_BTF, VERIFIER_CONFIG)?,
            device: build(BTF, CONFIG)?,
            symbols: DeviceSymbols::parse(&files::read_text(&symbols)?),
        })
    }
}

const SYMBOLS: &str = "symbols";
const BTF: &str = "btf";
const CONFIG: &str = "config";
const VERIFIER_BTF: &str = "verifier.btf";
const VERIFIER_CONFIG: &str = "verifier.config";

fn record(folder: &Path) -> PathBuf {
    folder.join("device.json")
}

/// The part of a release that tells of the source: `6.12.117` of `6.12.117-slim`.
fn version(release: &str) -> &str {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    release.split(|c| !number(c)).next().unwrap_or_default()
}

fn at(path: &Path) -> impl FnOnce(BtfError) -> TargetError + '_ {
    |error| TargetError::NotBtf {
        path: path.to_owned(),
        found: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_of_the_source() {
        for release in ["6.12.117", "6.12.117-slim", "6.12.117+deb13-cloud-amd64"] {
            assert_eq!(version(release), "6.12.117");
        }
    }
}
