//! Debian packages: what is installed, what apt offers, and the contents of packages that are
//! never installed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{RunError, run_command};

/// A package, or what is in it, could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The local package lists name nothing to download for a package.
    #[error(
        "apt knows no package `{package}` for this machine: run `apt-get update` as root, and look \
         whether the sources of apt name Debian 12 (main) and its security updates"
    )]
    Unknown { package: String },
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// A `.deb` file in the cache.
#[derive(Clone, Debug)]
pub struct Deb {
    /// The package's name.
    pub name: String,
    /// Name, version and architecture: `libxdp1_1.3.1-1_amd64`.
    pub stem: String,
    /// Where the file is.
    pub path: PathBuf,
}

/// Downloads packages into a folder, as apt would for an installation: their newest versions that
/// apt knows, checked against the signed package lists. Files that are there already stay.
pub fn download(names: &[&str], folder: &Path) -> Result<Vec<Deb>, PackageError> {
    // apt leaves half a file behind when it is interrupted: a whole one is moved.
    let partial = folder.join("partial");
    create_folder(&partial)?;
    let debs = names
        .iter()
        .map(|name| offered(name, folder))
        .collect::<Result<Vec<_>, _>>()?;
    for deb in debs.iter().filter(|deb| !deb.path.exists()) {
        run_command(
            Command::new("apt-get")
                .args(["download", "--quiet"])
                // As root, apt would drop to a user who cannot write here, and warn that it does not.
                .args(["-o", "APT::Sandbox::User=root", &deb.name])
                .current_dir(&partial),
        )?;
        let file = partial.join(deb.path.file_name().expect("has a name"));
        fs::rename(&file, &deb.path).map_err(at(&file))?;
    }
    fs::remove_dir_all(&partial).map_err(at(&partial))?;
    Ok(debs)
}

/// Unpacks a package into `folder/STEM`, once.
pub fn unpack(deb: &Deb, folder: &Path) -> Result<PathBuf, PackageError> {
    let unpacked = folder.join(&deb.stem);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let partial = folder.join(format!("{}.partial", deb.stem));
    remove_folder(&partial)?;
    create_folder(&partial)?;
    run_command(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&deb.path, &partial]),
    )?;
    fs::rename(&partial, &unpacked).map_err(at(&unpacked))?;
    Ok(unpacked)
}

/// The one package that a meta package such as `linux-headers-6.12-cloud-amd64` stands for.
pub fn meant_by(meta: &str) -> Result<String, PackageError> {
    let text = output(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    first_dependency(&text).ok_or_else(|| PackageError::Unknown {
        package: meta.into(),
    })
}

/// Which of all packages are installed, with their versions and the source packages that they
/// were built from.
pub fn installed() -> Result<BTreeMap<String, Installed>, PackageError> {
    let format = "${db:Status-Abbrev}\t${Package}\t${Version}\t${source:Package}\n";
    let text = output(Command::new("dpkg-query").args(["--show", "--showformat", format]))?;
    Ok(parse_installed(&text))
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its version.
    pub version: String,
    /// The source package that it was built from.
    pub source: String,
}

/// The version of a package that apt would install.
pub fn candidate(name: &str) -> Result<String, PackageError> {
    let text = output(Command::new("apt-cache").args(["policy", name]))?;
    parse_candidate(&text).ok_or_else(|| PackageError::Unknown {
        package: name.into(),
    })
}

/// The versions of a package that apt could install.
pub fn versions(name: &str) -> Result<Vec<String>, PackageError> {
    let text = output(Command::new("apt-cache").args(["madison", name]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect())
}

/// Whether one Debian version is newer than another.
pub fn newer(version: &str, than: &str) -> Result<bool, PackageError> {
    let mut command = Command::new("dpkg");
    command.args(["--compare-versions", version, "gt", than]);
    match command.status() {
        Ok(status) => Ok(status.success()),
        Err(cause) => Err(RunError::Start {
            command: "dpkg --compare-versions".into(),
            cause,
        }
        .into()),
    }
}

fn offered(name: &str, folder: &Path) -> Result<Deb, PackageError> {
    let text = output(Command::new("apt-get").args(["download", "--print-uris", name]))?;
    let file = file_name(&text).ok_or_else(|| PackageError::Unknown {
        package: name.into(),
    })?;
    Ok(Deb {
        name: name.into(),
        stem: file.trim_end_matches(".deb").into(),
        path: folder.join(file),
    })
}

/// The file name in a line as `apt-get --print-uris` prints it: `'URI' FILE SIZE HASH`.
fn file_name(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with('\''))?;
    line.split(' ').nth(1)
}

fn parse_candidate(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (line != "(none)").then(|| line.to_owned())
}

fn first_dependency(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))?;
    Some(line.to_owned())
}

