//! A bundle's folder in a BPF file system: its programs, `maps/`, `links/` and `images/`.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use preverify_bundle::Target;

use crate::attach::Attachment;
use crate::images::ImageKind;
use crate::loaded::Loaded;
use crate::sys::bpf::{self, LinkInfo, MapInfo, ProgramInfo};
use crate::sys::map::MapHandle;
use crate::sys::statfs::is_bpf_fs;

/// Where BPF file systems are usually mounted.
pub const BPF_FS: &str = "/sys/fs/bpf";

const MAPS: &str = "maps";
const LINKS: &str = "links";
/// Here, a symbolic link for each program says what it was loaded from: the kernel does not know, and
/// such a file system holds nothing else that could.
const IMAGES: &str = "images";

/// A folder to pin a bundle in, checked before anything is loaded.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    /// A neighbour that is renamed to `folder` when all is pinned.
    staging: PathBuf,
}

impl Place {
    /// Checks that `folder` can be made in a BPF file system, and is not in use.
    pub fn new(folder: &Path) -> Result<Self, PinError> {
        let fails = |source| PinError::System {
            action: "look at",
            path: folder.to_owned(),
            source,
        };
        let folder = std::path::absolute(folder).map_err(fails)?;
        let name = folder.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (folder.parent(), name) else {
            return Err(PinError::NoName { path: folder });
        };
        if name.contains('.') {
            return Err(PinError::NoName { path: folder });
        }
        match is_bpf_fs(parent) {
            Ok(true) => {}
            Ok(false) => return Err(PinError::NotBpfFs { path: folder }),
            Err(source) => {
                return Err(PinError::System {
                    action: "look at",
                    path: parent.to_owned(),
                    source,
                });
            }
        }
        // An empty folder is none: renaming replaces it.
        match fs::read_dir(&folder).map(|mut entries| entries.next().is_some()) {
            Ok(false) => {}
            Ok(true) => return Err(PinError::InUse { path: folder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(PinError::System {
                    action: "look at",
                    path: folder,
                    source,
                });
            }
        }
        let staging = parent.join(format!("{name}-unfinished-{}", std::process::id()));
        Ok(Self { folder, staging })
    }

    /// Pins programs, maps and attachments (with the indices of their programs): all of them, or
    /// none.
    pub fn pin(
        self,
        target: &Target,
        loaded: &Loaded,
        attachments: &[(usize, Attachment)],
    ) -> Result<Pins, PinError> {
        // From here on, whatever goes wrong, the value that is dropped removes what is there.
        let mut pins = Pins {
            folder: self.staging,
            keep: false,
        };
        make_folder(&pins.folder)?;
        let maps = pins.folder.join(MAPS);
        make_folder(&maps)?;
        let images = pins.folder.join(IMAGES);
        make_folder(&images)?;
        for (index, program) in loaded.programs() {
            let name = file_name(&target.programs[index].function);
            pin(program, &pins.folder.join(&name))?;
            if let Some(image) = loaded.image(index) {
                note(image, &images.join(name))?;
            }
        }
        for (index, map) in loaded.maps.iter() {
            let name = file_name(&target.maps[index].full_name);
            pin(map.as_fd(), &maps.join(name))?;
        }
        let links = links(target, attachments);
        if !links.is_empty() {
            let folder = pins.folder.join(LINKS);
            make_folder(&folder)?;
            for (name, link) in links {
                pin(link, &folder.join(name))?;
            }
        }
        fs::rename(&pins.folder, &self.folder).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => PinError::InUse {
                path: self.folder.clone(),
            },
            _ => PinError::System {
                action: "make",
                path: self.folder.clone(),
                source,
            },
        })?;
        pins.folder = self.folder;
        Ok(pins)
    }
}

/// The links with their names: those of their programs, numbered where a program has several.
fn links<'a>(
    target: &Target,
    attachments: &'a [(usize, Attachment)],
) -> Vec<(String, BorrowedFd<'a>)> {
    let mut named = Vec::new();
    for (index, program) in target.programs.iter().enumerate() {
        let name = file_name(&program.function);
        let links: Vec<_> = attachments
            .iter()
            .filter(|(of, _)| *of == index)
            .flat_map(|(_, attachment)| attachment.links())
            .collect();
        match links[..] {
            [link] => named.push((name, link)),
            _ => named.extend(
                links
                    .into_iter()
                    .enumerate()
                    .map(|(number, link)| (format!("{name}_{number}"), link)),
            ),
        }
    }
    named
}

/// What was pinned. It is unpinned again when this is dropped, unless [`Pins::keep`] was called.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    keep: bool,
}

