//! Objects by their digest: so a client sends one once.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;

use preverify_pipeline::elf;

use super::App;
use super::caller::{Caller, Submit};
use super::problem::Problem;
use super::views::ObjectView;
use crate::digest::Digest;

/// Refuses at once what no kernel would be asked about.
pub fn check(bytes: &[u8], app: &App) -> Result<(), Problem> {
    if bytes.len() > app.bounds.object_bytes {
        return Err(Problem::too_large(format!(
            "the object has {} bytes, and {} are allowed",
            bytes.len(),
            app.bounds.object_bytes
        )));
    }
    elf::check(bytes).map_err(|flaw| Problem::impossible(format!("the object: {flaw}")))
}

/// Keeps an object, for jobs that name it by its digest.
#[utoipa::path(
    put, path = "/v1/objects/{sha256}", tag = "objects", security(("token" = ["submit"])),
    params(("sha256" = String, Path, description = "The SHA-256 of the bytes")),
    request_body(content = inline(Vec<u8>), content_type = "application/octet-stream", description = "The ELF file"),
    responses(
        (status = 200, description = "It is kept", body = ObjectView),
        (status = 409, description = "The bytes have another digest", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is no BPF object", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant has asked for all that it may", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn put(
    State(app): State<App>,
    caller: Caller<Submit>,
    Path(sha256): Path<String>,
    request: Request,
) -> Result<Json<ObjectView>, Problem> {
    let named: Digest = digest(&sha256)?;
    let _room = app.tenants.room(&caller.tenant).await;
    let bytes = Bytes::from_request(request, &app).await?;
    app.tenants
        .admit(&caller.tenant, bytes.len(), Instant::now())
        .await??;
    check(&bytes, &app)?;
    let found = Digest::of(&bytes);
    if found != named {
        return Err(Problem::conflict(format!(
            "the bytes have the SHA-256 {found}, not {named}"
        )));
    }
    let size = bytes.len();
    app.blobs.put(bytes.into()).await?;
    Ok(Json(ObjectView {
        sha256: found.to_string(),
        bytes: size,
    }))
}

/// Whether an object is kept.
#[utoipa::path(
    head, path = "/v1/objects/{sha256}", tag = "objects", security(("token" = ["submit"])),
    params(("sha256" = String, Path, description = "The SHA-256 of its bytes")),
    responses((status = 200, description = "It is"), (status = 404, description = "It is not"))
)]
pub async fn head(
    State(app): State<App>,
    _caller: Caller<Submit>,
    Path(sha256): Path<String>,
) -> Result<StatusCode, Problem> {
    match app.blobs.has(digest(&sha256)?).await? {
        true => Ok(StatusCode::OK),
        false => Err(Problem::missing("there is no such object")),
    }
}

pub fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|error| Problem::malformed(format!("{error}")))
}
