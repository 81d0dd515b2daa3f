//! Tokens of SoftHSM.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, CertificateType, ObjectClass};
use cryptoki::session::{Session, UserType};
use preverify_bundle::{Algorithm, Certificate, Signer};

/// Where Debian has it.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const TOKEN: &str = "signing";
pub const PIN: &str = "12345678";

/// The folder with the tokens of this process.
const FOLDER: &str = "PREVERIFY_TEST_TOKENS";

/// Does a test in a process of its own, with a token: SoftHSM learns from the environment where its tokens are, and a
/// module is initialised once in a process.
pub fn with_tokens(test: &str, act: impl FnOnce(&Tokens)) {
    if let Some(folder) = env::var_os(FOLDER) {
        return act(&Tokens(folder.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = Tokens(folder.path().to_owned());
    fs::create_dir(tokens.path("tokens")).unwrap();
    let configuration = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        tokens.path("tokens").display()
    );
    fs::write(tokens.configuration(), configuration).unwrap();
    tokens.init(TOKEN);
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder.path())
        .env("SOFTHSM2_CONF", tokens.configuration())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{complaint}"
    );
}

/// Who signs as long as a test lasts.
pub fn signer(algorithm: Algorithm) -> Signer {
    Signer::generate(algorithm, "someone", Duration::from_secs(86400)).unwrap()
}

pub struct Tokens(PathBuf);

impl Tokens {
    /// A token.
    pub fn init(&self, label: &str) {
        self.util(&["--init-token", "--free", "--label", label, "--so-pin", PIN]);
    }

    /// A key in the token, and the file of its certificate.
    pub fn key(&self, label: &str, id: &str) -> PathBuf {
        let signer = signer(Algorithm::EcdsaP256);
        self.import(label, id, &signer);
        self.write(&format!("{label}.x509"), signer.certificate().to_der())
    }

    pub fn import(&self, label: &str, id: &str, signer: &Signer) {
        let pem = self.write("imported.pem", signer.to_pem().unwrap().as_bytes());
        self.import_file(label, id, &pem);
    }

    pub fn import_file(&self, label: &str, id: &str, pem: &Path) {
        let pem = pem.to_str().unwrap();
        self.util(&[
            "--import", pem, "--token", TOKEN, "--label", label, "--id", id,
        ]);
    }

    pub fn add_certificate(&self, label: &str, id: &str, certificate: &Certificate) {
        let id = u8::from_str_radix(id, 16).unwrap();
        let template = [
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(label.into()),
            Attribute::Id(vec![id]),
            Attribute::Subject(certificate.subject().into()),
            Attribute::Value(certificate.to_der().to_vec()),
        ];
        self.session().create_object(&template).unwrap();
    }

    /// What happens to a token that is pulled out, and put in again.
    pub fn lose_sessions(&self) {
        module().finalize().unwrap();
        module();
    }

    /// A session of someone else, who may write.
    pub fn session(&self) -> Session {
        let session = self.open_session();
        // Others of this process may be logged in already.
        let _ = session.login(UserType::User, Some(&PIN.into()));
        session
    }

    pub fn open_session(&self) -> Session {
        let module = module();
        let slots = module.get_slots_with_token().unwrap().into_iter();
        let mut slots = slots.filter(|slot| module.get_token_info(*slot).unwrap().label() == TOKEN);
        module.open_rw_session(slots.next().unwrap()).unwrap()
    }

    pub fn uri(&self, name: &str) -> String {
        format!("pkcs11:{name}?module-path={MODULE}&pin-value={PIN}")
    }

    pub fn write(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn configuration(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    fn util(&self, arguments: &[&str]) {
        let output = Command::new("softhsm2-util")
            .args(arguments)
            .args(["--pin", PIN])
            .env("SOFTHSM2_CONF", self.configuration())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

fn module() -> Pkcs11 {
    let module = Pkcs11::new(MODULE).unwrap();
    // It is initialised already if somebody has used it.
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    module
}
