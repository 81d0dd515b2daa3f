//! The object to verify.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_protocol::Inputs;
use sha2::{Digest, Sha256};

/// A BPF object, and what is set between its opening and its loading.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name: the file's name without `.bpf.o`, as bpftool calls skeletons.
    pub name: String,
    /// The ELF file.
    pub elf: Vec<u8>,
    /// What its own user space would set.
    pub inputs: Inputs,
}

impl Object {
    /// Reads an object from a file, with no inputs.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self {
            name: object_name(&path.file_name().unwrap_or_default().to_string_lossy()),
            elf: fs::read(path)?,
            inputs: Inputs::default(),
        })
    }

    /// The ELF file's SHA-256 in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.elf))
    }
}

/// Where the inputs of an object are looked for: `xdp.bpf.toml` beside `xdp.bpf.o`.
pub fn inputs_beside(object: &Path) -> PathBuf {
    object.with_extension("toml")
}

/// The name of an object in a file that is called so: `xdp_count` of `xdp_count.bpf.o`.
pub fn object_name(file: &str) -> String {
    let stem = file.strip_suffix(".o").unwrap_or(file);
    stem.strip_suffix(".bpf").unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_skeletons() {
        assert_eq!(object_name("xdp_count.bpf.o"), "xdp_count");
        assert_eq!(object_name("loop1.o"), "loop1");
        assert_eq!(object_name("plain"), "plain");
    }

    #[test]
    fn inputs_lie_beside() {
        assert_eq!(
            inputs_beside(Path::new("/a/xdp.bpf.o")),
            Path::new("/a/xdp.bpf.toml")
        );
    }
}
