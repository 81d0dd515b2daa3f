//! `preverify key`: who signs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use preverify_bundle::{Algorithm, Certificate, CertificateError, Signer, SignerError};
use sha2::{Digest, Sha256};

use crate::output::{self, STRONG};
use crate::signer::{self, OpenSignerError};

/// How long a certificate is valid if nothing else is said.
pub const USUAL_DAYS: u32 = 3650;

/// Make and show signing keys
#[derive(clap::Subcommand)]
pub enum Command {
    Generate(Generate),
    Show(Show),
}

/// Make a signing key and its certificate
#[derive(clap::Args)]
#[command(after_help = "\
Two files are written: FILE, which signs and which only you can read; and beside it the certificate, with `.x509` \
for `.pem`, which devices get. `preverify build --key FILE` signs with it.

Examples:
  preverify key generate --out signer.pem
  preverify key generate --out board.pem --subject 'Boards of ACME' --algorithm ecdsa-p256

Keys of openssl work as well, if FILE holds the private key (PKCS #8) and a certificate with a subject key identifier:
  openssl req -x509 -nodes -newkey rsa:2048 -subj '/CN=me' -keyout key.pem -out crt.pem
  cat key.pem crt.pem > signer.pem")]
pub struct Generate {
    /// Where the signer goes; a file that exists is never overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// rsa-2048, which every kernel can check quickly, or ecdsa-p256, which needs CONFIG_CRYPTO_ECDSA
    #[arg(long, default_value = Algorithm::default().name(), value_parser = algorithms())]
    algorithm: Algorithm,
    /// What the certificate calls the signer
    #[arg(long, value_name = "NAME", default_value = "preverify signer")]
    subject: String,
    /// How long the certificate is valid; devices, whose clocks may be wrong, do not look at it
    #[arg(long, default_value_t = USUAL_DAYS, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
}

/// Show the certificates of a signer, or in a file
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  preverify key show signer.pem
  preverify key show \\
      'pkcs11:token=signing;object=preverify?module-path=/usr/lib/softhsm/libsofthsm2.so'

The second is a key in a PKCS #11 token (a hardware security module, a smart card, SoftHSM), which it never leaves: RSA \
with 2048, 3072 or 4096 bits, or ECDSA on the curve P-256. It signs something to show that it can. Its URI is that of \
RFC 7512, in quotes since shells take `;` and `&` for themselves. Before `?` is what the key is called, as far as that \
is needed to find one key only:

token, serial, manufacturer, model, slot-id: of the token
object, id: of the private key (CKA_LABEL, and CKA_ID as in id=%01%a2)

After `?`, with `&` between them:

module-path: the shared library that came with the token; it is loaded, so it must be one to trust
pin-source: a file with the PIN. Without it, PREVERIFY_PKCS11_PIN in the environment is taken
pin-value: the PIN, for all to see in the list of processes

The certificate is taken from the token, where it has the CKA_ID of the key, or from the file that --certificate of \
build, serve and worker names.")]
pub struct Show {
    /// A file as `preverify key generate` or openssl makes it (PEM or DER), or the URI of a key in a token
    #[arg(value_name = "FILE|URI")]
    signer: PathBuf,
}

/// Why a key could not be made or shown.
#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    /// The two files would be one.
    #[error(
        "expected a file that does not end in `.x509`, the certificate's: name it `signer.pem`"
    )]
    Name,
    /// A file exists.
    #[error("{} exists, and a key is never overwritten: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The key cannot be made.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The key in a token cannot be used.
    #[error(transparent)]
    Open(#[from] OpenSignerError),
    /// The file holds nothing to show.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// Makes or shows keys.
pub fn run(command: &Command) -> Result<(), KeyCommandError> {
    match command {
        Command::Generate(args) => generate(args),
        Command::Show(args) => show(&args.signer),
    }
}

fn generate(args: &Generate) -> Result<(), KeyCommandError> {
    let (signer, certificate_path) = make(&args.out, args.algorithm, &args.subject, args.days)?;
    let certificate = signer.certificate();
    output::print(|out| {
        writeln!(out, "{certificate}")?;
        writeln!(
            out,
            "{}: signs; keep it where only the signer reads it",
            args.out.display()
        )?;
        writeln!(
            out,
            "{}: the certificate, for devices",
            certificate_path.display()
        )
    })
    .map_err(KeyCommandError::Output)
}

/// Makes a key and its certificate, and writes them: the signer's file, and beside it the certificate's, whose path comes
/// back.
pub fn make(
    out: &Path,
    algorithm: Algorithm,
    subject: &str,
    days: u32,
) -> Result<(Signer, PathBuf), KeyCommandError> {
    let certificate_path = out.with_extension("x509");
    if certificate_path == out {
        return Err(KeyCommandError::Name);
    }
    let validity = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    let signer = Signer::generate(algorithm, subject, validity)?;
    // The certificate first: without the key it is worth nothing, so nothing is lost if the key
    // cannot be written.
    write_new(&certificate_path, 0o644, signer.certificate().to_der())?;
    if let Err(error) = write_new(out, 0o600, signer.to_pem()?.as_bytes()) {
        // The error that is reported is the first.
        drop(fs::remove_file(&certificate_path));
        return Err(error);
    }
    Ok((signer, certificate_path))
}

/// Writes a file that did not exist: whole, or not at all.
fn write_new(path: &Path, mode: u32, contents: &[u8]) -> Result<(), KeyCommandError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyCommandError::Exists(path.to_owned()),
        _ => KeyCommandError::Write {
            path: path.to_owned(),
            source,
        },
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .map_err(|source| {
            drop(fs::remove_file(path));
            failed(source)
        })
}

fn show(signer: &Path) -> Result<(), KeyCommandError> {
    let certificates = match signer::uri(signer) {
        Some(_) => vec![signer::open(signer, None)?.certificate().clone()],
        None => Certificate::open(signer)?,
    };
    output::print(|out| {
        for certificate in &certificates {
            let (not_before, not_after) = certificate.validity();
            writeln!(out, "{STRONG}{}{STRONG:#}", certificate.subject())?;
            writeln!(out, "  key       {}", certificate.key_kind())?;
            writeln!(out, "  key id    {}", certificate.key_id())?;
            writeln!(out, "  valid     {not_before} to {not_after}")?;
            writeln!(
                out,
                "  sha256    {}",
                hex::encode(Sha256::digest(certificate.to_der()))
            )?;
        }
        Ok(())
    })
    .map_err(KeyCommandError::Output)
}

fn algorithms() -> impl clap::builder::TypedValueParser<Value = Algorithm> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};

    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::name))
        .try_map(|name| name.parse::<Algorithm>())
}
