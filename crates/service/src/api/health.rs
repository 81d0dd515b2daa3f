//! Whether the service is up, and ready.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::App;
use super::problem::Problem;

/// Answers while the process runs.
#[utoipa::path(
    get, path = "/healthz", tag = "health",
    responses((status = 200, description = "The process runs", body = String))
)]
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Answers with success while jobs are taken and their state can be read.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "Jobs are taken", body = String),
        (status = 503, description = "They are not", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if *app.stopped.borrow() {
        return Err(Problem::unavailable("the service is about to end"));
    }
    if !app.directory.knows_all() {
        return Err(Problem::not_yet("not all workers have been heard of yet"));
    }
    // Any record would do: it is there, or is known not to be.
    match app.tenants.quota("default").await {
        Ok(_) => Ok("ready\n"),
        Err(error) => Err(Problem::unavailable(error.to_string())),
    }
}

/// How the service does, in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Counts and times", body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let waiting = app.queue.depth().await;
    let waiting = waiting.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok((
        [(header::CONTENT_TYPE, KIND)],
        app.metrics.text(waiting.by_target()),
    ))
}
