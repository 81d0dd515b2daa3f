//! What secures connections: the service's certificate, and whose clients may connect at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

/// The files of a service with TLS, in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Its certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// Certificates of authorities: only who has a certificate of one of them may connect.
    pub client_authorities: Option<PathBuf>,
}

/// There can be no secure connections.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file has not what it should have.
    #[error("cannot take {what} from {}: {source}", path.display())]
    File {
        /// What.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A file has no certificate at all.
    #[error("{} has no certificate: a line `-----BEGIN CERTIFICATE-----` begins one", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key cannot be used, or not together.
    #[error("{} cannot be used with {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// A certificate of an authority cannot be used.
    #[error("{} has a certificate that is none of an authority: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Clients cannot be checked.
    #[error("clients cannot be checked by {}: {source}", path.display())]
    Clients {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: VerifierBuilderError,
    },
}

impl Tls {
    /// How the service speaks with its clients.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let pair = |source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        };
        let certificates = certificates(&self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(file("a private key", &self.key))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let clients =
                    WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider);
                let clients = clients.build().map_err(|source| TlsError::Clients {
                    path: path.clone(),
                    source,
                })?;
                builder.with_client_cert_verifier(clients)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(file("certificates", path))?;
    let found: Vec<_> = found
        .collect::<Result<_, _>>()
        .map_err(file("certificates", path))?;
    match found.is_empty() {
        true => Err(TlsError::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(found),
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File { what, path, source }
}
