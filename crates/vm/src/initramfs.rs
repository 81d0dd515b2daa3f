//! Initial file systems: a writer of cpio archives in the kernel's `newc` format.
//!
//! The archive depends on nothing but what was put into it: entries are sorted by path, inode
//! numbers count up, owners and times are zero. Parent folders are made when they are missing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What can be wrong with an archive's contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// A path that the archive cannot hold.
    #[error(
        "the initramfs cannot hold the path {path:?}: expected an absolute path without `.`, `..` \
         and zero bytes"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// Two entries with one path, or an entry below something that is no folder.
    #[error("the initramfs has {path} already, as {found}")]
    Occupied {
        /// The path.
        path: String,
        /// What is there.
        found: &'static str,
    },
    /// A file larger than the format can say.
    #[error(
        "{path} has {size} bytes, and an initramfs holds files up to {}",
        u32::MAX
    )]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        size: usize,
    },
    /// A file of the host could not be read.
    #[error("cannot read {path}, a file for the initramfs: {source}")]
    Read {
        /// The path on the host.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// An initial file system in the making.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a folder, unless it is there.
    pub fn folder(&mut self, path: &str, permissions: u32) -> Result<&mut Self, InitramfsError> {
        let key = normalise(path)?;
        match self.entries.get(&key) {
            Some(Entry {
                kind: Kind::Folder, ..
            }) => Ok(self),
            _ => self.put(key, permissions, Kind::Folder),
        }
    }

    /// Puts a regular file.
    pub fn file(
        &mut self,
        path: &str,
        permissions: u32,
        contents: impl Into<Vec<u8>>,
    ) -> Result<&mut Self, InitramfsError> {
        self.put(normalise(path)?, permissions, Kind::File(contents.into()))
    }

    /// Puts a file of the host, with its contents as they are now.
    pub fn host_file(
        &mut self,
        path: &str,
        permissions: u32,
        from: &Path,
    ) -> Result<&mut Self, InitramfsError> {
        let contents = fs::read(from).map_err(|source| InitramfsError::Read {
            path: from.display().to_string(),
            source,
        })?;
        self.file(path, permissions, contents)
    }

    /// Puts a symbolic link.
    pub fn symlink(&mut self, path: &str, to: &str) -> Result<&mut Self, InitramfsError> {
        self.put(normalise(path)?, 0o777, Kind::Symlink(to.to_owned()))
    }

    /// Puts a character device.
    pub fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> Result<&mut Self, InitramfsError> {
        self.put(
            normalise(path)?,
            permissions,
            Kind::CharacterDevice { major, minor },
        )
    }

    /// The archive.
    pub fn archive(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut archive = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            entry.write(&mut archive, inode, path)?;
        }
        let trailer = Entry {
            mode: 0,
            kind: Kind::Trailer,
        };
        trailer.write(&mut archive, 0, "TRAILER!!!")?;
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        Ok(archive)
    }

    fn put(
        &mut self,
        key: String,
        permissions: u32,
        kind: Kind,
    ) -> Result<&mut Self, InitramfsError> {
        if let Some(there) = self.entries.get(&key) {
            return Err(there.occupies(key));
        }
        for (at, _) in key.match_indices('/') {
            let parent = &key[..at];
            match self.entries.get(parent) {
                None => {
                    let folder = Entry {
                        mode: S_IFDIR | 0o755,
                        kind: Kind::Folder,
                    };
                    self.entries.insert(parent.to_owned(), folder);
                }
                Some(Entry {
                    kind: Kind::Folder, ..
                }) => {}
                Some(other) => return Err(other.occupies(parent.to_owned())),
            }
        }
        let mode = kind.file_type() | (permissions & 0o7777);
        self.entries.insert(key, Entry { mode, kind });
        Ok(self)
    }
}

/// Archives are padded to a multiple of this, as other writers of cpio do.
const BLOCK: usize = 512;

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder,
    File(Vec<u8>),
    Symlink(String),
    CharacterDevice { major: u32, minor: u32 },
    Trailer,
}

impl Kind {
    const fn file_type(&self) -> u32 {
        match self {
            Self::Folder => S_IFDIR,
            Self::File(_) => S_IFREG,
            Self::Symlink(_) => S_IFLNK,
            Self::CharacterDevice { .. } => S_IFCHR,
            Self::Trailer => 0,
        }
    }
}