fn parse_installed(text: &str) -> BTreeMap<String, Installed> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            // The second letter is what the package is, not what it should become.
            let installed = fields.next()?.as_bytes().get(1) == Some(&b'i');
            let (name, version, source) = (fields.next()?, fields.next()?, fields.next()?);
            installed.then(|| {
                (
                    name.to_owned(),
                    Installed {
                        version: version.into(),
                        source: source.into(),
                    },
                )
            })
        })
        .collect()
}

/// Runs a program and returns what it wrote; its errors go to ours.
fn output(command: &mut Command) -> Result<String, PackageError> {
    // The programs' words are parsed: they must be the untranslated ones.
    command.env("LC_ALL", "C").stderr(Stdio::inherit());
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|cause| RunError::Start {
        command: name.clone(),
        cause,
    })?;
    if !output.status.success() {
        return Err(RunError::Failed {
            command: name,
            status: output.status,
        }
        .into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn create_folder(path: &Path) -> Result<(), PackageError> {
    fs::create_dir_all(path).map_err(at(path))
}

fn remove_folder(path: &Path) -> Result<(), PackageError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(at(path)(cause)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PackageError {
    let path = path.to_owned();
    move |cause| PackageError::File { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_is_apts_not_the_uris() {
        let text = "'http://mirror/pool/l/libbpf-tools_0.26.0%2bds-1_amd64.deb' \
                    libbpf-tools_0.26.0+ds-1_amd64.deb 1292140 SHA256:a699\n";
        assert_eq!(file_name(text), Some("libbpf-tools_0.26.0+ds-1_amd64.deb"));
        assert_eq!(file_name("Reading package lists...\n"), None);
    }

    #[test]
    fn only_what_is_installed_counts() {
        let text = "ii \tqemu-utils\t1:7.2\tqemu\nrc \tclang-19\t1:19\tllvm-toolchain-19\n\
                    hi \tbc\t1.07\tbc\niU \tsparse\t0.6\tsparse\n";
        let names: Vec<_> = parse_installed(text).into_keys().collect();
        assert_eq!(names, ["bc", "qemu-utils"]);
    }

    #[test]
    fn a_meta_package_means_its_first_dependency() {
        let text = "linux-headers-6.12-amd64\n  Depends: linux-headers-6.12.1-amd64\n";
        assert_eq!(
            first_dependency(text).as_deref(),
            Some("linux-headers-6.12.1-amd64")
        );
        assert_eq!(first_dependency("linux-headers-6.12-amd64\n"), None);
    }

    #[test]
    fn no_candidate_is_none() {
        let text = |version| format!("bc:\n  Installed: (none)\n  Candidate: {version}\n");
        assert_eq!(
            parse_candidate(&text("1.07.1-3+b1")).as_deref(),
            Some("1.07.1-3+b1")
        );
        assert_eq!(parse_candidate(&text("(none)")), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn versions_are_compared_as_debian_does() {
        assert!(newer("1:10.0.2+ds-2~bpo12+1", "1:7.2+dfsg-7+deb12u18").expect("dpkg runs"));
        assert!(!newer("1:7.2~rc1", "1:7.2").expect("dpkg runs"));
    }
}
