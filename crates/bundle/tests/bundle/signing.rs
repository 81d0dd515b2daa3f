//! Signatures against openssl's: what one signs the other accepts, and nothing else is accepted.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::rich_bundle;
use preverify_bundle::{
    Algorithm, Bundle, Certificate, CertificateError, CmsError, KeyError, Signer, SignerError,
    VerifyError,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86400);

#[test]
fn what_is_signed_is_verified() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::generate(algorithm, "someone", DAY).unwrap();
        let bundle = signed_by(&signer);
        let trusted = [
            other_signer().certificate().clone(),
            signer.certificate().clone(),
        ];
        let signed = bundle.verify(&trusted).unwrap();
        assert_eq!(signed.by, [signer.certificate()]);
        assert_eq!(signed.unknown, []);
        assert_eq!(
            bundle.claimed_signers().unwrap(),
            [signer.certificate().key_id().clone()]
        );

        let read = Bundle::read(&bundle.to_bytes()).unwrap();
        assert_eq!(read.verify(&trusted).unwrap().by.len(), 1);
        assert_eq!(
            signed_by(&signer),
            bundle,
            "signatures are the same each time"
        );
    }
}

#[test]
fn signers_survive_their_files() {
    let folder = Folder::new();
    for algorithm in Algorithm::ALL {
        let signer = Signer::generate(algorithm, "someone, with: odd=characters", DAY).unwrap();
        let path = folder.write("signer.pem", &*signer.to_pem().unwrap());
        let read = Signer::open(&path).unwrap();
        assert_eq!(read.certificate(), signer.certificate());
        assert_eq!(signed_by(&read), signed_by(&signer));

        assert_eq!(
            Certificate::open(&path).unwrap(),
            [signer.certificate().clone()]
        );
        let der = folder.write("signer.x509", signer.certificate().to_der());
        assert_eq!(
            Certificate::open(&der).unwrap(),
            [signer.certificate().clone()]
        );
    }
}

/// openssl reads our key, and makes the very same signature with it where the algorithm is
/// deterministic.
#[test]
fn openssl_makes_the_same_signature() {
    let folder = Folder::new();
    let signer = rsa_signer(&folder);
    let bundle = signed_by(&signer);
    let signature = openssl_sign(&folder, &bundle, &folder.path("rsa.pem"));
    assert_eq!(bundle.signature(), Some(&signature[..]));
}

#[test]
fn openssl_accepts_what_we_sign() {
    let folder = Folder::new();
    for algorithm in Algorithm::ALL {
        let signer = Signer::generate(algorithm, "someone", DAY).unwrap();
        let bundle = signed_by(&signer);
        let certificate = folder.write("signer.crt", signer.certificate().to_pem());
        let manifest = folder.write("manifest", bundle.manifest_bytes());
        let signature = folder.write("signature", bundle.signature().unwrap());
        let verify = |manifest: &Path| {
            Command::new("openssl")
                .args([
                    "cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any",
                ])
                .arg("-in")
                .arg(&signature)
                .arg("-content")
                .arg(manifest)
                .arg("-certfile")
                .arg(&certificate)
                .arg("-CAfile")
                .arg(&certificate)
                .arg("-out")
                .arg("/dev/null")
                .output()
                .unwrap()
        };
        let output = verify(&manifest);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!verify(&certificate).status.success(), "another manifest");
    }
}

#[test]
fn what_openssl_signs_is_verified() {
    let folder = Folder::new();
    for kind in ["rsa:2048", "rsa:4096", "ec"] {
        let signer = openssl_signer(&folder, kind);
        let mut bundle = rich_bundle();
        bundle.set_signature(Some(openssl_sign(&folder, &bundle, &signer)));
        let trusted = Certificate::open(&signer).unwrap();
        assert_eq!(bundle.verify(&trusted).unwrap().by, [&trusted[0]], "{kind}");

        // And the key can sign here.
        bundle.sign(&Signer::open(&signer).unwrap()).unwrap();
        bundle.verify(&trusted).unwrap();
    }
}

#[test]
fn openssl_can_co_sign() {
    let folder = Folder::new();
    let [one, other] = ["rsa:2048", "ec"].map(|kind| openssl_signer(&folder, kind));
    let mut bundle = rich_bundle();
    let mut sign = openssl_signing(&folder, &bundle, &one);
    sign.arg("-signer").arg(&other);
    bundle.set_signature(Some(output_of(&mut sign)));

    let [one, other] = [one, other].map(|path| Certificate::open(&path).unwrap().remove(0));
    let trusted = [one.clone(), other.clone()];
    assert_eq!(bundle.verify(&trusted).unwrap().by.len(), 2);
    let trusted = [other];
    let signed = bundle.verify(&trusted).unwrap();
    assert_eq!(signed.by, [&trusted[0]]);
    assert_eq!(signed.unknown, [one.key_id().clone()]);
}