impl Entry {
    fn write(&self, archive: &mut Vec<u8>, inode: u32, path: &str) -> Result<(), InitramfsError> {
        let contents = match &self.kind {
            Kind::File(contents) => contents.as_slice(),
            Kind::Symlink(to) => to.as_bytes(),
            Kind::Folder | Kind::CharacterDevice { .. } | Kind::Trailer => &[],
        };
        let (major, minor) = match self.kind {
            Kind::CharacterDevice { major, minor } => (major, minor),
            _ => (0, 0),
        };
        let links = match self.kind {
            Kind::Folder => 2,
            _ => 1,
        };
        let size = |bytes: usize| {
            u32::try_from(bytes).map_err(|_| InitramfsError::TooLarge {
                path: path.to_owned(),
                size: bytes,
            })
        };
        // The order of `struct` in Documentation/driver-api/early-userspace/buffer-format.rst.
        let fields = [
            inode,
            self.mode,
            0, // owner
            0, // group
            links,
            0, // time
            size(contents.len())?,
            0, // the archive's own device, major and minor
            0,
            major,
            minor,
            size(path.len() + 1)?,
            0, // no checksum in this format
        ];
        archive.extend_from_slice(b"070701");
        for field in fields {
            archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        archive.extend_from_slice(path.as_bytes());
        archive.push(0);
        align(archive);
        archive.extend_from_slice(contents);
        align(archive);
        Ok(())
    }

    fn occupies(&self, path: String) -> InitramfsError {
        let found = match self.kind {
            Kind::Folder => "a folder",
            Kind::File(_) | Kind::Trailer => "a file",
            Kind::Symlink(_) => "a symbolic link",
            Kind::CharacterDevice { .. } => "a device",
        };
        InitramfsError::Occupied { path, found }
    }
}

/// Names and contents start at multiples of four bytes.
fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// An absolute path, without its leading slash.
fn normalise(path: &str) -> Result<String, InitramfsError> {
    let wrong = || InitramfsError::Path {
        path: path.to_owned(),
    };
    let relative = path.strip_prefix('/').ok_or_else(wrong)?;
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if relative.split('/').all(is_part) && relative != "TRAILER!!!" {
        Ok(relative.to_owned())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Initramfs {
        let mut sample = Initramfs::new();
        sample
            .file("/init", 0o755, "#!/bin/sh\n")
            .and_then(|s| s.file("/lib/modules/6.12/modules.dep", 0o644, vec![7; 4099]))
            .and_then(|s| s.folder("/proc", 0o555))
            .and_then(|s| s.character_device("/dev/console", 0o600, 5, 1))
            .and_then(|s| s.symlink("/sbin/init", "../init"))
            .unwrap();
        sample
    }

    #[test]
    fn cpio_lists_what_was_put_in() {
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Debian package cpio is installed");
        let archive = sample().archive().unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = listing
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let found: Vec<(&str, String)> = lines
            .iter()
            .map(|words| {
                let date = words.iter().position(|word| *word == "1970").unwrap();
                (words[0], words[date + 1..].join(" "))
            })
            .collect();
        let expected = [
            ("drwxr-xr-x", "dev"),
            ("crw-------", "dev/console"),
            ("-rwxr-xr-x", "init"),
            ("drwxr-xr-x", "lib"),
            ("drwxr-xr-x", "lib/modules"),
            ("drwxr-xr-x", "lib/modules/6.12"),
            ("-rw-r--r--", "lib/modules/6.12/modules.dep"),
            ("dr-xr-xr-x", "proc"),
            ("drwxr-xr-x", "sbin"),
            ("lrwxrwxrwx", "sbin/init -> ../init"),
        ];
        assert_eq!(
            found,
            expected.map(|(mode, path)| (mode, path.to_owned())),
            "{listing}"
        );
        assert!(listing.contains("4099"), "{listing}");
        assert!(listing.contains("5,   1"), "{listing}");
    }

    #[test]
    fn the_order_of_calls_does_not_show() {
        let mut one = Initramfs::new();
        one.file("/a/x", 0o644, "x")
            .and_then(|i| i.file("/b", 0o644, "b"))
            .unwrap();
        let mut two = Initramfs::new();
        two.file("/b", 0o644, "b")
            .and_then(|i| i.file("/a/x", 0o644, "x"))
            .unwrap();
        assert_eq!(one.archive().unwrap(), two.archive().unwrap());
    }

    #[test]
    fn paths_that_no_archive_can_hold_are_refused() {
        for path in [
            "init",
            "/",
            "//x",
            "/a/../b",
            "/a/./b",
            "/a\0b",
            "/a/",
            "/TRAILER!!!",
        ] {
            let error = Initramfs::new().file(path, 0o644, "").unwrap_err();
            assert!(matches!(error, InitramfsError::Path { .. }), "{path}");
        }
    }

    #[test]
    fn nothing_is_put_twice_or_below_a_file() {
        let mut initramfs = sample();
        for path in ["/init", "/init/x", "/proc", "/sbin/init/x"] {
            let error = initramfs.file(path, 0o644, "").unwrap_err();
            assert!(matches!(error, InitramfsError::Occupied { .. }), "{path}");
        }
        initramfs.folder("/proc", 0o755).unwrap();
    }
}
