//! The configuration of a kernel: fragments of `kernel/configs`, merged onto the smallest one.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use super::Role;
use crate::arch::Arch;
use crate::paths::workspace;

/// The fragments, later ones over earlier ones.
pub fn fragments(role: Role, arch: Arch) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let arch = match arch {
        Arch::X86_64 => "x86_64",
        Arch::Arm64 => "arm64",
        Arch::Arm => return Err("kernels for 32-bit arm are not built here".into()),
    };
    let names = ["base", arch, "stock"]
        .into_iter()
        .chain(of_role(role).iter().copied());
    let folder = workspace().join("kernel/configs");
    Ok(names
        .map(|name| folder.join(format!("{name}.config")))
        .collect())
}

/// Whether kernels of a role have BTF in them.
pub fn has_btf(role: Role) -> bool {
    !of_role(role).contains(&NO_BTF)
}

const NO_BTF: &str = "no-btf";

fn of_role(role: Role) -> &'static [&'static str] {
    match role {
        Role::Verifier => &["verifier"],
        Role::Stock => &[],
        Role::Unpatched => &["unpatched"],
        Role::NoVerifier => &["no-verifier"],
        Role::NoCompiler => &["no-verifier", "no-compiler"],
        Role::Compiler => &["no-verifier", NO_BTF],
        Role::Device => &["no-verifier", "no-compiler", NO_BTF],
    }
}

/// The text to start from: the fragments, with what later ones say instead of what earlier ones do.
pub fn merged(fragments: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut lines: Vec<String> = Vec::new();
    for fragment in fragments {
        for line in fs::read_to_string(fragment)?.lines() {
            let Some(option) = option(line) else {
                continue;
            };
            lines.retain(|earlier| self::option(earlier) != Some(option));
            lines.push(line.to_owned());
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Refuses a configuration that Kconfig made other than the fragments ask for.
pub fn check(wanted: &str, made: &Path) -> Result<(), Box<dyn Error>> {
    let made = fs::read_to_string(made)?;
    let made: std::collections::HashSet<&str> = made.lines().collect();
    let is_there = |line: &&str| {
        // What cannot be chosen at all is not set, and is not mentioned.
        let absent = line.ends_with(" is not set")
            && !made.iter().any(|other| option(other) == option(line));
        made.contains(*line) || absent
    };
    let missing: Vec<_> = wanted.lines().filter(|line| !is_there(line)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "Kconfig does not take from kernel/configs: {}; something that it depends on is not set",
            missing.join(", ")
        )
        .into()),
    }
}

/// The option that a line is about: `CONFIG_X=y` or `# CONFIG_X is not set`.
fn option(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ").unwrap_or(line);
    let rest = rest.strip_prefix("CONFIG_")?;
    match line.starts_with('#') {
        true => rest.strip_suffix(" is not set"),
        false => rest.split_once('=').map(|(option, _)| option),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn later_fragments_win() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let first = file("a", "# words\nCONFIG_A=y\nCONFIG_B=y\n");
        let second = file("b", "# CONFIG_A is not set\nCONFIG_C=\"x\"\n");
        let merged = merged(&[first, second]).unwrap();
        assert_eq!(
            merged,
            "CONFIG_B=y\n# CONFIG_A is not set\nCONFIG_C=\"x\"\n"
        );
        let made = file("made", "CONFIG_B=y\nCONFIG_C=\"x\"\n");
        check(&merged, &made).unwrap();
        let made = file(
            "made",
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\n",
        );
        let error = check(&merged, &made).unwrap_err().to_string();
        assert!(
            error.contains("CONFIG_B=y, # CONFIG_A is not set"),
            "{error}"
        );
    }

    #[test]
    fn each_role_has_its_fragments() {
        for arch in [Arch::X86_64, Arch::Arm64] {
            for role in Role::value_variants() {
                let text = merged(&fragments(*role, arch).unwrap()).unwrap();
                let may_have_verifier = !text.contains("# CONFIG_BPF_VERIFIER is not set");
                // Without the patches, nobody is asked.
                let has_verifier = may_have_verifier || *role == Role::Unpatched;
                let expected = [Role::Verifier, Role::Stock, Role::Unpatched];
                assert_eq!(has_verifier, expected.contains(role), "{role}");
            }
        }
    }
}
