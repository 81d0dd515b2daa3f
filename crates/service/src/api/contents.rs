//! What is in bundles.

use axum::Json;
use axum::extract::{Path, Query, State};
use preverify_bundle::Bundle;
use preverify_pipeline::ImageKind;
use preverify_report::{Code, Report};
use serde::Deserialize;

use super::App;
use super::caller::{Caller, Read};
use super::jobs::{finished, gone, place_of};
use super::problem::Problem;
use super::views::CodeView;
use crate::job::Job;

/// What is in a job's bundle: targets, programs with their images and relocations, maps, evidence, sections.
///
/// Nothing is said about the signature but which key it names: who trusts that key checks it (`preverify verify`).
#[utoipa::path(
    get, path = "/v1/jobs/{id}/contents", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "What the job is called")),
    responses(
        (status = 200, description = "It", body = Report),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no bundle, or not yet", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn report(
    State(app): State<App>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<Json<Report>, Problem> {
    inside(&app, &caller, &id, |job, bundle| {
        Report::new(format!("{}.pvb", job.name), bundle, None)
            .map_err(|error| Problem::internal(&error))
    })
    .await
}

/// Which code.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Machine code, or bytecode: machine code if it is not given, or bytecode where there is no machine code.
    image: Option<Kind>,
}

/// The kinds of images, as `preverify-load` calls them.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Machine code.
    Native,
    /// Verified bytecode.
    Bytecode,
}

/// The code of a program, with names in the place of addresses.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/targets/{target}/programs/{program}/code", tag = "jobs", security(("token" = ["read"])),
    params(
        ("id" = String, Path, description = "What the job is called"),
        ("target" = String, Path, description = "The target's name"),
        ("program" = String, Path, description = "The name of the program's function"),
        Wanted
    ),
    responses(
        (status = 200, description = "It", body = CodeView),
        (status = 404, description = "There is no such thing", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no bundle, or not yet", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn code(
    State(app): State<App>,
    caller: Caller<Read>,
    Path((id, target, program)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<CodeView>, Problem> {
    inside(&app, &caller, &id, move |job, bundle| {
        // A bundle's targets are in the order of the job's.
        let place = place_of(job, &target)?;
        let known = bundle.manifest().targets.get(place).and_then(|target| {
            let mut programs = target.programs.iter();
            Some((target, programs.find(|known| known.function == program)?))
        });
        let known = known.ok_or_else(|| {
            Problem::missing(format!(
                "the bundle has no program `{program}` for {target}"
            ))
        })?;
        let kind = wanted.image.map(ImageKind::from);
        let code = Code::of(bundle, &[known], kind).map_err(|error| Problem::internal(&error))?;
        let code = code.first().map(CodeView::of);
        code.ok_or_else(|| Problem::missing(format!("`{program}` has no such image")))
    })
    .await
}

/// Tells something of a job's bundle, beside what other requests wait for.
async fn inside<T: Send + 'static>(
    app: &App,
    caller: &Caller<Read>,
    id: &str,
    tell: impl FnOnce(&Job, &Bundle) -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    let _room = app.tenants.room(&caller.tenant).await;
    let (job, digest) = finished(app, &caller.tenant, id).await?;
    let bytes = app.blobs.get(digest).await?;
    let bytes = bytes.ok_or_else(|| gone("bundle", digest))?;
    let told = tokio::task::spawn_blocking(move || {
        let bundle = Bundle::read(&bytes).map_err(|error| Problem::internal(&error))?;
        tell(&job, &bundle)
    });
    let told = told.await.map_err(|error| Problem::internal(&error))?;
    Ok(Json(told?))
}

impl From<Kind> for ImageKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Native => Self::Native,
            Kind::Bytecode => Self::Bytecode,
        }
    }
}
