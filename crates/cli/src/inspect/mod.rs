//! `preverify inspect`: what is in a bundle.

mod disassembly;
mod inputs;
mod text;
mod words;

use std::io;
use std::path::PathBuf;

use preverify_bundle::{Bundle, CertificateError, ReadError, VerifyError};
use preverify_pipeline::ImageKind;
use preverify_report::{Code, ImageProblem, Report};

use crate::{output, verify};

/// Show a bundle: targets, programs, maps, relocations, evidence, signature, sections, code
#[derive(clap::Args)]
#[command(after_help = "\
Without --trust, nothing is said about the signature but which key it names: anyone can write that.

Examples:
  preverify inspect xdp.pvb --trust signer.x509
  preverify inspect xdp.pvb --disassemble
  preverify inspect xdp.pvb --disassemble=count_packets --image bytecode
  preverify inspect xdp.pvb --json | jq '.targets[].programs[].native.code_bytes'")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// A certificate to check the signature with (DER or PEM); can be given again
    #[arg(long, value_name = "CERTIFICATE")]
    trust: Vec<PathBuf>,
    /// Everything, as JSON
    #[arg(long, conflicts_with = "disassemble")]
    json: bool,
    /// The code of all programs, or of one, instead of the overview
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, require_equals = true)]
    disassemble: Option<Option<String>>,
    /// Which code to disassemble [default: machine code, or bytecode where that is missing]
    #[arg(long, value_name = "KIND", requires = "disassemble")]
    image: Option<Kind>,
}

/// The kinds of images, as `preverify-load` calls them.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Machine code
    Native,
    /// Verified bytecode
    Bytecode,
}

impl From<Kind> for ImageKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Native => Self::Native,
            Kind::Bytecode => Self::Bytecode,
        }
    }
}

/// Why a bundle cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectCommandError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The bundle cannot be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was shown, but nobody trusted signed it.
    #[error("{} is not to be trusted", path.display())]
    Signature { path: PathBuf, source: VerifyError },
    /// An image cannot be shown.
    #[error("{} is not sound", path.display())]
    Image { path: PathBuf, source: ImageProblem },
    /// There is no such program.
    #[error("{}: expected one of the programs {}, found {name:?}", path.display(), programs.join(", "))]
    Program {
        path: PathBuf,
        name: String,
        programs: Vec<String>,
    },
    /// No program has such an image.
    #[error("{}: expected a program with {kind}, found none", path.display())]
    NoImage { path: PathBuf, kind: ImageKind },
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// Shows a bundle. One whose signature was to be checked and does not hold is shown too, but the
/// command fails.
pub fn run(args: &Args) -> Result<(), InspectCommandError> {
    let trusted = verify::trusted(&args.trust)?;
    let bundle = Bundle::open(&args.bundle)?;
    let path = || args.bundle.clone();
    let signature = match trusted.is_empty() {
        true => None,
        false => Some(bundle.verify(&trusted)),
    };
    let image_problem = |source| InspectCommandError::Image {
        path: path(),
        source,
    };
    if let Some(name) = &args.disassemble {
        let programs = preverify_report::programs(&bundle, name.as_deref());
        if let (true, Some(name)) = (programs.is_empty(), name) {
            return Err(InspectCommandError::Program {
                path: path(),
                name: name.clone(),
                programs: preverify_report::names(&bundle),
            });
        }
        let kind = args.image.map(ImageKind::from);
        let code = Code::of(&bundle, &programs, kind).map_err(image_problem)?;
        if let (true, Some(kind)) = (code.is_empty(), kind) {
            return Err(InspectCommandError::NoImage { path: path(), kind });
        }
        output::print(|out| disassembly::write(&code, out)).map_err(InspectCommandError::Output)?;
    } else {
        let file = args.bundle.display().to_string();
        let report = Report::new(file, &bundle, signature.as_ref()).map_err(image_problem)?;
        output::print(|out| match args.json {
            true => report.write_json(out),
            false => text::write(&report, out),
        })
        .map_err(InspectCommandError::Output)?;
    }
    match signature {
        Some(Err(source)) => Err(InspectCommandError::Signature {
            path: path(),
            source,
        }),
        _ => Ok(()),
    }
}
