//! `cargo xtask setup`: the Debian packages that building, testing and the demo need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::packages::{self, Installed, PackageError};
use crate::run::run_command;

/// What is needed, and what for.
const NEEDED: [(&str, &str); 33] = [
    ("bc", "builds of kernel modules"),
    ("bison", "builds of kernel modules"),
    (
        "chromium-headless-shell",
        "testing the service's page as people see it",
    ),
    ("clang-19", "compiling BPF programs"),
    ("cpio", "checking initial file systems in tests"),
    ("dpkg-dev", "reading kernel packages"),
    ("flex", "builds of kernel modules"),
    ("gcc", "kernel modules and libbpf"),
    (
        "gcc-aarch64-linux-gnu",
        "kernel modules and static binaries for arm64",
    ),
    (
        "gcc-arm-linux-gnueabihf",
        "kernel modules and static binaries for arm",
    ),
    ("kmod", "module dependencies of target kernels"),
    ("libbpf-dev", "headers of the BPF programs in examples/"),
    (
        "libc6-dev-arm64-cross",
        "static binaries for arm64, headers of its BPF programs",
    ),
    (
        "libc6-dev-armhf-cross",
        "static binaries for arm, headers of its BPF programs",
    ),
    ("libcap-dev", "bpftool, which writes vmlinux.h"),
    ("libelf-dev", "libbpf and bpftool"),
    ("libssl-dev", "builds of kernel modules"),
    ("llvm-19", "stripping BPF objects"),
    ("make", "kernel modules and libbpf"),
    ("nats-server", "a service of several processes, in tests"),
    (
        "openssl",
        "checking our signatures against another implementation",
    ),
    ("pahole", "BTF of kernels built from source"),
    ("patch", "kernels built from source"),
    ("perl", "checkpatch, the kernel's style check"),
    ("pkg-config", "finding libelf and zlib"),
    ("python3", "the generator of libbpf's helper declarations"),
    ("qemu-system-arm", "virtual machines of arm64 and arm"),
    ("qemu-system-x86", "virtual machines"),
    ("qemu-utils", "disks of virtual machines"),
    ("softhsm2", "signing keys in tokens, in tests"),
    ("sparse", "static analysis of the kernel part"),
    ("xz-utils", "unpacking kernel sources"),
    ("zlib1g-dev", "libbpf and bpftool"),
];

/// Installs what is missing, after saying what and why.
pub fn setup() -> Result<(), PackageError> {
    let installed = packages::installed()?;
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|(name, _)| !installed.contains_key(*name))
        .collect();
    if missing.is_empty() {
        println!(
            "All {} Debian packages that preverify needs are installed.",
            NEEDED.len()
        );
        return Ok(());
    }
    println!("Installing Debian packages:");
    for (name, reason) in &missing {
        println!("  {name:16} {reason}");
    }
    run_command(&mut apt_get(&["update"]))?;

    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    let downgrades = match missing.iter().any(|(name, _)| *name == "qemu-system-x86") {
        true => qemu_downgrades(&installed)?,
        false => Vec::new(),
    };
    if !downgrades.is_empty() {
        println!(
            "QEMU's packages break each other unless they have one version, so these get \
             qemu-system-x86's: {}",
            downgrades.join(", ")
        );
        arguments.push("--allow-downgrades");
    }
    arguments.extend(missing.iter().map(|(name, _)| *name));
    arguments.extend(downgrades.iter().map(String::as_str));
    run_command(&mut apt_get(&arguments))?;
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"])
        .args(arguments);
    command
}

/// Our own entry under /proc belongs to the user whose rights we have.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Installed packages of QEMU that are newer than the `qemu-system-x86` that apt would install
/// (from backports that are no longer among apt's sources, or have a lower priority), each as
/// `NAME=VERSION` with the version that fits.
fn qemu_downgrades(installed: &BTreeMap<String, Installed>) -> Result<Vec<String>, PackageError> {
    let candidate = packages::candidate("qemu-system-x86")?;
    let mut downgrades = Vec::new();
    for (name, Installed { version, .. }) in installed
        .iter()
        .filter(|(_, package)| package.source == "qemu")
    {
        if !packages::newer(version, &candidate)? {
            continue;
        }
        if let Some(version) = of_same_source(&packages::versions(name)?, &candidate) {
            downgrades.push(format!("{name}={version}"));
        }
    }
    Ok(downgrades)
}

/// The version that was built from the same source as `candidate`.
fn of_same_source<'a>(versions: &'a [String], candidate: &str) -> Option<&'a str> {
    versions
        .iter()
        .map(String::as_str)
        .find(|version| source_version(version) == source_version(candidate))
}

/// A version without the number of its rebuild (`+b3`), which packages of one source need not
/// share.
fn source_version(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, rebuild)) if rebuild.bytes().all(|byte| byte.is_ascii_digit()) => source,
        _ => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilds_are_one_source() {
        assert_eq!(
            source_version("1:7.2+dfsg-7+deb12u18+b3"),
            "1:7.2+dfsg-7+deb12u18"
        );
        assert_eq!(
            source_version("1:10.0.2+ds-2~bpo12+1"),
            "1:10.0.2+ds-2~bpo12+1"
        );
        assert_eq!(source_version("2.0+beta"), "2.0+beta");
        let versions = [
            "1:10.0~bpo12+1".to_owned(),
            "1:7.2+dfsg-7+deb12u18+b1".to_owned(),
        ];
        assert_eq!(
            of_same_source(&versions, "1:7.2+dfsg-7+deb12u18+b3"),
            Some("1:7.2+dfsg-7+deb12u18+b1")
        );
        assert_eq!(of_same_source(&versions, "1:8.0-1"), None);
    }

    #[test]
    fn each_package_is_named_once_in_order() {
        assert!(NEEDED.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
