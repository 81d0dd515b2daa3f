//! The kernel part's device: who answers, opening a bundle, loading its programs.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use preverify_abi::ABI_VERSION;
use preverify_abi::image::IMAGE_NATIVE;
use preverify_abi::ioctl::{DEVICE_PATH, Info, Load, Open, REASON_SIZE};
use preverify_bundle::{Image, Program, ReadError, Reader, SectionId, Target};
use zerocopy::FromZeros;

use crate::maps::{MapError, MapSet};
use crate::selection::Selection;
use crate::sys::{errno, ioctl};

/// The kernel part.
#[derive(Debug)]
pub struct Device {
    descriptor: OwnedFd,
    info: Info,
}

impl Device {
    /// Opens the kernel part's device, and checks that it speaks this crate's language.
    pub fn open() -> Result<Self, DeviceError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE_PATH)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => DeviceError::NoKernelPart,
                _ => DeviceError::Open { source },
            })?;
        let descriptor = OwnedFd::from(file);
        let info =
            ioctl::info(descriptor.as_fd()).map_err(|source| DeviceError::Info { source })?;
        if info.abi_version != ABI_VERSION {
            return Err(DeviceError::Version {
                found: info.abi_version,
            });
        }
        Ok(Self { descriptor, info })
    }

    /// Who answers, and on what machine.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Has the kernel check a bundle's signature, and find the target that fits this machine.
    pub fn open_bundle<'r, R: Read + Seek>(
        &self,
        reader: &'r mut Reader<R>,
    ) -> Result<OpenBundle<'r, R>, DeviceError> {
        let signature = reader.signature().ok_or(DeviceError::Unsigned)?;
        let mut argument = Open::new_zeroed();
        let descriptor = ioctl::open(
            self.descriptor.as_fd(),
            reader.manifest_bytes(),
            signature,
            &mut argument,
        )
        .map_err(|error| Refusal::new(None, &error, &argument.reason))?;
        let number = argument.target as usize;
        let manifest = reader.manifest();
        let target = manifest
            .targets
            .get(number)
            .cloned()
            .ok_or(DeviceError::Target {
                number,
                count: manifest.targets.len(),
            })?;
        Ok(OpenBundle {
            descriptor,
            reader,
            number,
            target,
        })
    }
}

/// A bundle whose signature was checked.
#[derive(Debug)]
pub struct OpenBundle<'r, R> {
    descriptor: OwnedFd,
    reader: &'r mut Reader<R>,
    number: usize,
    target: Target,
}

