//! Kernels that verify.

use axum::Json;
use axum::extract::{Path, State};

use super::App;
use super::caller::{Caller, Read};
use super::problem::Problem;
use super::views::{TargetView, WorkerView};

/// All targets, by name.
#[utoipa::path(
    get, path = "/v1/targets", tag = "targets", security(("token" = ["read"])),
    responses((status = 200, description = "Them", body = Vec<TargetView>))
)]
pub async fn list(State(app): State<App>, _caller: Caller<Read>) -> Json<Vec<TargetView>> {
    Json(
        app.directory
            .all()
            .into_iter()
            .map(TargetView::from)
            .collect(),
    )
}

/// One target.
#[utoipa::path(
    get, path = "/v1/targets/{name}", tag = "targets", security(("token" = ["read"])),
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It", body = TargetView),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn show(
    State(app): State<App>,
    _caller: Caller<Read>,
    Path(name): Path<String>,
) -> Result<Json<TargetView>, Problem> {
    match app.directory.named(&name) {
        Some(known) => Ok(Json(known.into())),
        None => Err(unknown(&app, &name)),
    }
}

/// All processes that verify, by name.
#[utoipa::path(
    get, path = "/v1/workers", tag = "targets", security(("token" = ["read"])),
    responses((status = 200, description = "Them", body = Vec<WorkerView>))
)]
pub async fn workers(State(app): State<App>, _caller: Caller<Read>) -> Json<Vec<WorkerView>> {
    let workers = app.directory.workers().into_iter();
    Json(workers.map(WorkerView::from).collect())
}

/// Says which targets there are.
pub fn unknown(app: &App, name: &str) -> Problem {
    let known = app.directory.all();
    let known: Vec<_> = known.iter().map(|known| known.name.as_str()).collect();
    Problem::missing(match &known[..] {
        [] => {
            format!("there is no target `{name}`, and no other: `preverify target add` makes one")
        }
        known => format!(
            "there is no target `{name}`; there are: {}",
            known.join(", ")
        ),
    })
}