#[test]
fn other_forms_of_signatures_are_refused_by_name() {
    let folder = Folder::new();
    let signer = openssl_signer(&folder, "rsa:2048");
    let trusted = Certificate::open(&signer).unwrap();
    let mut bundle = rich_bundle();
    let manifest = folder.write("manifest", bundle.manifest_bytes());
    let mut refusal = |options: &[&str]| {
        let mut sign = Command::new("openssl");
        sign.args(["cms", "-sign", "-binary", "-outform", "DER", "-in"])
            .arg(&manifest)
            .arg("-signer")
            .arg(&signer)
            .args(options);
        bundle.set_signature(Some(output_of(&mut sign)));
        match bundle.verify(&trusted) {
            Err(VerifyError::Form(error)) => error.to_string(),
            other => panic!("{options:?}: {other:?}"),
        }
    };
    let cases: [(&[&str], &str); 5] = [
        (
            &["-noattr", "-nocerts", "-keyid", "-md", "sha512"],
            "digest algorithms",
        ),
        (&["-noattr", "-keyid", "-md", "sha256"], "certificates"),
        (
            &["-nocerts", "-keyid", "-md", "sha256"],
            "signer's attributes",
        ),
        (
            &[
                "-noattr",
                "-nocerts",
                "-keyid",
                "-nodetach",
                "-md",
                "sha256",
            ],
            "signed content",
        ),
        (&["-noattr", "-nocerts", "-md", "sha256"], "version"),
    ];
    for (options, place) in cases {
        let message = refusal(options);
        assert!(message.starts_with(place), "{options:?}: {message}");
    }
    // Nothing but the form was wrong.
    bundle.set_signature(Some(openssl_sign(&folder, &bundle, &signer)));
    bundle.verify(&trusted).unwrap();
}

/// Every bit of signature and manifest counts.
#[test]
fn every_flipped_bit_is_refused() {
    let signer = other_signer();
    let trusted = [signer.certificate().clone()];
    let bundle = signed_by(&signer);
    let signature = bundle.signature().unwrap();
    for bit in 0..signature.len() * 8 {
        let mut damaged = signature.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut bundle = bundle.clone();
        bundle.set_signature(Some(damaged));
        assert!(bundle.verify(&trusted).is_err(), "bit {bit}");
    }
    let bytes = bundle.to_bytes();
    for byte in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1 << (byte % 8);
        let refused = Bundle::read(&damaged).map_or(true, |read| read.verify(&trusted).is_err());
        assert!(refused, "byte {byte}");
    }
    for size in 0..signature.len() {
        let mut bundle = bundle.clone();
        bundle.set_signature(Some(signature[..size].to_vec()));
        assert!(bundle.verify(&trusted).is_err(), "{size} bytes");
    }
}

#[test]
fn every_flipped_bit_of_an_rsa_signature_is_refused() {
    let folder = Folder::new();
    let signer = rsa_signer(&folder);
    let trusted = [signer.certificate().clone()];
    let bundle = signed_by(&signer);
    let signature = bundle.signature().unwrap();
    for bit in 0..signature.len() * 8 {
        let mut damaged = signature.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut bundle = bundle.clone();
        bundle.set_signature(Some(damaged));
        assert!(bundle.verify(&trusted).is_err(), "bit {bit}");
    }
}

#[test]
fn refusals_say_who_signed() {
    let [signer, other] = [other_signer(), other_signer()];
    let mut bundle = rich_bundle();
    let trusted = [other.certificate().clone()];
    assert_eq!(bundle.verify(&trusted), Err(VerifyError::Unsigned));
    bundle.sign(&signer).unwrap();
    assert_eq!(
        bundle.verify(&trusted).unwrap_err().to_string(),
        format!(
            "expected a signature by key {}, found one by {}: nobody trusted signed",
            other.certificate().key_id(),
            signer.certificate().key_id()
        )
    );

    // Another manifest under the same signature.
    let signature = bundle.signature().unwrap().to_vec();
    let mut another = crate::common::bundle_of(&[b"first", b"second", b"third"]);
    another.set_signature(Some(signature));
    let trusted = [signer.certificate().clone()];
    let error = another.verify(&trusted).unwrap_err();
    assert!(matches!(&error, VerifyError::Wrong { subject, .. } if subject == "CN=other"));

    bundle.set_signature(Some(b"nonsense".to_vec()));
    let error = bundle.verify(&trusted).unwrap_err();
    assert!(matches!(error, VerifyError::Form(CmsError::Malformed(_))));
}

