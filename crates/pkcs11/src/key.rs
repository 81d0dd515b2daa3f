//! A private key in a token, as a signer has it.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::{fmt, mem};

use cryptoki::mechanism::Mechanism;
use p256::ecdsa;
use preverify_bundle::RemoteKey;
use sha2::{Digest, Sha256};

use crate::TokenError;
use crate::token::{Kind, OpenKey, Token};

/// What stands before a SHA-256 in what RSA signs (DigestInfo in RFC 8017, 9.2).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A private key in a token. One signature is made after the other.
pub struct TokenKey {
    token: Token,
    state: Mutex<State>,
}

enum State {
    /// Ready to sign.
    Open(OpenKey),
    /// To be opened with the next signature.
    Closed,
    /// The token has refused the PIN. It counts: it is not shown the same again.
    Refused,
}

impl TokenKey {
    pub fn new(token: Token, key: OpenKey) -> Self {
        Self {
            token,
            state: Mutex::new(State::Open(key)),
        }
    }

    /// Signs with the key that is open, or opens it anew: sessions end when a token is pulled out, or its network fails.
    fn sign_in(&self, state: &mut State, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        match mem::replace(state, State::Closed) {
            State::Open(key) => match self.sign_with(&key, message) {
                Ok(signature) => {
                    *state = State::Open(key);
                    return Ok(signature);
                }
                Err(error) if error.is_about_pin() => return Err(error),
                // Once more, in another session: this one ends here.
                Err(_) => {}
            },
            State::Closed => {}
            State::Refused => return Err(TokenError::RefusedBefore(self.token.name().to_owned())),
        }
        let key = self.token.open_key()?;
        let signature = self.sign_with(&key, message)?;
        *state = State::Open(key);
        Ok(signature)
    }

    fn sign_with(&self, key: &OpenKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let signature = match key.always_authenticate {
            // All tokens can sign a digest, whatever the message's size.
            false => {
                let (mechanism, signed) = match key.kind {
                    Kind::Rsa => {
                        let signed = [&SHA256_INFO[..], &Sha256::digest(message)].concat();
                        (Mechanism::RsaPkcs, signed)
                    }
                    Kind::EcdsaP256 => (Mechanism::Ecdsa, Sha256::digest(message).to_vec()),
                };
                key.session.sign(&mechanism, key.handle, &signed)
            }
            // The PIN comes between two steps, which there are only where the token makes the digest.
            true => {
                let mechanism = match key.kind {
                    Kind::Rsa => Mechanism::Sha256RsaPkcs,
                    Kind::EcdsaP256 => Mechanism::EcdsaSha256,
                };
                self.token
                    .said(key.session.sign_init(&mechanism, key.handle))?;
                self.token.authenticate(&key.session)?;
                self.token.said(key.session.sign_update(message))?;
                key.session.sign_final()
            }
        };
        let signature = self.token.said(signature)?;
        match key.kind {
            Kind::Rsa => Ok(signature),
            // Tokens write the two numbers one after the other.
            Kind::EcdsaP256 => ecdsa::Signature::from_slice(&signature)
                .map(|signature| signature.to_der().as_bytes().to_vec())
                .map_err(|_| TokenError::Malformed(self.token.name().to_owned())),
        }
    }
}

impl RemoteKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.sign_in(&mut state, message);
        if outcome.as_ref().is_err_and(TokenError::is_about_pin) {
            *state = State::Refused;
        }
        Ok(outcome?)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenKey").field(&self.token.name()).finish()
    }
}
