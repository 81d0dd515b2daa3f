//! How a client and a service know each other by certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::crypto::ring;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Options for services with certificates.
#[derive(clap::Args)]
pub struct TlsArgs {
    /// Authorities, in PEM, that the service's certificate must be from [default: those that this system trusts]
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
    /// The certificate to show to a service that asks for one, and those between it and the root, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
}

/// Certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsArgsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{} has no {what} in PEM", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is not in it.
        what: &'static str,
    },
}

impl TlsArgs {
    /// What they say.
    pub fn config(&self) -> Result<TlsConfig, TlsArgsError> {
        let roots = match &self.authorities {
            None => RootCerts::PlatformVerifier,
            Some(path) => RootCerts::new_with_certs(&certificates(path)?),
        };
        let own = match self.certificate.as_ref().zip(self.certificate_key.as_ref()) {
            None => None,
            Some((certificate, key)) => Some(ClientCert::new_with_certs(
                &certificates(certificate)?,
                private_key(key)?,
            )),
        };
        let provider = Arc::new(ring::default_provider());
        Ok(TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(roots)
            .client_cert(own)
            .build())
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TlsArgsError> {
    let found: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(TlsArgsError::Missing {
            path: path.to_owned(),
            what: "certificate",
        }),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, TlsArgsError> {
    let found = items(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    found.ok_or_else(|| TlsArgsError::Missing {
        path: path.to_owned(),
        what: "private key",
    })
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, TlsArgsError> {
    let text = fs::read(path).map_err(|source| TlsArgsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse_pem(&text).filter_map(Result::ok).collect())
}
