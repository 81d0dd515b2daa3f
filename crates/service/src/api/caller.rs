//! Who asks.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use jiff::Timestamp;

use super::App;
use super::problem::Problem;
use crate::audit::{Action, Deed};
use crate::tokens::{Scope, Token};

/// Whoever shows a token that is good for `S`.
pub struct Caller<S> {
    /// Their tenant.
    pub tenant: String,
    /// The name of the token.
    pub token: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    _scope: PhantomData<S>,
}

impl<S> Caller<S> {
    /// Writes down what they did.
    pub async fn did(
        &self,
        app: &App,
        action: Action,
        subject: impl ToString,
    ) -> Result<(), Problem> {
        let deed = Deed {
            at: Timestamp::now(),
            tenant: self.tenant.clone(),
            token: self.token.clone(),
            action,
            subject: subject.to_string(),
        };
        Ok(app.audit.write(deed).await?)
    }
}

/// A scope that a path asks for.
pub trait Needs {
    /// Which.
    const SCOPE: Scope;
    /// What it is called.
    const NAME: &'static str;
}

/// To submit objects.
pub struct Submit;
/// To see jobs.
pub struct Read;
/// To manage.
pub struct Admin;

impl Needs for Submit {
    const SCOPE: Scope = Scope::Submit;
    const NAME: &'static str = "submit";
}

impl Needs for Read {
    const SCOPE: Scope = Scope::Read;
    const NAME: &'static str = "read";
}

impl Needs for Admin {
    const SCOPE: Scope = Scope::Admin;
    const NAME: &'static str = "admin";
}

impl<S: Needs> FromRequestParts<App> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = token(parts, app).await?;
        if !token.scopes.contains(&S::SCOPE) {
            return Err(Problem::forbidden(format!(
                "this needs a token with the scope `{}`, which `{}` does not have",
                S::NAME,
                token.name
            )));
        }
        Ok(Self {
            tenant: token.tenant,
            token: token.name,
            scopes: token.scopes,
            _scope: PhantomData,
        })
    }
}

async fn token(parts: &Parts, app: &App) -> Result<Token, Problem> {
    let shown = parts
        .headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Problem::unauthorized("show a token: `Authorization: Bearer pv_...`"))?;
    let secret = shown.to_str().ok().and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    let unknown = || Problem::unauthorized("the token is not known, or has ended");
    let secret = secret.ok_or_else(unknown)?;
    let token = app.tokens.check(secret, Timestamp::now()).await?;
    token.ok_or_else(unknown)
}
