//! `preverify verify`: whether a bundle is whole, and signed by someone trusted.

use std::io;
use std::path::PathBuf;

use preverify_bundle::{
    Bundle, Certificate, CertificateError, RaisedLimits, ReadError, VerifyError,
};
use preverify_report::{ImageProblem, images};

use crate::output::{self, GOOD};

/// Check a bundle: its signature, the digests of all sections, and all that its images say
#[derive(clap::Args)]
#[command(after_help = "\
Exits with 0 if a trusted key signed the bundle and everything in it is sound, else with 1.

Examples:
  preverify verify xdp.pvb --trust signer.x509
  preverify verify xdp.pvb --trust ours.x509 --trust theirs.pem --stock-limits

This is what a device checks, but for what only the device knows: whether its kernel and its machine are those that \
the bundle was built for.")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// A certificate whose signatures count (DER, or PEM with one or several); can be given again
    #[arg(long, value_name = "CERTIFICATE", required = true)]
    trust: Vec<PathBuf>,
    /// Refuse programs that were verified with raised limits (`preverify build --limits`)
    #[arg(long)]
    stock_limits: bool,
}

/// Why a bundle is not to be loaded.
#[derive(Debug, thiserror::Error)]
pub enum VerifyCommandError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The bundle cannot be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The signature does not hold.
    #[error("{} is not to be trusted", path.display())]
    Signature { path: PathBuf, source: VerifyError },
    /// A program was verified with raised limits.
    #[error("{}: {source}", path.display())]
    Limits { path: PathBuf, source: RaisedLimits },
    /// An image does not hold.
    #[error("{} is not sound", path.display())]
    Image { path: PathBuf, source: ImageProblem },
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// Checks a bundle.
pub fn run(args: &Args) -> Result<(), VerifyCommandError> {
    let trusted = trusted(&args.trust)?;
    // Reading checks the form of everything and the digests of all sections.
    let bundle = Bundle::open(&args.bundle)?;
    let path = &args.bundle;
    let signed = bundle
        .verify(&trusted)
        .map_err(|source| VerifyCommandError::Signature {
            path: path.clone(),
            source,
        })?;
    if args.stock_limits {
        let programs = bundle
            .manifest()
            .targets
            .iter()
            .flat_map(|target| &target.programs);
        for program in programs {
            program
                .demand_stock_limits()
                .map_err(|source| VerifyCommandError::Limits {
                    path: path.clone(),
                    source,
                })?;
        }
    }
    let images = check_images(&bundle).map_err(|source| VerifyCommandError::Image {
        path: path.clone(),
        source,
    })?;
    let sections = bundle.manifest().sections.len();
    output::print(|out| {
        for signer in &signed.by {
            writeln!(out, "{}: {GOOD}signed{GOOD:#} by {signer}", path.display())?;
        }
        writeln!(
            out,
            "{}: {sections} sections, {images} images: {GOOD}sound{GOOD:#}",
            path.display()
        )
    })
    .map_err(VerifyCommandError::Output)
}

/// The certificates of several files.
pub fn trusted(files: &[PathBuf]) -> Result<Vec<Certificate>, CertificateError> {
    let certificates: Result<Vec<_>, _> =
        files.iter().map(|file| Certificate::open(file)).collect();
    Ok(certificates?.concat())
}

/// Returns their number.
fn check_images(bundle: &Bundle) -> Result<usize, ImageProblem> {
    let mut count = 0;
    for target in &bundle.manifest().targets {
        for program in &target.programs {
            for (kind, sections) in images::of(program) {
                images::parse(bundle, target, program, kind, sections)?;
                count += 1;
            }
        }
    }
    Ok(count)
}
