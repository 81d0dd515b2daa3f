//! The kernel part's device: who answers, opening a bundle, loading its programs.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use preverify_abi::ABI_VERSION;
use preverify_abi::ioctl::{DEVICE_PATH, Info, Load, Open, REASON_SIZE};
use preverify_abi::kinds::Architecture;
use preverify_bundle::{Image, Manifest, Program, ReadError, Reader, SectionId, Target};
use zerocopy::FromZeros;

use crate::hex::hexadecimal;
use crate::images::{self, Fit, ImageChoice, ImageError, ImageKind};
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
        .map_err(|error| {
            let refusal = Refusal::new(None, &error, &argument.reason);
            self.explain(refusal, reader.manifest())
        })?;
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
            fit: Fit::new(argument.fit, sentence(&argument.reason)),
            choice: ImageChoice::default(),
        })
    }

    /// A bundle for other kernels says for which: that tells a wrong board from an update that was forgotten.
    fn explain(&self, refusal: Refusal, manifest: &Manifest) -> DeviceError {
        let ours = self.info.build_id();
        let knows_us = manifest
            .targets
            .iter()
            .any(|target| target.build_id == ours);
        if refusal.errno != libc::ENOEXEC || knows_us {
            return refusal.into();
        }
        let arch = self.info.fingerprint.arch.get();
        let theirs = manifest.targets.iter();
        DeviceError::OtherKernel {
            refusal,
            running: kernel(&running_release(), arch, ours),
            built_for: theirs
                .map(|target| {
                    let arch = target.fingerprint.arch.get();
                    kernel(&target.release, arch, &target.build_id)
                })
                .collect::<Vec<_>>()
                .join("; "),
        }
    }
}

/// The running kernel's release.
pub fn running_release() -> String {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim_end().to_owned(),
        Err(_) => "of an unknown release".to_owned(),
    }
}

/// A kernel for people: the start of a build id tells rebuilds of a release apart.
fn kernel(release: &str, arch: u32, build_id: &[u8]) -> String {
    let build_id = hexadecimal(&build_id[..build_id.len().min(6)]);
    format!("{release} ({}, build {build_id})", Architecture(arch))
}

/// A bundle whose signature was checked.
#[derive(Debug)]
pub struct OpenBundle<'r, R> {
    descriptor: OwnedFd,
    reader: &'r mut Reader<R>,
    number: usize,
    target: Target,
    fit: Fit,
    choice: ImageChoice,
}

impl<R: Read + Seek> OpenBundle<'_, R> {
    /// The target that fits this machine. Programs and maps are known by their indices in it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Which images fit this machine.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Says which images programs are loaded from: the best that fit, if nothing is said.
    pub fn choose_images(&mut self, choice: ImageChoice) {
        self.choice = choice;
    }

    /// What a program will be loaded from.
    pub fn image_kind(&self, program: usize) -> Result<ImageKind, DeviceError> {
        let (kind, _) = self.chosen(program)?;
        Ok(kind)
    }

    /// Creates the selected maps.
    pub fn create_maps(&mut self, selection: &Selection) -> Result<MapSet, MapError> {
        MapSet::create(&self.target, selection, &mut |section| {
            self.reader.section(section)
        })
    }

    /// Reads what [`OpenBundle::load_image`] takes for a program.
    pub fn image(&mut self, program: usize) -> Result<ProgramImage, DeviceError> {
        let function = self.program(program)?.function.clone();
        let (kind, Image { image, symbols }) = self.chosen(program)?;
        let number = self
            .reader
            .manifest()
            .program_number(self.number, program)
            .expect("the program was just looked up");
        Ok(ProgramImage {
            number,
            function,
            kind,
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
        argument.kind = image.kind.number();
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

    fn chosen(&self, program: usize) -> Result<(ImageKind, Image), DeviceError> {
        Ok(images::choose(
            self.program(program)?,
            self.choice,
            &self.fit,
        )?)
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
    kind: ImageKind,
    image: Vec<u8>,
    symbols: Vec<u8>,
}

impl ProgramImage {
    /// What the program is loaded from.
    pub fn kind(&self) -> ImageKind {
        self.kind
    }

    /// Bytes of the image and of its symbols.
    pub fn size(&self) -> usize {
        self.image.len() + self.symbols.len()
    }
}

/// The kernel part's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel part refused {}: {}{}", what(.program.as_deref()), errno_name(*.errno), behind_colon(.reason))]
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
        Self {
            program: program.map(ToOwned::to_owned),
            errno: error.raw_os_error().unwrap_or(0),
            reason: sentence(reason),
        }
    }
}

/// What the kernel part has written, up to the first zero.
fn sentence(reason: &[u8; REASON_SIZE]) -> String {
    let end = reason.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&reason[..end.unwrap_or(REASON_SIZE)]).into_owned()
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

fn behind_colon(reason: &str) -> String {
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
    /// The bundle is for other kernels.
    #[error("{refusal}; the bundle is for {built_for}, here runs {running}")]
    OtherKernel {
        /// The kernel part's no.
        refusal: Refusal,
        /// What the bundle is for.
        built_for: String,
        /// What is here.
        running: String,
    },
    /// A program has no image that is wanted and fits.
    #[error(transparent)]
    Image(#[from] ImageError),
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

impl DeviceError {
    /// The kernel part's no, if that is it.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::OtherKernel { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use preverify_abi::manifest::{ARCH_ARM64, ARCH_X86_64};

    use super::*;
    use crate::testing::target;

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

    #[test]
    fn a_bundle_for_other_kernels_says_for_which() {
        let mut info = Info::new_zeroed();
        info.build_id_size = 20;
        info.build_id[..20].copy_from_slice(&[0xab; 20]);
        info.fingerprint.arch = ARCH_ARM64.into();
        let device = Device {
            descriptor: File::open("/dev/null").unwrap().into(),
            info,
        };
        let mut board = target(Vec::new(), Vec::new());
        board.fingerprint.arch = ARCH_X86_64.into();
        let mut manifest = Manifest {
            targets: vec![board],
            sections: Vec::new(),
        };
        let refusal = |errno| Refusal {
            program: None,
            errno,
            reason: "another build".to_owned(),
        };
        let error = device.explain(refusal(libc::ENOEXEC), &manifest);
        let running = running_release();
        assert_eq!(
            error.to_string(),
            format!(
                "the kernel part refused the bundle: ENOEXEC: another build; the bundle is for 6.12 (x86_64, \
                 build 010101010101), here runs {running} (arm64, build abababababab)"
            )
        );
        assert!(error.refusal().is_some());

        let error = device.explain(refusal(libc::EKEYREJECTED), &manifest);
        assert!(matches!(error, DeviceError::Refused(_)), "{error}");
        manifest.targets[0].build_id = vec![0xab; 20];
        let error = device.explain(refusal(libc::ENOEXEC), &manifest);
        assert!(matches!(error, DeviceError::Refused(_)), "{error}");
    }
}
