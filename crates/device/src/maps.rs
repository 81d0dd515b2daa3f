//! Creating a target's maps as the object's own loader would, so that the kernel part finds them
//! equal to what was verified.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use preverify_abi::kinds::MapType;
use preverify_bundle::{Map, MapUse, ReadError, SectionId, Target};

use crate::pins;
use crate::selection::Selection;
use crate::sys::bpf::{self, MapCreate, MapInfo};
use crate::sys::cpus;
use crate::sys::map::MapHandle;

/// The maps of one load, by their indices in the target.
///
/// What it has pinned where the object wants maps pinned, it unpins again when it is dropped,
/// unless [`MapSet::keep_pins`] was called.
#[derive(Debug)]
pub struct MapSet {
    maps: Vec<Option<MapHandle>>,
    pinned: Vec<PathBuf>,
}

impl MapSet {
    /// Creates the selected maps, or takes those that are already pinned where the object wants
    /// them; `read` gives a section's bytes.
    pub fn create(
        target: &Target,
        selection: &Selection,
        read: &mut dyn FnMut(SectionId) -> Result<Vec<u8>, ReadError>,
    ) -> Result<Self, MapError> {
        let order = order(target, selection)?;
        let types = Types::load(target, &order, read)?;
        let mut set = Self {
            maps: target.maps.iter().map(|_| None).collect(),
            pinned: Vec::new(),
        };
        for index in order {
            let map = &target.maps[index];
            let handle = set.make(map, &types, read)?;
            set.maps[index] = Some(handle);
        }
        // Templates have served when the maps of maps are there.
        for (slot, map) in set.maps.iter_mut().zip(&target.maps) {
            if map.usage == MapUse::Template {
                *slot = None;
            }
        }
        Ok(set)
    }

    /// A map's descriptor, if it was selected and is no template.
    pub fn get(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.handle(index).map(AsFd::as_fd)
    }

    /// A map, if it was selected and is no template.
    pub fn handle(&self, index: usize) -> Option<&MapHandle> {
        self.maps.get(index)?.as_ref()
    }

