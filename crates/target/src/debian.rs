//! Debian packages whose contents are wanted, without installing them.
//!
//! apt does the work, with the host's sources and keys but with state of its own: so an ordinary
//! user can bring the package lists up to date, and the host's own lists stay as they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_abi::kinds::Architecture;

use crate::error::TargetError;
use crate::files::Lock;
use crate::run::{self, CommandError};

/// A package, or what is in it, could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebianError {
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// apt's sources have no such package.
    #[error(
        "apt's sources on this host have no package `{package}`: look whether they name the \
         Debian release that has it (main), and its security updates"
    )]
    Unknown {
        /// The package.
        package: String,
    },
    /// apt printed something unexpected.
    #[error("apt tells nothing of use about {package}: found {found:?}")]
    Puzzling {
        /// The package.
        package: String,
        /// What apt printed.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// apt with its own state, for one architecture's packages. Only one process at a time has it: others wait.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
    lists: PathBuf,
    /// What names of packages of that architecture end with.
    suffix: &'static str,
    _lock: Lock,
}

/// A package that can be downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The package's name, as it was asked for: `libxdp1`, `libxdp1:arm64`.
    pub name: String,
    /// Its file's name: `libxdp1_1.3.1-1_amd64.deb`.
    pub file: String,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
    /// Bytes of its file.
    pub size: u64,
}

/// A downloaded package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deb {
    /// The package's name, without an architecture.
    pub name: String,
    /// Name, version and architecture: `libxdp1_1.3.1-1_amd64`.
    pub stem: String,
    /// Where the file is.
    pub path: PathBuf,
}

impl Apt {
    /// apt with its state in a folder of the cache. It knows the packages of the architecture beside the host's.
    ///
    /// Each architecture has lists of its own: a mirror that fails for one of them fails for nobody else.
    pub fn open(cache: &Path, architecture: Architecture) -> Result<Self, TargetError> {
        let (name, suffix) = match architecture {
            Architecture::ARM64 => ("arm64", ":arm64"),
            Architecture::ARM => ("armhf", ":armhf"),
            _ => (HOST, ""),
        };
        let architectures = format!("APT::Architectures={HOST},{name}");
        Self::with_state(cache.join("apt").join(name), suffix, vec![architectures])
    }

    /// apt with the packages of a Debian release that need not be the host's, for the host's architecture. They come from
    /// where the host has its own from.
    pub fn open_release(cache: &Path, release: &str) -> Result<Self, TargetError> {
        let folder = cache.join("apt").join(format!("{HOST}-{release}"));
        create_folder(&folder)?;
        let sources = folder.join("sources.list");
        let mirror = mirror()?;
        let source = format!("deb [signed-by={ARCHIVE_KEYS}] {mirror} {release} main\n");
        fs::write(&sources, source).map_err(at(&sources))?;
        let settings = vec![
            setting("Dir::Etc::SourceList", &sources),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
        ];
        Self::with_state(folder, "", settings)
    }

