//! A whole bundle, or some of its programs, in the kernel.

use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use preverify_bundle::{Slot, SlotContent, Target};

use crate::device::{DeviceError, OpenBundle};
use crate::images::ImageKind;
use crate::maps::{MapError, MapSet};
use crate::selection::Selection;

/// Programs with their maps. All of it is gone when this is dropped, but for what was pinned or
/// attached for good.
#[derive(Debug)]
pub struct Loaded {
    /// The maps.
    pub maps: MapSet,
    /// The programs, by their indices in the target.
    programs: Vec<Option<LoadedProgram>>,
}

#[derive(Debug)]
struct LoadedProgram {
    descriptor: OwnedFd,
    image: ImageKind,
}

impl Loaded {
    /// Creates the selected maps, loads the selected programs, and puts into prog arrays and maps
    /// of maps what they hold from the start.
    pub fn load<R: Read + Seek>(
        bundle: &mut OpenBundle<'_, R>,
        selection: &Selection,
    ) -> Result<Self, LoadError> {
        // What has no image to load is told before anything is made.
        let images = selection
            .programs()
            .map(|index| Ok((index, bundle.image_kind(index)?)))
            .collect::<Result<Vec<_>, DeviceError>>()?;
        let maps = bundle.create_maps(selection)?;
        let mut programs: Vec<_> = bundle.target().programs.iter().map(|_| None).collect();
        for (index, image) in images {
            let descriptor = bundle.load(index, &maps)?;
            programs[index] = Some(LoadedProgram { descriptor, image });
        }
        let loaded = Self { maps, programs };
        let target = bundle.target();
        for slot in &target.slots {
            if selection.has_map(slot.map as usize) {
                loaded.fill(target, slot)?;
            }
        }
        Ok(loaded)
    }

    /// A program's descriptor, if it was selected.
    pub fn program(&self, index: usize) -> Option<BorrowedFd<'_>> {
        Some(self.selected(index)?.descriptor.as_fd())
    }

    /// What a program was loaded from, if it was selected.
    pub fn image(&self, index: usize) -> Option<ImageKind> {
        Some(self.selected(index)?.image)
    }

    /// All programs with their indices.
    pub fn programs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.programs
            .iter()
            .enumerate()
            .filter_map(|(index, program)| Some((index, program.as_ref()?.descriptor.as_fd())))
    }

    fn selected(&self, index: usize) -> Option<&LoadedProgram> {
        self.programs.get(index)?.as_ref()
    }

    fn fill(&self, target: &Target, slot: &Slot) -> Result<(), LoadError> {
        let content = match slot.content {
            SlotContent::Program(program) => self.program(program as usize),
            SlotContent::Map(map) => self.maps.get(map as usize),
        };
        let fails = |source| LoadError::Slot {
            map: target.maps[slot.map as usize].full_name.clone(),
            key: slot.key,
            source,
        };
        let missing = || io::Error::new(io::ErrorKind::NotFound, "what it holds was not selected");
        let map = self.maps.handle(slot.map as usize);
        let (map, content) = map.zip(content).ok_or_else(missing).map_err(fails)?;
        map.update(&slot.key.to_ne_bytes(), &content.as_raw_fd().to_ne_bytes())
            .map_err(fails)
    }
}

/// Why a bundle is not in the kernel. Nothing of it is, then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A map is not as it has to be.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A program was refused, or cannot be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A prog array or map of maps does not take what it holds from the start.
    #[error("cannot fill entry {key} of map {map}")]
    Slot {
        /// The map.
        map: String,
        /// The entry.
        key: u32,
        /// Why not.
        source: io::Error,
    },
}