impl Pins {
    /// Leaves all pinned.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if !self.keep {
            // There is nobody to tell, and what is left can be seen in the folder.
            let _ = unpin(&self.folder);
        }
    }
}

/// Removes the pins of one bundle: links first, so that nothing runs any more, then programs and
/// maps. Returns how many there were. A folder that is not a bundle's is left alone.
pub fn unpin(folder: &Path) -> Result<usize, PinError> {
    let foreign = |path: PathBuf| PinError::Foreign {
        folder: folder.to_owned(),
        path,
    };
    if !is_bpf_fs(folder).map_err(fails("look at", folder))? {
        return Err(PinError::NotBpfFs {
            path: folder.to_owned(),
        });
    }
    if is_mounted_on(folder).map_err(fails("look at", folder))? {
        return Err(PinError::Root {
            path: folder.to_owned(),
        });
    }
    let mut files = Vec::new();
    let mut folders = Vec::new();
    let mut notes = 0;
    for (path, is_folder) in entries(folder)? {
        let known = [MAPS, LINKS, IMAGES]
            .iter()
            .any(|name| path.file_name() == Some(name.as_ref()));
        match (is_folder, known) {
            (false, _) => files.push((1, path)),
            (true, false) => return Err(foreign(path)),
            (true, true) => {
                let rank = if path.ends_with(LINKS) { 0 } else { 2 };
                for (inside, is_folder) in entries(&path)? {
                    if is_folder {
                        return Err(foreign(inside));
                    }
                    files.push((rank, inside));
                    notes += usize::from(path.ends_with(IMAGES));
                }
                folders.push(path);
            }
        }
    }
    // A bundle's folder has it, whatever the bundle.
    if !folders.iter().any(|path| path.ends_with(MAPS)) && !files.is_empty() {
        return Err(foreign(files.swap_remove(0).1));
    }
    files.sort();
    for (_, path) in &files {
        fs::remove_file(path).map_err(fails("remove", path))?;
    }
    folders.push(folder.to_owned());
    for path in &folders {
        fs::remove_dir(path).map_err(fails("remove", path))?;
    }
    Ok(files.len() - notes)
}

fn is_mounted_on(folder: &Path) -> io::Result<bool> {
    Ok(fs::metadata(folder)?.dev() != fs::metadata(folder.join(".."))?.dev())
}

/// Something that is pinned.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub object: Object,
    /// What it was loaded from, if it is a program that preverify-load has pinned here.
    pub image: Option<ImageKind>,
}

/// What can be pinned.
#[derive(Clone, Copy, Debug)]
pub enum Object {
    /// A map.
    Map(MapInfo),
    /// A program.
    Program(ProgramInfo),
    /// A link.
    Link(LinkInfo),
}

/// What a program was loaded from, if preverify-load has pinned it at `path`.
fn image(path: &Path) -> Option<ImageKind> {
    let note = path.parent()?.join(IMAGES).join(path.file_name()?);
    let text = fs::read_link(note).ok()?;
    [ImageKind::Native, ImageKind::Bytecode]
        .into_iter()
        .find(|kind| text == Path::new(&kind.to_string()))
}

/// All that is pinned in a folder and those in it, sorted by path.
pub fn walk(folder: &Path) -> Result<Vec<Pin>, PinError> {
    if !is_bpf_fs(folder).map_err(fails("look at", folder))? {
        return Err(PinError::NotBpfFs {
            path: folder.to_owned(),
        });
    }
    let mut pins = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for (path, is_folder) in entries(&folder)? {
            if is_folder {
                folders.push(path);
            } else if let Some(object) = object(&path)? {
                let image = image(&path);
                pins.push(Pin {
                    path,
                    object,
                    image,
                });
            }
        }
    }
    pins.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(pins)
}

/// The map that is pinned at a path; nothing if it is no map.
pub fn open_map(path: &Path) -> io::Result<Option<MapHandle>> {
    let object = bpf::object_get(path)?;
    match kind(object.as_fd())? {
        Some(Kind::Map) => MapHandle::new(object).map(Some),
        _ => Ok(None),
    }
}

/// What is pinned at a path; nothing if it went away, or is of a kind that is not known here.
fn object(path: &Path) -> Result<Option<Object>, PinError> {
    let look = || {
        let object = bpf::object_get(path)?;
        let object = object.as_fd();
        Ok(match kind(object)? {
            Some(Kind::Map) => Some(Object::Map(bpf::info(object)?)),
            Some(Kind::Program) => Some(Object::Program(bpf::info(object)?)),
            Some(Kind::Link) => Some(Object::Link(bpf::info(object)?)),
            None => None,
        })
    };
    match look() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(fails("open", path)),
    }
}