    /// All maps with their indices, templates left out.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &MapHandle)> {
        self.maps
            .iter()
            .enumerate()
            .filter_map(|(index, map)| Some((index, map.as_ref()?)))
    }

    /// Leaves pinned what was pinned where the object wants it.
    pub fn keep_pins(&mut self) {
        self.pinned.clear();
    }

    fn make(
        &mut self,
        map: &Map,
        types: &Types,
        read: &mut dyn FnMut(SectionId) -> Result<Vec<u8>, ReadError>,
    ) -> Result<MapHandle, MapError> {
        if map.pin_path.is_empty() || map.usage == MapUse::Template {
            return self.create_filled(map, types, read);
        }
        let path = Path::new(&map.pin_path);
        if let Some(handle) = reuse(map, path)? {
            return Ok(handle);
        }
        let handle = self.create_filled(map, types, read)?;
        match pin_by_name(handle.as_fd(), path) {
            Ok(()) => {
                self.pinned.push(path.to_owned());
                Ok(handle)
            }
            // Another loader of the same object was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => reuse(map, path)?
                .ok_or_else(|| MapError::Pin {
                    map: map.full_name.clone(),
                    path: path.to_owned(),
                    source: error,
                }),
            Err(source) => Err(MapError::Pin {
                map: map.full_name.clone(),
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn create_filled(
        &self,
        map: &Map,
        types: &Types,
        read: &mut dyn FnMut(SectionId) -> Result<Vec<u8>, ReadError>,
    ) -> Result<MapHandle, MapError> {
        let fails = |action| {
            move |source| MapError::System {
                action,
                map: map.full_name.clone(),
                source,
            }
        };
        let inner = map.inner.and_then(|inner| self.get(inner as usize));
        let mut attributes = attributes(map, types, inner).map_err(fails("create"))?;
        let descriptor = bpf::map_create(&mut attributes).map_err(fails("create"))?;
        let handle = MapHandle::new(descriptor).map_err(fails("look at"))?;
        if let Some(section) = map.contents {
            fill(map, &handle, &read(section)?)?;
        }
        if map.usage == MapUse::Constant {
            handle.freeze().map_err(fails("freeze"))?;
        }
        Ok(handle)
    }
}

impl Drop for MapSet {
    fn drop(&mut self) {
        for path in &self.pinned {
            // Whoever removed it before did what is wanted here.
            let _ = fs::remove_file(path);
        }
    }
}

/// The selected maps, inner maps before those that need them as templates.
fn order(target: &Target, selection: &Selection) -> Result<Vec<usize>, MapError> {
    let mut order = Vec::new();
    for index in selection.maps() {
        let map = &target.maps[index];
        if MapType(map.map_type) == MapType::STRUCT_OPS {
            return Err(MapError::StructOps {
                map: map.full_name.clone(),
            });
        }
        if let Some(inner) = map.inner {
            // The kernel knows one level of maps in maps.
            let inner = inner as usize;
            if target.maps[inner].inner.is_some() {
                return Err(MapError::Nested {
                    map: map.full_name.clone(),
                });
            }
            order.push((1, index));
            order.push((0, inner));
        } else {
            order.push((0, index));
        }
    }
    order.sort_unstable();
    order.dedup();
    Ok(order.into_iter().map(|(_, index)| index).collect())
}

/// The object's BTF in the kernel, if a map needs it.
struct Types(Option<OwnedFd>);

impl Types {
    fn load(
        target: &Target,
        maps: &[usize],
        read: &mut dyn FnMut(SectionId) -> Result<Vec<u8>, ReadError>,
    ) -> Result<Self, MapError> {
        let Some(map) = maps
            .iter()
            .map(|&index| &target.maps[index])
            .find(|map| has_types(map))
        else {
            return Ok(Self(None));
        };
        let section = target.btf.ok_or_else(|| MapError::NoTypes {
            map: map.full_name.clone(),
        })?;
        let btf = bpf::btf_load(&read(section)?).map_err(|source| MapError::Types { source })?;
        Ok(Self(Some(btf)))
    }
}

fn has_types(map: &Map) -> bool {
    map.btf_key_type_id != 0 || map.btf_value_type_id != 0
}

fn attributes(map: &Map, types: &Types, inner: Option<BorrowedFd<'_>>) -> io::Result<MapCreate> {
    let kind = MapType(map.map_type);
    let mut attributes = MapCreate {
        map_type: map.map_type,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: creation_flags(kind, map.map_flags),
        inner_map_fd: inner.map_or(0, bpf::number),
        map_extra: map.map_extra,
        ..MapCreate::default()
    };
    if kind == MapType::PERF_EVENT_ARRAY && map.max_entries == 0 {
        attributes.max_entries = u32::try_from(cpus::possible()?.len()).unwrap_or(u32::MAX);
    }
    // The manifest's rules leave room for the terminating zero.
    attributes.name[..map.name.len()].copy_from_slice(map.name.as_bytes());
    if let (true, Some(btf)) = (has_types(map), &types.0) {
        attributes.btf_fd = bpf::number(btf.as_fd());
        attributes.btf_key_type_id = map.btf_key_type_id;
        attributes.btf_value_type_id = map.btf_value_type_id;
    }
    Ok(attributes)
}

const BPF_F_RDONLY_PROG: u32 = 1 << 7;

/// The flags that make a map with `flags`: the kernel itself forbids programs to write to device
/// maps, and refuses to be asked for it.
fn creation_flags(kind: MapType, flags: u32) -> u32 {
    if [MapType::DEVMAP, MapType::DEVMAP_HASH].contains(&kind) {
        flags & !BPF_F_RDONLY_PROG
    } else {
        flags
    }
}

/// Writes an array's initial contents.
fn fill(map: &Map, handle: &MapHandle, contents: &[u8]) -> Result<(), MapError> {
    let value_size = map.value_size as usize;
    let expected = value_size as u64 * u64::from(map.max_entries);
    if MapType(map.map_type) != MapType::ARRAY || contents.len() as u64 != expected {
        return Err(MapError::Contents {
            map: map.full_name.clone(),
            kind: MapType(map.map_type),
            expected,
            found: contents.len(),
        });
    }
    // An array of values without bytes cannot be created, so chunks are not empty.
    for (key, value) in (0_u32..).zip(contents.chunks_exact(value_size)) {
        handle
            .update(&key.to_ne_bytes(), value)
            .map_err(|source| MapError::System {
                action: "write the initial contents of",
                map: map.full_name.clone(),
                source,
            })?;
    }
    Ok(())
}

/// The map that is pinned at `path`, if one is.
fn reuse(map: &Map, path: &Path) -> Result<Option<MapHandle>, MapError> {
    let fails = |source| MapError::Reuse {
        map: map.full_name.clone(),
        path: path.to_owned(),
        source,
    };
    let handle = match pins::open_map(path) {
        Ok(Some(handle)) => handle,
        Ok(None) => {
            return Err(MapError::NotAMap {
                map: map.full_name.clone(),
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fails(error)),
    };
    match difference(map, handle.info()) {
        None => Ok(Some(handle)),
        Some((attribute, expected, found)) => Err(MapError::Different {
            map: map.full_name.clone(),
            path: path.to_owned(),
            attribute,
            expected,
            found,
        }),
    }
}

/// The first attribute in which a map differs from what the bundle says. The kernel part
/// compares more, this is for a message with names.
fn difference(map: &Map, found: &MapInfo) -> Option<(&'static str, u64, u64)> {
    [
        ("type", map.map_type.into(), found.map_type.into()),
        ("key size", map.key_size.into(), found.key_size.into()),
        ("value size", map.value_size.into(), found.value_size.into()),
        (
            "number of entries",
            map.max_entries.into(),
            found.max_entries.into(),
        ),
        ("flags", map.map_flags.into(), found.map_flags.into()),
        ("extra attribute", map.map_extra, found.map_extra),
    ]
    .into_iter()
    .find(|(_, expected, found)| expected != found)
}

/// Pins a map where the object wants it; makes the folder as libbpf does.
fn pin_by_name(map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    bpf::object_pin(map, path)
}

/// Why a map is not as the bundle needs it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The kernel refused something.
    #[error("cannot {action} map {map}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The map.
        map: String,
        /// Why not.
        source: io::Error,
    },
    /// The object's BTF is missing.
    #[error("map {map} names BTF types, but the bundle has no BTF: build the bundle again")]
    NoTypes {
        /// The map.
        map: String,
    },
    /// The kernel does not take the object's BTF.
    #[error("the kernel does not take the bundle's BTF")]
    Types {
        /// Why not.
        source: io::Error,
    },
    /// Initial contents that do not fit.
    #[error(
        "map {map} ({kind}): its initial contents have {found} bytes, expected an array of {expected}: build the bundle again"
    )]
    Contents {
        /// The map.
        map: String,
        /// Its type.
        kind: MapType,
        /// Bytes that the map holds.
        expected: u64,
        /// Bytes of the section.
        found: usize,
    },
    /// A map of a kernel structure.
    #[error("map {map} is of type struct_ops, which this version does not create")]
    StructOps {
        /// The map.
        map: String,
    },
    /// Maps in maps in maps.
    #[error("map {map}: the maps that it holds hold maps themselves, which no kernel knows")]
    Nested {
        /// The map.
        map: String,
    },
    /// The pinned map cannot be taken.
    #[error("cannot use what is pinned at {path} as map {map}")]
    Reuse {
        /// The map.
        map: String,
        /// Where the object wants it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is pinned there.
    #[error("map {map}: what is pinned at {path} is no map: remove it if nobody uses it any more")]
    NotAMap {
        /// The map.
        map: String,
        /// Where the object wants it.
        path: PathBuf,
    },
    /// Another kind of map is pinned there.
    #[error(
        "map {map}: what is pinned at {path} has {attribute} {found}, expected {expected}: remove it if nobody uses it any more"
    )]
    Different {
        /// The map.
        map: String,
        /// Where the object wants it.
        path: PathBuf,
        /// In what it differs.
        attribute: &'static str,
        /// What the bundle says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The map cannot be pinned.
    #[error(
        "cannot pin map {map} at {path}: it must lie in a BPF file system (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Pin {
        /// The map.
        map: String,
        /// Where the object wants it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bundle cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{map, target};

    #[test]
    fn inner_maps_come_first_and_once() {
        let mut maps = vec![map("outer"), map("second"), map("plain"), map("inner")];
        maps[0].inner = Some(3);
        maps[1].inner = Some(3);
        let target = target(Vec::new(), maps);
        let order = order(&target, &Selection::all(&target)).unwrap();
        assert_eq!(order, [2, 3, 0, 1]);
    }

    #[test]
    fn maps_in_maps_in_maps_are_refused() {
        let mut maps = vec![map("outer"), map("loop")];
        maps[0].inner = Some(1);
        maps[1].inner = Some(1);
        let target = target(Vec::new(), maps);
        assert!(matches!(
            order(&target, &Selection::all(&target)),
            Err(MapError::Nested { map }) if map == "outer"
        ));
    }

    #[test]
    fn struct_ops_are_refused_by_name() {
        let mut maps = vec![map("cubic")];
        maps[0].map_type = MapType::STRUCT_OPS.0;
        let target = target(Vec::new(), maps);
        assert_eq!(
            order(&target, &Selection::all(&target))
                .unwrap_err()
                .to_string(),
            "map cubic is of type struct_ops, which this version does not create"
        );
    }

    #[test]
    fn attributes_are_the_bundles() {
        let mut counts = map("counts");
        counts.map_flags = 1 << 10;
        counts.map_extra = 7;
        let made = attributes(&counts, &Types(None), None).unwrap();
        assert_eq!(made.map_type, 2);
        assert_eq!(
            (made.key_size, made.value_size, made.max_entries),
            (4, 8, 1)
        );
        assert_eq!((made.map_flags, made.map_extra), (1 << 10, 7));
        assert_eq!(&made.name, b"counts\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(made.btf_fd, 0);
    }

    #[test]
    fn device_maps_are_not_asked_to_be_read_only() {
        let flags = BPF_F_RDONLY_PROG | 4;
        assert_eq!(creation_flags(MapType::DEVMAP, flags), 4);
        assert_eq!(creation_flags(MapType::DEVMAP_HASH, flags), 4);
        assert_eq!(creation_flags(MapType::ARRAY, flags), flags);
    }

    #[test]
    fn perf_event_arrays_have_an_entry_for_each_cpu() {
        let mut events = map("events");
        events.map_type = MapType::PERF_EVENT_ARRAY.0;
        events.max_entries = 0;
        let made = attributes(&events, &Types(None), None).unwrap();
        assert_eq!(made.max_entries as usize, cpus::possible().unwrap().len());
    }

    #[test]
    fn differences_are_named() {
        let wanted = map("counts");
        let mut found = MapInfo {
            map_type: 2,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            ..MapInfo::default()
        };
        assert_eq!(difference(&wanted, &found), None);
        found.max_entries = 2;
        assert_eq!(
            difference(&wanted, &found),
            Some(("number of entries", 1, 2))
        );
    }

    #[test]
    fn types_without_btf_are_refused() {
        let mut locked = map("locked");
        locked.btf_value_type_id = 3;
        let target = target(Vec::new(), vec![locked]);
        let error = Types::load(&target, &[0], &mut |_| unreachable!("no section")).err();
        assert!(matches!(error, Some(MapError::NoTypes { map }) if map == "locked"));
    }
}
