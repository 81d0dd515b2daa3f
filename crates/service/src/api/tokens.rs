//! Who may do what.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::App;
use super::caller::{Admin, Caller, Read};
use super::objects::digest;
use super::problem::Problem;
use super::views::{CallerView, IssuedToken, TokenRequest, TokenView};
use crate::audit::Action;
use crate::tokens::{TenantName, Token};

/// The longest name of a token: it is in each entry of the audit log.
const NAME_LIMIT: usize = 255;

/// Makes a token. What it is, is told once, in this answer.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "tokens", security(("token" = ["admin"])),
    request_body = TokenRequest,
    responses(
        (status = 201, description = "It", body = IssuedToken),
        (status = 422, description = "It cannot be", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn issue(
    State(app): State<App>,
    caller: Caller<Admin>,
    Json(request): Json<TokenRequest>,
) -> Result<(StatusCode, Json<IssuedToken>), Problem> {
    let tenant: TenantName = request
        .tenant
        .parse()
        .map_err(|error| Problem::impossible(format!("{error}")))?;
    if request.name.len() > NAME_LIMIT {
        return Err(Problem::impossible(format!(
            "the token's name has {} bytes, and {NAME_LIMIT} are allowed",
            request.name.len()
        )));
    }
    if request.scopes.is_empty() {
        return Err(Problem::impossible(
            "a token without scopes is good for nothing: give it some of submit, read and admin",
        ));
    }
    let now = Timestamp::now();
    let expires = request
        .seconds
        .map(|seconds| now.checked_add(SignedDuration::from_secs(seconds.into())))
        .transpose()
        .map_err(|_| {
            Problem::impossible("the token would end after the last moment that there is")
        })?;
    let token = Token {
        name: request.name,
        tenant: tenant.into(),
        scopes: request.scopes,
        created: now,
        expires,
    };
    let (secret, id) = app.tokens.issue(&token).await?;
    caller.did(&app, Action::IssueToken, id).await?;
    let issued = IssuedToken {
        token: secret.expose().to_owned(),
        about: TokenView::of(id, &token),
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// All tokens.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "tokens", security(("token" = ["admin"])),
    responses((status = 200, description = "Them", body = Vec<TokenView>))
)]
pub async fn list(
    State(app): State<App>,
    _caller: Caller<Admin>,
) -> Result<Json<Vec<TokenView>>, Problem> {
    let tokens = app.tokens.list().await?;
    Ok(Json(
        tokens
            .iter()
            .map(|(id, token)| TokenView::of(*id, token))
            .collect(),
    ))
}

/// Who asks: what the token that is shown is good for.
#[utoipa::path(
    get, path = "/v1/token", tag = "tokens", security(("token" = ["read"])),
    responses((status = 200, description = "It", body = CallerView))
)]
pub async fn own(caller: Caller<Read>) -> Json<CallerView> {
    Json(CallerView {
        name: caller.token,
        tenant: caller.tenant,
        scopes: caller.scopes,
    })
}

/// Ends a token.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "tokens", security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The SHA-256 of the token, as the list has it")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn revoke(
    State(app): State<App>,
    caller: Caller<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = digest(&id)?;
    if !app.tokens.revoke(id).await? {
        return Err(Problem::missing("there is no such token"));
    }
    caller.did(&app, Action::RevokeToken, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
