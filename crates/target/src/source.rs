//! Where a target's kernel comes from.

use std::path::PathBuf;
use std::str::FromStr;

use preverify_abi::kinds::Architecture;

use crate::Progress;
use crate::arch::Arch;
use crate::debian::{Apt, Offer, plain};
use crate::error::TargetError;
use crate::hardware::HardwareRequest;
use crate::store::check_name;

/// A target to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddRequest {
    /// Its kernel.
    pub source: Source,
    /// What to call it; the kernel's release if not given.
    pub name: Option<String>,
    /// The machine that it runs on.
    pub hardware: HardwareRequest,
    /// A file with the kernel's BTF (raw, as in `/sys/kernel/btf/vmlinux`), for kernels that were built without: CO-RE
    /// goes by it.
    pub btf: Option<PathBuf>,
    /// The kernel that devices run, if that is another build of the same source.
    pub device: Option<DeviceFiles>,
    /// What `preverify-load fingerprint --json` printed on a board: the machine is made like it as far as nothing else
    /// is asked, and compared with it.
    pub fingerprint: Option<PathBuf>,
}

impl AddRequest {
    /// A kernel of Debian's on the machine that targets have if nothing else is said.
    pub fn debian(kernel: DebianKernel, name: Option<String>) -> Self {
        Self {
            source: Source::Debian(kernel),
            name,
            hardware: HardwareRequest::default(),
            btf: None,
            device: None,
            fingerprint: None,
        }
    }

    /// Refuses what can be refused before anything is fetched.
    pub fn check(&self) -> Result<(), TargetError> {
        self.name.as_deref().map_or(Ok(()), check_name)
    }
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Debian's packages.
    Debian(DebianKernel),
    /// Files of this host.
    Files(KernelFiles),
}

/// A kernel in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// The kernel: a bzImage (x86_64), an Image, packed by gzip or not (arm64), or a zImage (arm).
    pub kernel: PathBuf,
    /// Its modules, a folder like `/lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// What modules are built against: the kernel's build folder, or what a distribution makes of
    /// it. It is not copied.
    pub headers: PathBuf,
}

/// The kernel that devices run, in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFiles {
    /// Its ELF file `vmlinux` with its symbols.
    pub kernel: PathBuf,
    /// Its BTF: raw, or an ELF file that has it.
    pub btf: PathBuf,
}

/// A kernel that Debian packages: `debian:6.12-cloud-amd64`, the newest of a series, or
/// `debian:6.12.115+deb12-cloud-amd64`, exactly that one. The flavour says the architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianKernel {
    version: Version,
    flavour: &'static str,
    arch: Arch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    /// `6.12`: the newest of them.
    Series(String),
    /// `6.12.115+deb12` or `6.1.0-50`.
    Exact(String),
}

/// Debian's flavours of kernels. Those that are longer stand in front of those that they end with.
pub(crate) const FLAVOURS: &[(&str, Arch)] = &[
    ("cloud-amd64", Arch::X86_64),
    ("rt-amd64", Arch::X86_64),
    ("amd64", Arch::X86_64),
    ("cloud-arm64", Arch::Arm64),
    ("rt-arm64", Arch::Arm64),
    ("arm64-16k", Arch::Arm64),
    ("arm64", Arch::Arm64),
    ("rt-armmp", Arch::Arm),
    ("armmp-lpae", Arch::Arm),
    ("armmp", Arch::Arm),
];

impl FromStr for DebianKernel {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parse = || {
            let rest = text.strip_prefix("debian:")?;
            FLAVOURS.iter().find_map(|&(flavour, arch)| {
                let version = rest.strip_suffix(flavour)?.strip_suffix('-')?;
                Some(Self {
                    version: parse_version(version)?,
                    flavour,
                    arch,
                })
            })
        };
        parse().ok_or_else(|| TargetError::Source {
            text: text.to_owned(),
        })
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let (first, rest) = text.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~".contains(&byte);
    if !is_number(first) {
        return None;
    }
    match rest.split_once('.') {
        None => is_number(rest).then(|| Version::Series(text.to_owned())),
        Some((second, tail)) => {
            let exact = is_number(second)
                && tail.starts_with(|first: char| first.is_ascii_digit())
                && tail.bytes().all(plain);
            exact.then(|| Version::Exact(text.to_owned()))
        }
    }
}

/// The packages of one kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packages {
    /// `uname -r`.
    pub release: String,
    /// The image, the headers, and what those build with.
    pub offers: Vec<Offer>,
}

impl DebianKernel {
    /// The architecture that its flavour says.
    pub fn architecture(&self) -> Architecture {
        self.arch.architecture()
    }

    /// The architecture that it is for.
    pub(crate) fn arch(&self) -> Arch {
        self.arch
    }

    /// Finds the packages. The lists are brought up to date unless they have an exact version.
    pub(crate) fn find(
        &self,
        apt: &Apt,
        progress: &mut Progress<'_>,
    ) -> Result<Packages, TargetError> {
        let release = match &self.version {
            Version::Exact(version) => {
                let release = format!("{version}-{}", self.flavour);
                if !apt.has_lists()? || !self.available(apt)?.contains(&release) {
                    update(apt, progress)?;
                }
                release
            }
            Version::Series(series) => {
                update(apt, progress)?;
                self.newest(apt, series)?
            }
        };
        let available = self.available(apt)?;
        if !available.contains(&release) {
            return Err(self.not_there(available));
        }
        let image = format!("linux-image-{release}");
        let headers = format!("linux-headers-{release}");
        let [image, headers] = [image, headers].map(|name| apt.package(&name));
        let needs = apt.depends(&headers)?;
        // What all architectures have in common, and the programs that build: those run on this host.
        let needed = needs.iter().map(|name| plain(name)).filter(|name| {
            let common = name.ends_with("-common") || name.ends_with("-common-rt");
            name.starts_with("linux-kbuild-") || name.starts_with("linux-headers-") && common
        });
        let names: Vec<&str> = [image.as_str(), &headers]
            .into_iter()
            .chain(needed)
            .collect();
        let offers = apt.offers(&names)?;
        Ok(Packages { release, offers })
    }