impl<R: Read + Seek> OpenBundle<'_, R> {
    /// The target that fits this machine. Programs and maps are known by their indices in it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Creates the selected maps.
    pub fn create_maps(&mut self, selection: &Selection) -> Result<MapSet, MapError> {
        MapSet::create(&self.target, selection, &mut |section| {
            self.reader.section(section)
        })
    }

    /// Reads what [`OpenBundle::load_image`] takes for a program.
    pub fn image(&mut self, program: usize) -> Result<ProgramImage, DeviceError> {
        let described = self.program(program)?;
        let function = described.function.clone();
        let Image { image, symbols } = described
            .native
            .or(described.bytecode)
            .expect("a manifest's rules give every program an image");
        let number = self
            .reader
            .manifest()
            .program_number(self.number, program)
            .expect("the program was just looked up");
        Ok(ProgramImage {
            number,
            function,
            image: self.section(image)?,
            symbols: symbols
                .map(|symbols| self.section(symbols))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// Loads a program, given its maps in the order of [`Program::maps`]. It may be called as
    /// often as is wanted: each time a new program comes back.
    pub fn load_image(
        &self,
        image: &ProgramImage,
        maps: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, DeviceError> {
        let mut argument = Load::new_zeroed();
        argument.program = image.number;
        argument.kind = IMAGE_NATIVE;
        ioctl::load(
            self.descriptor.as_fd(),
            &image.image,
            &image.symbols,
            maps,
            &mut argument,
        )
        .map_err(|error| Refusal::new(Some(&image.function), &error, &argument.reason).into())
    }

    /// Reads a program's image and loads it with maps of `maps`.
    pub fn load(&mut self, program: usize, maps: &MapSet) -> Result<OwnedFd, DeviceError> {
        let image = self.image(program)?;
        let described = self.program(program)?;
        let maps = described
            .maps
            .iter()
            .map(|&map| {
                maps.get(map as usize).ok_or_else(|| DeviceError::NoMap {
                    program: described.function.clone(),
                    map: self.target.maps[map as usize].full_name.clone(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.load_image(&image, &maps)
    }

    fn program(&self, program: usize) -> Result<&Program, DeviceError> {
        self.target
            .programs
            .get(program)
            .ok_or(DeviceError::NoProgram {
                number: program,
                count: self.target.programs.len(),
            })
    }

    fn section(&mut self, id: SectionId) -> Result<Vec<u8>, DeviceError> {
        Ok(self.reader.section(id)?)
    }
}

/// A program's image in memory.
#[derive(Clone, Debug)]
pub struct ProgramImage {
    /// The number by which the kernel part knows the program.
    number: u32,
    function: String,
    image: Vec<u8>,
    symbols: Vec<u8>,
}

impl ProgramImage {
    /// Bytes of the image and of its symbols.
    pub fn size(&self) -> usize {
        self.image.len() + self.symbols.len()
    }
}

/// The kernel part's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel part refused {}: {}{}", what(.program.as_deref()), errno_name(*.errno), sentence(.reason))]
pub struct Refusal {
    /// The program that was refused; none if it is the whole bundle.
    pub program: Option<String>,
    /// The error number.
    pub errno: i32,
    /// Its sentence; empty if it had none.
    pub reason: String,
}

impl Refusal {
    fn new(program: Option<&str>, error: &io::Error, reason: &[u8; REASON_SIZE]) -> Self {
        let end = reason.iter().position(|&byte| byte == 0);
        Self {
            program: program.map(ToOwned::to_owned),
            errno: error.raw_os_error().unwrap_or(0),
            reason: String::from_utf8_lossy(&reason[..end.unwrap_or(REASON_SIZE)]).into_owned(),
        }
    }
}

fn what(program: Option<&str>) -> String {
    program.map_or_else(
        || "the bundle".to_owned(),
        |program| format!("program {program}"),
    )
}

fn errno_name(number: i32) -> String {
    errno::name(number).map_or_else(|| format!("error {number}"), ToOwned::to_owned)
}

fn sentence(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

/// Why the kernel part did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Its device is not there.
    #[error(
        "{DEVICE_PATH} is not there: the kernel part is not inserted: modprobe bpf_preverified"
    )]
    NoKernelPart,
    /// Its device cannot be opened.
    #[error("cannot open {DEVICE_PATH}")]
    Open {
        /// Why not.
        source: io::Error,
    },
    /// It does not say who it is.
    #[error("{DEVICE_PATH} does not answer as the kernel part does")]
    Info {
        /// What it answers.
        source: io::Error,
    },
    /// It was built for another version of the interface.
    #[error(
        "the kernel part speaks version {found} of the interface, this program version {ABI_VERSION}: install the same release of both"
    )]
    Version {
        /// The kernel part's.
        found: u32,
    },
    /// The bundle has no signature.
    #[error("the bundle is not signed: build it with `preverify build --key KEY`")]
    Unsigned,
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It took a target that is not there.
    #[error(
        "the kernel part chose target {number}, but the bundle has {count}: install the same release of kernel part and preverify-load"
    )]
    Target {
        /// Its choice.
        number: usize,
        /// Number of targets.
        count: usize,
    },
    /// There is no such program.
    #[error("there is no program {number}: the target has {count}")]
    NoProgram {
        /// The index that was asked for.
        number: usize,
        /// Number of programs.
        count: usize,
    },
    /// A program's map is not in the set of maps.
    #[error("program {program} needs map {map}, which was not created: select the program first")]
    NoMap {
        /// The program.
        program: String,
        /// The map.
        map: String,
    },
    /// The bundle cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_errno_and_why() {
        let mut reason = [0; REASON_SIZE];
        reason[..10].copy_from_slice(b"wrong map\n");
        reason[9] = 0;
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        let refusal = Refusal::new(Some("f"), &error, &reason);
        assert_eq!(
            refusal.to_string(),
            "the kernel part refused program f: EINVAL: wrong map"
        );
        let refusal = Refusal::new(None, &error, &[0; REASON_SIZE]);
        assert_eq!(
            refusal.to_string(),
            "the kernel part refused the bundle: EINVAL"
        );
        let refusal = Refusal::new(None, &error, &[b'x'; REASON_SIZE]);
        assert_eq!(refusal.reason.len(), REASON_SIZE);
    }
}