/// `enum bpf_link_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u32);

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "raw_tracepoint",
            "tracing",
            "cgroup",
            "iter",
            "netns",
            "xdp",
            "perf_event",
            "kprobe_multi",
            "struct_ops",
            "netfilter",
            "tcx",
            "uprobe_multi",
            "netkit",
            "sockmap",
        ];
        let index = (self.0 as usize).checked_sub(1);
        match index.and_then(|index| NAMES.get(index)) {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

/// What a descriptor of the BPF system call stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Map,
    Program,
    Link,
}

fn kind(object: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    let target = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    Ok(match target.to_str() {
        Some("anon_inode:bpf-map") => Some(Kind::Map),
        Some("anon_inode:bpf-prog") => Some(Kind::Program),
        Some("anon_inode:bpf_link" | "anon_inode:bpf-link") => Some(Kind::Link),
        _ => None,
    })
}

fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, PinError> {
    let read = || -> io::Result<_> {
        fs::read_dir(folder)?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.path(), entry.file_type()?.is_dir()))
            })
            .collect()
    };
    read().map_err(fails("look at", folder))
}

fn make_folder(path: &Path) -> Result<(), PinError> {
    fs::create_dir(path).map_err(fails("make", path))
}

fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<(), PinError> {
    bpf::object_pin(object, path).map_err(fails("pin", path))
}

fn note(image: ImageKind, path: &Path) -> Result<(), PinError> {
    symlink(image.to_string(), path).map_err(fails("make", path))
}

fn fails<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PinError + 'a {
    move |source| PinError::System {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A name as a BPF file system takes it: it keeps dots for itself.
fn file_name(name: &str) -> String {
    name.replace(['.', '/', '\0'], "_")
}

/// Why something is not pinned or unpinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The kernel refused something.
    #[error("cannot {action} {path}")]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a name for a folder in a BPF file system.
    #[error("{path} cannot be a folder in a BPF file system: it needs a name without dots")]
    NoName {
        /// What was given.
        path: PathBuf,
    },
    /// Not in a BPF file system.
    #[error(
        "{path} is not in a BPF file system: choose a path below {BPF_FS}, mounted with `mount -t bpf bpf {BPF_FS}`"
    )]
    NotBpfFs {
        /// What was given.
        path: PathBuf,
    },
    /// Everybody's folder.
    #[error("{path} is the root of a BPF file system: name a bundle's folder in it")]
    Root {
        /// What was given.
        path: PathBuf,
    },
    /// Something is there.
    #[error("{path} is in use: `preverify-load unload {path}` first, or choose another folder")]
    InUse {
        /// What was given.
        path: PathBuf,
    },
    /// No bundle's folder.
    #[error("{folder} is no bundle's folder: {path} is not of preverify-load; nothing was removed")]
    Foreign {
        /// What was given.
        folder: PathBuf,
        /// What does not belong there.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_have_no_dots() {
        assert_eq!(file_name(".rodata.str1.1"), "_rodata_str1_1");
        assert_eq!(file_name("../x"), "___x");
    }

    #[test]
    fn ordinary_folders_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("maps");
        fs::create_dir(&inside).unwrap();
        assert!(matches!(
            Place::new(&folder.path().join("x")),
            Err(PinError::NotBpfFs { .. })
        ));
        assert!(matches!(
            unpin(folder.path()),
            Err(PinError::NotBpfFs { .. })
        ));
        assert!(matches!(
            walk(folder.path()),
            Err(PinError::NotBpfFs { .. })
        ));
        assert!(inside.exists());
    }

    #[test]
    fn images_are_noted_beside_their_programs() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join(IMAGES);
        fs::create_dir(&images).unwrap();
        for kind in [ImageKind::Native, ImageKind::Bytecode] {
            let name = format!("f_{kind}");
            note(kind, &images.join(&name)).unwrap();
            assert_eq!(image(&folder.path().join(name)), Some(kind));
        }
        symlink("else", images.join("g")).unwrap();
        assert_eq!(image(&folder.path().join("g")), None);
        assert_eq!(image(&folder.path().join("h")), None);
        assert_eq!(image(Path::new("/")), None);
    }

    #[test]
    fn folders_need_a_name() {
        for path in ["/", "/sys/fs/bpf/a.b", "/sys/fs/bpf/.."] {
            assert!(
                matches!(Place::new(Path::new(path)), Err(PinError::NoName { .. })),
                "{path}"
            );
        }
    }

    #[test]
    fn kinds_of_descriptors() {
        let file = fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(kind(file.as_fd()).unwrap(), None);
    }
}
