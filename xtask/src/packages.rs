//! Debian packages of this host: what is installed, and what apt would install.

use std::collections::BTreeMap;
use std::process::Command;

use crate::run::{RunError, output};

/// Nothing could be found out about a package, or it could not be installed.
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

fn parse_candidate(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (line != "(none)").then(|| line.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let text = "ii \tqemu-utils\t1:7.2\tqemu\nrc \tclang-19\t1:19\tllvm-toolchain-19\n\
                    hi \tbc\t1.07\tbc\niU \tsparse\t0.6\tsparse\n";
        let names: Vec<_> = parse_installed(text).into_keys().collect();
        assert_eq!(names, ["bc", "qemu-utils"]);
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