    fn with_state(
        folder: PathBuf,
        suffix: &'static str,
        mut settings: Vec<String>,
    ) -> Result<Self, TargetError> {
        for part in ["lists/partial", "archives/partial"] {
            create_folder(&folder.join(part))?;
        }
        let lock = Lock::exclusive(&folder.join("lock"), || {})?;
        // Nothing is installed there.
        let status = folder.join("status");
        fs::write(&status, "").map_err(at(&status))?;
        settings.extend([
            setting("Dir::State", &folder),
            setting("Dir::State::Lists", &folder.join("lists")),
            setting("Dir::State::status", &status),
            setting("Dir::Cache", &folder),
            // Hosts that throw these away (containers) would have them made for every question.
            setting("Dir::Cache::pkgcache", &folder.join("pkgcache.bin")),
            setting("Dir::Cache::srcpkgcache", &folder.join("srcpkgcache.bin")),
            // Descriptions in other languages are of no use.
            "Acquire::Languages=none".to_owned(),
            // As root, apt would drop to a user who cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ]);
        let mut options = vec!["--quiet".to_owned()];
        options.extend(settings.into_iter().flat_map(|set| ["-o".to_owned(), set]));
        Ok(Self {
            options,
            lists: folder.join("lists"),
            suffix,
            _lock: lock,
        })
    }

    /// What apt calls a package of this architecture, where the host's would be meant otherwise.
    pub fn package(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// Brings the package lists up to date. If one of the host's sources fails but there are lists,
    /// from this time or an earlier one, that is only told.
    pub fn update(&self) -> Result<Option<CommandError>, DebianError> {
        let mut command = self.command("apt-get", &["--error-on=any", "update"]);
        match run::output(&mut command, "apt") {
            Ok(_) => Ok(None),
            Err(error) if self.has_lists()? => Ok(Some(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there are package lists.
    pub fn has_lists(&self) -> Result<bool, DebianError> {
        let entries = fs::read_dir(&self.lists).map_err(at(&self.lists))?;
        Ok(entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
    }

    /// The names of all packages that start so, sorted.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, DebianError> {
        let text = self.run("apt-cache", &["pkgnames", prefix])?;
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// What a package depends on, in its order; of alternatives the first.
    pub fn depends(&self, name: &str) -> Result<Vec<String>, DebianError> {
        let text = self.run("apt-cache", &["depends", "--important", name])?;
        Ok(parse_depends(&text))
    }

    /// The one package that a meta package such as `linux-headers-6.12-cloud-amd64` stands for.
    pub fn meant_by(&self, meta: &str) -> Result<String, DebianError> {
        let first = self.depends(meta)?.into_iter().next();
        first.ok_or_else(|| DebianError::Unknown {
            package: meta.to_owned(),
        })
    }

    /// What would be downloaded: of each package the newest version.
    pub fn offers(&self, names: &[&str]) -> Result<Vec<Offer>, DebianError> {
        let arguments = [&["download", "--print-uris"], names].concat();
        let text = self.run("apt-get", &arguments)?;
        names
            .iter()
            .map(|name| {
                parse_offer(name, &text).ok_or_else(|| DebianError::Puzzling {
                    package: (*name).to_owned(),
                    found: text.clone(),
                })
            })
            .collect()
    }

    /// Downloads packages into a folder, checked against the signed package lists. Files that are
    /// there already stay.
    pub fn download(&self, names: &[&str], folder: &Path) -> Result<Vec<Deb>, DebianError> {
        let offers = self.offers(names)?;
        self.fetch(&offers, folder)
    }

    /// Downloads what [`Apt::offers`] told.
    pub fn fetch(&self, offers: &[Offer], folder: &Path) -> Result<Vec<Deb>, DebianError> {
        // apt leaves half a file behind when it is interrupted: a whole one is moved.
        let partial = folder.join("partial");
        create_folder(&partial)?;
        let debs: Vec<Deb> = offers
            .iter()
            .map(|offer| Deb {
                name: plain(&offer.name).to_owned(),
                stem: offer.file.trim_end_matches(".deb").to_owned(),
                path: folder.join(&offer.file),
            })
            .collect();
        for (deb, offer) in debs.iter().zip(offers) {
            if deb.path.exists() {
                continue;
            }
            let mut command = self.command("apt-get", &["download", &offer.name]);
            run::output(command.current_dir(&partial), "apt")?;
            let file = partial.join(&offer.file);
            fs::rename(&file, &deb.path).map_err(at(&file))?;
        }
        fs::remove_dir_all(&partial).map_err(at(&partial))?;
        Ok(debs)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, DebianError> {
        Ok(run::output(&mut self.command(program, arguments), "apt")?)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        // apt does not offer what lies in the folder that it is called from.
        command.current_dir(&self.lists);
        command.args(&self.options).args(arguments);
        command
    }
}

/// What Debian calls the architecture of hosts.
const HOST: &str = "amd64";
/// The keys that Debian signs its releases with, on every Debian machine.
const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn setting(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// Where the host has Debian's packages from.
fn mirror() -> Result<String, DebianError> {
    let mut command = Command::new("apt-get");
    // The first one is that of the release itself: updates may come from elsewhere.
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    command.args(["Created-By: Packages", "Origin: Debian"]);
    let found = run::output(&mut command, "apt")?;
    match found.lines().next() {
        Some(mirror) => Ok(mirror.to_owned()),
        None => Err(DebianError::Puzzling {
            package: "Debian's own packages (have the lists been brought up to date?)".to_owned(),
            found,
        }),
    }
}

/// A package's name without an architecture.
pub(crate) fn plain(name: &str) -> &str {
    name.split_once(':').map_or(name, |(plain, _)| plain)
}

/// Unpacks a package into `folder/STEM`, once.
pub fn unpack(deb: &Deb, folder: &Path) -> Result<PathBuf, DebianError> {
    let unpacked = folder.join(&deb.stem);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let partial = folder.join(format!("{}.partial", deb.stem));
    match fs::remove_dir_all(&partial) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(at(&partial)(source));
        }
        _ => {}
    }
    extract(deb, &partial)?;
    fs::rename(&partial, &unpacked).map_err(at(&unpacked))?;
    Ok(unpacked)
}

/// Puts a package's files below a folder, beside those that are there.
pub fn extract(deb: &Deb, folder: &Path) -> Result<(), DebianError> {
    create_folder(folder)?;
    let mut command = Command::new("dpkg-deb");
    command.arg("--extract").args([&deb.path, folder]);
    run::output(&mut command, "dpkg")?;
    Ok(())
}

/// One of the lines that `apt-get --print-uris` prints: `'URI' NAME_VERSION_ARCH.deb SIZE
/// SHA256:DIGEST`.
fn parse_offer(name: &str, text: &str) -> Option<Offer> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let file = words.next()?;
            (file.split('_').next()? == plain(name)).then_some(())?;
            Some(Offer {
                name: name.to_owned(),
                file: file.to_owned(),
                size: words.next()?.parse().ok()?,
                sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
            })
        })
}

/// The lines of `apt-cache depends`. In front of all alternatives but the last stands a `|`, and
/// what no package is named like stands in `<>`.
fn parse_depends(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut alternative = false;
    for line in text.lines() {
        let (more, rest) = match line.trim_start().strip_prefix('|') {
            Some(rest) => (true, rest),
            None => (false, line.trim_start()),
        };
        let Some(name) = rest.strip_prefix("Depends: ") else {
            continue;
        };
        if !alternative {
            names.push(name.trim_matches(['<', '>']).to_owned());
        }
        alternative = more;
    }
    names
}

fn create_folder(path: &Path) -> Result<(), DebianError> {
    fs::create_dir_all(path).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DebianError {
    let path = path.to_owned();
    move |source| DebianError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_has_its_line() {
        let text = "Reading package lists...\n\
                    'http://mirror/libx_1%2b2_all.deb' libx_1+2_all.deb 7 SHA256:b0\n\
                    'http://mirror/libx-dev_1_all.deb' libx-dev_1_all.deb 8 SHA256:b1\n";
        let offer = parse_offer("libx", text).unwrap();
        // The name is apt's, not the URI's.
        assert_eq!(offer.file, "libx_1+2_all.deb");
        assert_eq!((offer.size, offer.sha256.as_str()), (7, "b0"));
        assert_eq!(parse_offer("libx-dev", text).unwrap().sha256, "b1");
        assert_eq!(parse_offer("lib", text), None);
        // Files have their architecture elsewhere.
        let foreign = parse_offer("libx:arm64", text).unwrap();
        assert_eq!(
            (foreign.name.as_str(), foreign.file),
            ("libx:arm64", offer.file)
        );
        let weak = "'http://mirror/x.deb' x_1_all.deb 1 MD5Sum:a\n";
        assert_eq!(parse_offer("x", weak), None);
    }

    #[test]
    fn of_alternatives_the_first_counts() {
        let text = "\
linux-headers-6.12.117+deb12-cloud-amd64
  Depends: linux-headers-6.12.117+deb12-common
 |Depends: linux-image-6.12.117+deb12-cloud-amd64
  Depends: linux-image-6.12.117+deb12-cloud-amd64-unsigned
  Depends: <linux-compiler-gcc-12-x86>
  Recommends: gcc-12
";
        assert_eq!(
            parse_depends(text),
            [
                "linux-headers-6.12.117+deb12-common",
                "linux-image-6.12.117+deb12-cloud-amd64",
                "linux-compiler-gcc-12-x86",
            ]
        );
        assert!(parse_depends("linux-headers-6.12-amd64\n").is_empty());
    }
}
