//! Connections that are secured by certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use preverify_lab::Lab;
use preverify_service::Tls;
use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::running::Running;

#[test]
fn only_who_shows_a_certificate_is_answered() {
    let lab = Lab::new().unwrap();
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Pair::authority(folder.path(), "authority");
    let stranger = Pair::authority(folder.path(), "stranger");
    let service = Pair::from(&authority, "service");
    let tls = Tls {
        certificate: service.certificate.clone(),
        key: service.key.clone(),
        client_authorities: Some(authority.certificate.clone()),
    };
    let running = Running::start_with(&lab, &state, |options| options.tls = Some(tls));
    let url = running.url("/healthz").replace("http://", "https://");

    let known = Pair::from(&authority, "known");
    let answer = client(&authority, Some(&known)).get(&url).call();
    assert_eq!(answer.unwrap().status(), 200);
    let unknown = Pair::from(&stranger, "unknown");
    for (what, authority, shown) in [
        ("no certificate", &authority, None),
        ("one of somebody else", &authority, Some(&unknown)),
        ("a service that is not trusted", &stranger, Some(&known)),
    ] {
        let answer = client(authority, shown).get(&url).call();
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    // Without TLS nobody is answered, either.
    let plain = running.agent.get(running.url("/healthz")).call();
    assert!(plain.is_err(), "{plain:?}");
}

/// A client that trusts an authority.
fn client(authority: &Pair, own: Option<&Pair>) -> Agent {
    let certificate = |pair: &Pair| {
        let text = fs::read(&pair.certificate).unwrap();
        Certificate::from_pem(&text).unwrap()
    };
    let own = own.map(|pair| {
        let key = PrivateKey::from_pem(&fs::read(&pair.key).unwrap()).unwrap();
        ClientCert::new_with_certs(&[certificate(pair)], key)
    });
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[certificate(authority)]))
        .client_cert(own)
        .build();
    Agent::config_builder().tls_config(tls).build().into()
}

/// The files of a certificate and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn authority(folder: &Path, name: &str) -> Self {
        Self::make(folder, name, &["-addext", "keyUsage=keyCertSign"])
    }

    /// For whoever is on this machine.
    fn from(authority: &Self, name: &str) -> Self {
        let folder = authority.key.parent().unwrap();
        let (certificate, key) = (&authority.certificate, &authority.key);
        let by = [
            "-CA",
            certificate.to_str().unwrap(),
            "-CAkey",
            key.to_str().unwrap(),
        ];
        let names = [
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
        ];
        Self::make(folder, name, &[&by[..], &names].concat())
    }

    fn make(folder: &Path, name: &str, options: &[&str]) -> Self {
        let pair = Self {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-subj", &format!("/CN={name}"), "-days", "2"])
            .args(options)
            .arg("-out")
            .arg(&pair.certificate)
            .arg("-keyout")
            .arg(&pair.key)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        pair
    }
}
