//! Who may do what: tokens that people and programs show.
//!
//! A token is 32 random bytes. Kept is only its SHA-256, which is enough to know it again, and of no use to who reads it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Digest;
use crate::random;
use crate::records::{Page, RecordError, Records};

/// What a token begins with, so that people and scanners know it.
const PREFIX: &str = "pv_";

/// What a token is good for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Submit objects.
    Submit,
    /// See jobs, logs and bundles.
    Read,
    /// Manage tokens, tenants and targets; see what all tenants did.
    Admin,
}

/// A token that was made, without what is secret about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is for, for people.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// What is shown: the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A tenant's name: part of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantName(String);

/// A text that cannot name a tenant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{found}` cannot name a tenant: expected 1 to 40 of a-z, 0-9, `-` and `_`")]
pub struct TenantNameError {
    found: String,
}

/// The tokens of a service.
#[derive(Clone, Debug)]
pub struct Tokens {
    records: Records,
}

impl Tokens {
    /// Those among the records.
    pub fn new(records: Records) -> Self {
        Self { records }
    }

    /// Makes a token. Its secret is known to nobody after this.
    pub async fn issue(&self, token: &Token) -> Result<(Secret, Digest), RecordError> {
        let secret = Secret(format!("{PREFIX}{}", hex::encode(random::bytes::<32>())));
        let id = secret.id();
        self.records.create(&key(id), token).await?;
        Ok((secret, id))
    }

    /// The token that a secret belongs to, if it is still good.
    pub async fn check(&self, secret: &str, now: Timestamp) -> Result<Option<Token>, RecordError> {
        if !secret.starts_with(PREFIX) {
            return Ok(None);
        }
        let found = self
            .records
            .get::<Token>(&key(Digest::of(secret.as_bytes())))
            .await?;
        let token = found.map(|record| record.value);
        Ok(token.filter(|token| token.expires.is_none_or(|expires| now < expires)))
    }

    /// All tokens.
    pub async fn list(&self) -> Result<Vec<(Digest, Token)>, RecordError> {
        let found = self.records.list("token.", Page::ALL).await?.into_iter();
        let id = |key: &str| key.strip_prefix("token.")?.parse().ok();
        Ok(found
            .filter_map(|(key, record)| Some((id(&key)?, record.value)))
            .collect())
    }

    /// Ends a token. False: there was none.
    pub async fn revoke(&self, id: Digest) -> Result<bool, RecordError> {
        let there = self.records.get::<Token>(&key(id)).await?.is_some();
        self.records.remove(&key(id)).await?;
        Ok(there)
    }
}

fn key(id: Digest) -> String {
    format!("token.{id}")
}

impl Secret {
    /// What the token is called.
    pub fn id(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for TenantName {
    type Err = TenantNameError;

    fn from_str(text: &str) -> Result<Self, TenantNameError> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        match (1..=40).contains(&text.len()) && text.bytes().all(fits) {
            true => Ok(Self(text.into())),
            false => Err(TenantNameError {
                found: text.chars().take(80).collect(),
            }),
        }
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Sqlite;

    fn token(expires: Option<Timestamp>) -> Token {
        Token {
            name: "ci".into(),
            tenant: "acme".into(),
            scopes: [Scope::Submit].into(),
            created: Timestamp::UNIX_EPOCH,
            expires,
        }
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let tokens = Tokens::new(Records::from(Sqlite::open(&path).unwrap()));
        let end = Timestamp::from_second(1000).unwrap();
        let (secret, id) = tokens.issue(&token(Some(end))).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let check = async |text: &str, second| tokens.check(text, at(second)).await.unwrap();
        assert_eq!(check(secret.expose(), 999).await, Some(token(Some(end))));
        assert_eq!(check(secret.expose(), 1000).await, None);
        let mut forged = secret.expose().to_owned();
        forged.pop();
        assert_eq!(check(&forged, 1).await, None);
        assert_eq!(check(&id.to_string(), 1).await, None);
        assert_eq!(check("", 1).await, None);
        assert!(tokens.revoke(id).await.unwrap());
        assert!(!tokens.revoke(id).await.unwrap());
        assert_eq!(check(secret.expose(), 1).await, None);
        // The database and its log have the hash alone.
        let mut found = [0, 0];
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for (count, text) in found.iter_mut().zip([secret.expose(), &id.to_string()]) {
                let windows = bytes.windows(text.len());
                *count += windows.filter(|window| *window == text.as_bytes()).count();
            }
        }
        assert!(found[0] == 0 && found[1] > 0, "{found:?}");
    }

    #[test]
    fn tenants_have_names_that_fit_into_keys() {
        for name in ["acme", "a", "team-7_x"] {
            assert!(name.parse::<TenantName>().is_ok());
        }
        for name in ["", "a.b", "A", "a/b", "*", ">", "ä", &"a".repeat(41)] {
            assert!(name.parse::<TenantName>().is_err(), "{name}");
        }
    }
}