#[test]
fn files_that_cannot_sign_are_refused_by_name() {
    let folder = Folder::new();
    let signer = other_signer();
    let pem = signer.to_pem().unwrap();
    let certificate = signer.certificate().to_pem();
    let key = &pem[..pem.len() - certificate.len()];
    let refusal = |text: &str| Signer::from_pem(text).unwrap_err();

    assert!(matches!(
        refusal(certificate),
        SignerError::Key(KeyError::Missing)
    ));
    assert!(matches!(
        refusal(key),
        SignerError::Certificate(CertificateError::Missing)
    ));
    assert!(matches!(
        refusal(&format!("{key}{key}{certificate}")),
        SignerError::Key(KeyError::Several(2))
    ));
    let stranger = other_signer();
    let stranger = stranger.certificate().to_pem();
    assert!(matches!(
        refusal(&format!("{key}{stranger}")),
        SignerError::OtherCertificate
    ));
    // The right one is found among several.
    Signer::from_pem(&format!("{key}{stranger}{certificate}")).unwrap();
    Signer::open_apart(&folder.write("key", key), &folder.write("crt", certificate)).unwrap();

    let mut command = Command::new("openssl");
    let traditional = output_of(command.args(["genrsa", "-traditional", "2048"]));
    let traditional = String::from_utf8(traditional).unwrap();
    let error = refusal(&format!("{traditional}{certificate}"));
    assert!(
        error.to_string().contains("openssl pkcs8 -topk8"),
        "{error}"
    );

    let refused = |command: &mut Command| {
        let key = String::from_utf8(output_of(command)).unwrap();
        refusal(&format!("{key}{certificate}")).to_string()
    };
    let mut genpkey = Command::new("openssl");
    genpkey.args([
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:1024",
    ]);
    assert!(refused(&mut genpkey).ends_with("found one of 1024 bits"));
    let mut genpkey = Command::new("openssl");
    genpkey.args([
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
    ]);
    assert!(refused(&mut genpkey).ends_with("found an ECDSA key on another curve"));
    let mut genpkey = Command::new("openssl");
    genpkey.args(["genpkey", "-algorithm", "ED25519"]);
    assert!(refused(&mut genpkey).ends_with("found a key of algorithm 1.3.101.112"));

    let path = folder.path("nowhere");
    let error = Signer::open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
}

#[test]
fn damaged_signers_never_panic() {
    let pem = other_signer().to_pem().unwrap();
    for byte in 0..pem.len() {
        for change in [1, 0x20] {
            let mut damaged = pem.as_bytes().to_vec();
            damaged[byte] ^= change;
            if let Ok(text) = str::from_utf8(&damaged) {
                drop(Signer::from_pem(text));
                drop(Certificate::from_pem(text));
            }
        }
        drop(Signer::from_pem(&pem[..byte]));
    }
}

#[test]
fn certificates_are_what_kernels_want() {
    let folder = Folder::new();
    let signer = Signer::generate(Algorithm::EcdsaP256, "someone", 3650 * DAY).unwrap();
    let path = folder.write("signer.x509", signer.certificate().to_der());
    let mut show = Command::new("openssl");
    show.args(["x509", "-inform", "DER", "-noout", "-text", "-in"])
        .arg(path);
    let text = String::from_utf8(output_of(&mut show)).unwrap();
    for expected in [
        "Issuer: CN = someone",
        "Subject: CN = someone",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn subjects_and_times_have_bounds() {
    let generate = |subject: &str, validity| {
        Signer::generate(Algorithm::EcdsaP256, subject, validity).unwrap_err()
    };
    for subject in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(generate(subject, DAY), SignerError::Subject(_)));
    }
    assert!(matches!(
        generate("x", Duration::MAX),
        SignerError::Validity
    ));
    assert!(matches!(
        generate("x", 366 * 9000 * DAY),
        SignerError::Validity
    ));
}

fn signed_by(signer: &Signer) -> Bundle {
    let mut bundle = rich_bundle();
    bundle.sign(signer).unwrap();
    bundle
}

fn other_signer() -> Signer {
    Signer::generate(Algorithm::EcdsaP256, "other", DAY).unwrap()
}

fn rsa_signer(folder: &Folder) -> Signer {
    let signer = Signer::generate(Algorithm::Rsa2048, "someone", DAY).unwrap();
    folder.write("rsa.pem", &*signer.to_pem().unwrap());
    signer
}

/// A file with a key and certificate that openssl made.
fn openssl_signer(folder: &Folder, kind: &str) -> PathBuf {
    let [key, certificate] = ["key", "crt"].map(|name| folder.path(name));
    let mut command = Command::new("openssl");
    command
        .args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/O=us/CN=openssl's",
        ])
        .args(["-newkey", kind, "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    if kind == "ec" {
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    }
    output_of(&mut command);
    let [key, certificate] = [key, certificate].map(|path| fs::read_to_string(path).unwrap());
    folder.write(&kind.replace(':', "-"), key + &certificate)
}

fn openssl_sign(folder: &Folder, bundle: &Bundle, signer: &Path) -> Vec<u8> {
    output_of(&mut openssl_signing(folder, bundle, signer))
}

fn openssl_signing(folder: &Folder, bundle: &Bundle, signer: &Path) -> Command {
    let manifest = folder.write("manifest", bundle.manifest_bytes());
    let mut command = Command::new("openssl");
    command
        .args([
            "cms",
            "-sign",
            "-binary",
            "-noattr",
            "-nosmimecap",
            "-nocerts",
            "-keyid",
        ])
        .args(["-md", "sha256", "-outform", "DER", "-in"])
        .arg(manifest)
        .arg("-signer")
        .arg(signer);
    command
}

fn output_of(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("openssl is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output.stdout
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }
}