    /// The release that the meta package of a series stands for now. The series that a Debian
    /// release came with has it under a name without the series.
    fn newest(&self, apt: &Apt, series: &str) -> Result<String, TargetError> {
        let metas = [
            format!("linux-image-{series}-{}", self.flavour),
            format!("linux-image-{}", self.flavour),
        ];
        let known = apt.names("linux-image-")?;
        for meta in metas.iter().filter(|meta| known.contains(meta)) {
            let image = apt.meant_by(&apt.package(meta))?;
            if let Some(release) = plain(&image).strip_prefix("linux-image-")
                && release.starts_with(&format!("{series}."))
            {
                return Ok(release.to_owned());
            }
        }
        Err(self.not_there(self.available(apt)?))
    }

    /// The releases of this flavour that there are.
    fn available(&self, apt: &Apt) -> Result<Vec<String>, TargetError> {
        let names = apt.names("linux-image-")?;
        Ok(releases(&names, self.flavour))
    }

    fn not_there(&self, available: Vec<String>) -> TargetError {
        let (Version::Series(version) | Version::Exact(version)) = &self.version;
        TargetError::NoSuchKernel {
            wanted: format!("{version}-{}", self.flavour),
            available,
        }
    }
}

fn update(apt: &Apt, progress: &mut Progress<'_>) -> Result<(), TargetError> {
    progress("bringing apt's package lists up to date");
    if let Some(failure) = apt.update()? {
        progress(&format!(
            "going on with the package lists that there are: {failure}"
        ));
    }
    Ok(())
}

/// The releases among the names of packages: `linux-image-RELEASE`, where a release starts with
/// three numbers and ends with the flavour.
fn releases(names: &[String], flavour: &str) -> Vec<String> {
    let of_flavour = |release: &str| {
        let longest = FLAVOURS.iter().find(|(name, _)| release.ends_with(name));
        longest.is_some_and(|(name, _)| *name == flavour)
            && release
                .strip_suffix(flavour)
                .and_then(|rest| parse_version(rest.strip_suffix('-')?))
                .is_some_and(|version| matches!(version, Version::Exact(_)))
    };
    names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| of_flavour(release))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(Version, &'static str, Arch)> {
        let kernel: DebianKernel = text.parse().ok()?;
        Some((kernel.version, kernel.flavour, kernel.arch))
    }

    #[test]
    fn series_and_exact_versions() {
        let series = |text: &str| Version::Series(text.to_owned());
        let exact = |text: &str| Version::Exact(text.to_owned());
        for (text, version, flavour, arch) in [
            (
                "6.12-cloud-amd64",
                series("6.12"),
                "cloud-amd64",
                Arch::X86_64,
            ),
            ("6.1-amd64", series("6.1"), "amd64", Arch::X86_64),
            ("6.12-rt-amd64", series("6.12"), "rt-amd64", Arch::X86_64),
            (
                "6.12.115+deb12-cloud-amd64",
                exact("6.12.115+deb12"),
                "cloud-amd64",
                Arch::X86_64,
            ),
            ("6.1.0-50-amd64", exact("6.1.0-50"), "amd64", Arch::X86_64),
            (
                "6.12-cloud-arm64",
                series("6.12"),
                "cloud-arm64",
                Arch::Arm64,
            ),
            ("6.12-arm64-16k", series("6.12"), "arm64-16k", Arch::Arm64),
            ("6.1.0-50-arm64", exact("6.1.0-50"), "arm64", Arch::Arm64),
            ("6.1-armmp", series("6.1"), "armmp", Arch::Arm),
            ("6.1-armmp-lpae", series("6.1"), "armmp-lpae", Arch::Arm),
        ] {
            let text = format!("debian:{text}");
            assert_eq!(parse(&text), Some((version, flavour, arch)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "6.12-cloud-amd64",
            "debian:",
            "debian:cloud-amd64",
            "debian:-amd64",
            "debian:6-amd64",
            "debian:6.-amd64",
            "debian:6.12",
            "debian:6.12-cloud-riscv64",
            "debian:6.12-x-cloud-amd64",
            "debian:6.12.1/../x-amd64",
            "debian:6.12.x-amd64",
            "ubuntu:6.12-amd64",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn releases_are_told_from_other_packages_and_flavours() {
        let names = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.12.117+deb12-arm64",
            "linux-image-6.12.117+deb12-arm64-16k",
        ]
        .map(str::to_owned);
        assert_eq!(
            releases(&names, "cloud-amd64"),
            ["6.12.117+deb12-cloud-amd64", "6.1.0-50-cloud-amd64"]
        );
        assert_eq!(releases(&names, "amd64"), ["6.12.117+deb12-amd64"]);
        assert_eq!(releases(&names, "arm64"), ["6.12.117+deb12-arm64"]);
    }
}
