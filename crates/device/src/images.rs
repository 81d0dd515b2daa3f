//! Which of a program's images is loaded.

use std::fmt;

use preverify_abi::image::{IMAGE_BYTECODE, IMAGE_NATIVE};
use preverify_abi::ioctl::{OPEN_BYTECODE, OPEN_NATIVE};
use preverify_bundle::{Image, Program};

/// What a program is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Machine code that was made and proved off the device.
    Native,
    /// Verified bytecode, which the device's own JIT compiles.
    Bytecode,
}

impl ImageKind {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Native => IMAGE_NATIVE,
            Self::Bytecode => IMAGE_BYTECODE,
        }
    }

    fn of(self, program: &Program) -> Option<Image> {
        match self {
            Self::Native => program.native,
            Self::Bytecode => program.bytecode,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Native => Self::Bytecode,
            Self::Bytecode => Self::Native,
        }
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Bytecode => "bytecode",
        })
    }
}

/// Which images are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageChoice {
    /// Of each program the native image, if it is there and fits this machine; else bytecode.
    #[default]
    Best,
    /// Native images alone.
    Native,
    /// Bytecode alone.
    Bytecode,
}

/// Which images of a bundle fit this machine, as the kernel part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Native images do.
    pub native: bool,
    /// Bytecode does.
    pub bytecode: bool,
    /// Why native images do not, if only they do not: the kernel part's sentence.
    pub reason: String,
}

impl Fit {
    pub(crate) fn new(bits: u32, reason: String) -> Self {
        Self {
            native: bits & OPEN_NATIVE != 0,
            bytecode: bits & OPEN_BYTECODE != 0,
            reason,
        }
    }

    fn has(&self, kind: ImageKind) -> bool {
        match kind {
            ImageKind::Native => self.native,
            ImageKind::Bytecode => self.bytecode,
        }
    }

    fn why_not(&self, kind: ImageKind) -> String {
        match kind {
            ImageKind::Native if !self.reason.is_empty() => self.reason.clone(),
            _ => format!("the kernel part takes no {kind} images here"),
        }
    }
}

/// The image that a program is loaded from.
pub(crate) fn choose(
    program: &Program,
    choice: ImageChoice,
    fit: &Fit,
) -> Result<(ImageKind, Image), ImageError> {
    let wanted: &[_] = match choice {
        ImageChoice::Best => &[ImageKind::Native, ImageKind::Bytecode],
        ImageChoice::Native => &[ImageKind::Native],
        ImageChoice::Bytecode => &[ImageKind::Bytecode],
    };
    let there = wanted
        .iter()
        .filter_map(|&kind| Some((kind, kind.of(program)?)));
    if let Some(chosen) = there.clone().find(|&(kind, _)| fit.has(kind)) {
        return Ok(chosen);
    }
    // What a program has is told by name, so that it is clear what a new bundle has to have.
    Err(match there.clone().next() {
        Some((kind, _)) => ImageError::Unfit {
            program: program.function.clone(),
            kind,
            reason: fit.why_not(kind),
            other: Other::of(program, kind.other(), fit),
        },
        None => ImageError::Missing {
            program: program.function.clone(),
            wanted: wanted[0],
            other: wanted[0].other(),
        },
    })
}

/// What is to be said of a program's other image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It is not there.
    Missing,
    /// It does not fit either.
    Unfit,
    /// It would fit, but was not wanted.
    Fits(ImageKind),
}

impl Other {
    fn of(program: &Program, kind: ImageKind, fit: &Fit) -> Self {
        match (kind.of(program), fit.has(kind)) {
            (None, _) => Self::Missing,
            (Some(_), false) => Self::Unfit,
            (Some(_), true) => Self::Fits(kind),
        }
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it has no other image"),
            Self::Unfit => f.write_str("its other image does not fit either"),
            Self::Fits(kind) => write!(f, "its {kind} image fits"),
        }
    }
}

/// Why there is nothing to load a program from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It has an image of the wanted kind, which does not fit.
    #[error("the {kind} image of program {program} does not fit this machine: {reason}; {other}")]
    Unfit {
        /// The program.
        program: String,
        /// The image.
        kind: ImageKind,
        /// Why not.
        reason: String,
        /// The other one.
        other: Other,
    },
    /// It has only an image that is not wanted.
    #[error("program {program} has no {wanted} image, only {other}")]
    Missing {
        /// The program.
        program: String,
        /// What is not there.
        wanted: ImageKind,
        /// What is there.
        other: ImageKind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{images, program};

    const NATIVE: ImageKind = ImageKind::Native;
    const BYTECODE: ImageKind = ImageKind::Bytecode;

    fn chosen(has: &[ImageKind], choice: ImageChoice, fit: u32) -> Result<ImageKind, String> {
        let mut program = program("f", &[]);
        let [native, bytecode] = images();
        program.native = has.contains(&NATIVE).then_some(native);
        program.bytecode = has.contains(&BYTECODE).then_some(bytecode);
        let reason = match fit & OPEN_NATIVE {
            0 => "the machine has no BMI2",
            _ => "",
        };
        choose(&program, choice, &Fit::new(fit, reason.to_owned()))
            .map(|(kind, image)| {
                assert_eq!(Some(image), kind.of(&program));
                kind
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn native_is_preferred_where_it_fits() {
        let both = [NATIVE, BYTECODE];
        let all = OPEN_NATIVE | OPEN_BYTECODE;
        assert_eq!(chosen(&both, ImageChoice::Best, all), Ok(NATIVE));
        assert_eq!(chosen(&both, ImageChoice::Bytecode, all), Ok(BYTECODE));
        assert_eq!(
            chosen(&both, ImageChoice::Best, OPEN_BYTECODE),
            Ok(BYTECODE)
        );
        assert_eq!(chosen(&[BYTECODE], ImageChoice::Best, all), Ok(BYTECODE));
        assert_eq!(chosen(&[NATIVE], ImageChoice::Native, all), Ok(NATIVE));
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_told() {
        for (has, choice, fit, expected) in [
            (
                &[NATIVE][..],
                ImageChoice::Best,
                OPEN_BYTECODE,
                "the native image of program f does not fit this machine: the machine has no BMI2; it has no other image",
            ),
            (
                &[NATIVE, BYTECODE],
                ImageChoice::Native,
                OPEN_BYTECODE,
                "the native image of program f does not fit this machine: the machine has no BMI2; its bytecode image fits",
            ),
            (
                &[BYTECODE],
                ImageChoice::Native,
                OPEN_BYTECODE,
                "program f has no native image, only bytecode",
            ),
            (
                &[NATIVE],
                ImageChoice::Bytecode,
                OPEN_NATIVE | OPEN_BYTECODE,
                "program f has no bytecode image, only native",
            ),
            (
                &[NATIVE, BYTECODE],
                ImageChoice::Best,
                0,
                "the native image of program f does not fit this machine: the machine has no BMI2; its other image does not fit either",
            ),
            (
                &[BYTECODE],
                ImageChoice::Best,
                OPEN_NATIVE,
                "the bytecode image of program f does not fit this machine: the kernel part takes no bytecode images here; it has no other image",
            ),
        ] {
            assert_eq!(chosen(has, choice, fit).unwrap_err(), expected);
        }
    }
}
