//! The HTTP API. Its description is generated from this code: `GET /v1/openapi.json`.

mod audit;
mod caller;
mod contents;
mod health;
mod jobs;
mod objects;
mod problem;
mod targets;
mod tenants;
mod tokens;
pub mod views;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::Audit;
use crate::blobs::Blobs;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::news::News;
use crate::queue::Queue;
use crate::scheduler::Scheduler;
use crate::targets::Targets;
use crate::tenants::Tenants;
use crate::tokens::Tokens;
use crate::{traces, web};

/// What requests are answered from.
#[derive(Clone, Debug)]
pub struct App {
    /// Jobs and tasks.
    pub scheduler: Scheduler,
    /// Objects, logs and bundles.
    pub blobs: Blobs,
    /// What waits for a worker.
    pub queue: Queue,
    /// What can be verified for.
    pub directory: Directory,
    /// The targets of this process, if it has workers.
    pub targets: Option<Targets>,
    /// How much tenants may ask for.
    pub tenants: Tenants,
    /// What is under way.
    pub news: News,
    /// Who may do what.
    pub tokens: Tokens,
    /// Who did what.
    pub audit: Audit,
    /// How the service does.
    pub metrics: Metrics,
    /// How much one request may ask for.
    pub bounds: Bounds,
    /// True once the service is to end.
    pub stopped: watch::Receiver<bool>,
}

/// How much one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of an object.
    pub object_bytes: usize,
    /// Targets of a job.
    pub targets: usize,
    /// Seconds of one verification.
    pub seconds: u64,
    /// Mebibytes of each machine that verifies.
    pub memory_mib: u32,
    /// How long a client may take from its connection, or the answer before, to the end of a request's head.
    pub head: Duration,
    /// How long a request may take until its answer begins.
    pub request: Duration,
    /// Connections from one address.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            object_bytes: 32 << 20,
            targets: 64,
            seconds: 3600,
            memory_mib: 8192,
            head: Duration::from_secs(30),
            request: Duration::from_secs(120),
            connections: 4096,
        }
    }
}

/// What a request may have beside an object: names, inputs, what separates them.
const REST_OF_BODY: usize = 2 << 20;

/// How long the rest of a refused request is taken.
const REFUSED: Duration = Duration::from_secs(5);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "preverify",
        description = "BPF programs, verified off the device by the target's own kernel, proved and signed.\n\n\
            Errors are problem details (RFC 9457): `application/problem+json` with `title`, `status` and `detail`. \
            Beside those that a path names, every one can answer 400 (an id or a digest that is none), 401 (no token, or one that has ended), \
            403 (a token without the scope), 408 (a request that took too long), and 503 with `Retry-After` (the service cannot reach what it keeps). \
            Times are RFC 3339 in UTC; digests are SHA-256 in lower-case hexadecimal.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    tags(
        (name = "jobs", description = "Objects that were submitted, and what came of them"),
        (name = "objects", description = "Objects by their digest"),
        (name = "targets", description = "Kernels that verify"),
        (name = "tokens", description = "Who may do what (scope `admin`)"),
        (name = "tenants", description = "How much tenants may ask for (scope `admin`)"),
        (name = "audit", description = "Who did what (scope `admin`)"),
        (name = "health", description = "Whether the service is up, and ready")
    ),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token: `Authorization: Bearer pv_...`"));
        description
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// All that is answered.
pub fn router(app: App) -> Router {
    let (router, description) = described(app.bounds);
    router
        .merge(web::router())
        .with_state(app)
        .route("/v1/openapi.json", get(async || Json(description)))
}

/// The API's description, as JSON.
pub fn description() -> String {
    let (_, description) = described(Bounds::default());
    let mut text = description
        .to_pretty_json()
        .expect("it has only strings as keys");
    text.push('\n');
    text
}

fn described(bounds: Bounds) -> (Router<App>, utoipa::openapi::OpenApi) {
    let most = bounds.object_bytes + REST_OF_BODY;
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::bundle))
        .routes(routes!(jobs::log))
        .routes(routes!(contents::report))
        .routes(routes!(contents::code))
        .routes(routes!(objects::put, objects::head))
        .routes(routes!(targets::list, targets::add))
        .routes(routes!(targets::show, targets::remove))
        .routes(routes!(targets::workers))
        .routes(routes!(targets::queue))
        .routes(routes!(tokens::issue, tokens::list))
        .routes(routes!(tokens::own))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tenants::show, tenants::set_quota))
        .routes(routes!(audit::read))
        .layer(DefaultBodyLimit::max(most))
        .layer(middleware::from_fn(move |request, next| {
            in_time(bounds.request, most, request, next)
        }))
        .layer(middleware::from_fn(traces::of_request))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .fallback(problem::no_such_path)
        .layer(middleware::map_response(problem::in_one_form))
        .split_for_parts()
}

/// Ends what takes too long, as with clients that send slowly.
async fn in_time(limit: Duration, most: usize, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(limit, to_its_end(most, request, next)).await;
    answer.unwrap_or_else(|_| problem::Problem::too_slow(limit).into_response())
}

/// Takes a refused request to its end, if it has so many bytes at most and is not slow: a client that is still sending when
/// the connection ends does not get to read why.
async fn to_its_end(most: usize, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    // The handler reads it as far as it likes, and what is left is here.
    let reader = || {
        let body = body.clone();
        stream::poll_fn(move |context| {
            let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
            body.poll_next_unpin(context)
        })
    };
    let request = Request::from_parts(head, Body::from_stream(reader()));
    let answer = next.run(request).await;
    if answer.status().is_client_error() {
        let to_the_end = async {
            let mut thrown = 0;
            let mut left = reader();
            while let Some(Ok(bytes)) = left.next().await {
                thrown += bytes.len();
                if thrown > most {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(REFUSED, to_the_end).await;
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    /// Set, it has the test write what it would compare.
    const WRITE: &str = "PREVERIFY_WRITE_OPENAPI";

    #[test]
    fn the_committed_description_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let current = super::description();
        if env::var_os(WRITE).is_some() {
            fs::write(path, &current).unwrap();
        }
        let committed = fs::read_to_string(path).unwrap();
        assert!(
            committed == current,
            "{path} is not what the code says: run this test with {WRITE}=1 and commit the file"
        );
    }
}
