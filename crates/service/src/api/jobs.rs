//! Objects that were submitted, and what came of them.

mod form;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Multipart, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::Instrument;

use super::App;
use super::caller::{Caller, Read, Submit};
use super::problem::Problem;
use super::views::{JobView, VerdictView};
use crate::audit::Action;
use crate::digest::Digest;
use crate::job::{Ended, Job, JobId};
use crate::news::{Event, Progress};
use crate::scheduler::Submission;
use crate::task::Outcome;
use form::Form;

/// Jobs that a list has if it is not said how many.
const USUAL: usize = 50;
/// Jobs that a list has at most.
const MOST: usize = 100;
/// How often a watcher is told how a job is of which nothing is heard.
const LOOK: Duration = Duration::from_secs(20);
/// How often a watcher hears that the service is still there.
const ALIVE: Duration = Duration::from_secs(15);

/// Submits an object: it is verified for all targets, and becomes one bundle.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", security(("token" = ["submit"])),
    request_body(content = inline(form::Described), content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "It is under way, or has ended already if the same was verified before", body = JobView),
        (status = 400, description = "The form is not understood", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such target or object", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant has asked for all that it may", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is no BPF object, or wants what cannot be", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn submit(
    State(app): State<App>,
    caller: Caller<Submit>,
    multipart: Multipart,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let form = {
        let _room = app.tenants.room(&caller.tenant).await;
        Form::read(multipart, &app, &caller.tenant).await?
    };
    let submission = Submission {
        tenant: caller.tenant.clone(),
        name: form.name,
        object: form.object,
        inputs: form.inputs,
        limits: form.limits,
        shares: form.shares,
        targets: form.targets,
    };
    // A client that is gone would break it off in the middle.
    let submitting = {
        let app = app.clone();
        async move {
            let job = app.scheduler.submit(submission).await?;
            app.metrics.submitted(job.end.is_some());
            caller.did(&app, Action::Submit, &job.id).await?;
            Ok::<_, Problem>(job)
        }
    };
    let submitted = tokio::spawn(submitting.in_current_span()).await;
    let job = submitted.map_err(|error| Problem::internal(&error))??;
    Ok((StatusCode::CREATED, Json(view(&app, &job).await?)))
}

/// Which part of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Only jobs that are older than this one.
    before: Option<String>,
    /// So many at most: 50 if it is not given, and 100 at most.
    limit: Option<usize>,
}

/// The tenant's jobs, the youngest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", security(("token" = ["read"])), params(Part),
    responses(
        (status = 200, description = "Them", body = Vec<JobView>),
        (status = 400, description = "The question is not understood", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(
    State(app): State<App>,
    caller: Caller<Read>,
    Query(part): Query<Part>,
) -> Result<Json<Vec<JobView>>, Problem> {
    let before = part.before.as_deref().map(job_id).transpose()?;
    let limit = part.limit.unwrap_or(USUAL).min(MOST);
    let jobs = app.scheduler.jobs(&caller.tenant, before.as_ref(), limit);
    let mut views = Vec::new();
    for job in jobs.await? {
        views.push(view(&app, &job).await?);
    }
    Ok(Json(views))
}

/// One job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "What it is called")),
    responses(
        (status = 200, description = "It", body = JobView),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn show(
    State(app): State<App>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    let job = find(&app, &caller.tenant, &id).await?;
    Ok(Json(view(&app, &job).await?))
}

/// Watches a job: server-sent events.
///
/// Each has the name `job` and the whole job as data, as `GET /v1/jobs/{id}` has it. The first comes at once, others when
/// something changes. With the one that says how the job ended, the stream ends.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "What it is called")),
    responses(
        (status = 200, description = "What happens", body = JobView, content_type = "text/event-stream"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn events(
    State(app): State<App>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    // Whatever happens from here on is heard, so nothing is missed between the first look and the first event.
    let heard = app.news.listen();
    let job = find(&app, &caller.tenant, &id).await?;
    let watch = Watch {
        app,
        job,
        heard,
        first: true,
    };
    let events = stream::unfold(Some(watch), async |watch| {
        let (event, watch) = watch?.next().await?;
        Some((Ok(event), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// The bundle: the signed file for devices.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/bundle", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "What the job is called")),
    responses(
        (status = 200, description = "It", body = inline(Vec<u8>), content_type = "application/vnd.preverify.bundle"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no bundle, or not yet", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn bundle(
    State(app): State<App>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<(HeaderMap, Body), Problem> {
    let (job, digest) = finished(&app, &caller.tenant, &id).await?;
    let bytes = app.blobs.pieces(digest).await?;
    let bytes = bytes.ok_or_else(|| gone("bundle", digest))?;
    caller.did(&app, Action::Fetch, digest).await?;
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("application/vnd.preverify.bundle");
    headers.insert(header::CONTENT_TYPE, kind);
    let name = format!("attachment; filename=\"{}.pvb\"", job.name);
    if let Ok(name) = name.parse() {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok((headers, bytes.into_body()))
}

/// The whole log of a verifier that has rejected the object.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/targets/{target}/log", tag = "jobs", security(("token" = ["read"])),
    params(
        ("id" = String, Path, description = "What the job is called"),
        ("target" = String, Path, description = "The target's name")
    ),
    responses(
        (status = 200, description = "It", body = String),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn log(
    State(app): State<App>,
    caller: Caller<Read>,
    Path((id, target)): Path<(String, String)>,
) -> Result<(HeaderMap, Body), Problem> {
    let job = find(&app, &caller.tenant, &id).await?;
    let wanted = &job.targets[place_of(&job, &target)?];
    let outcome = app
        .scheduler
        .task(wanted.task)
        .await?
        .and_then(|task| task.outcome);
    let digest = match outcome {
        Some(Outcome::Refused(refused)) => refused.log,
        _ => None,
    };
    let digest = digest
        .ok_or_else(|| Problem::missing("the verifier has not rejected it, so it has no log"))?;
    let text = app.blobs.pieces(digest).await?;
    let text = text.ok_or_else(|| gone("log", digest))?;
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    Ok((headers, text.into_body()))
}

/// Where a target is among those of a job.
pub fn place_of(job: &Job, name: &str) -> Result<usize, Problem> {
    let place = job.targets.iter().position(|target| target.name == name);
    place.ok_or_else(|| Problem::missing(format!("the job has no target `{name}`")))
}

/// A tenant's job that has ended with a bundle, and that.
pub async fn finished(app: &App, tenant: &str, id: &str) -> Result<(Job, Digest), Problem> {
    let job = find(app, tenant, id).await?;
    let digest = match job.end.as_ref().map(|end| &end.how) {
        Some(Ended::Bundle { digest, .. }) => *digest,
        Some(_) => return Err(Problem::conflict("the job has ended without a bundle")),
        None => return Err(Problem::conflict("the job has not ended yet")),
    };
    Ok((job, digest))
}

/// What was kept is there no longer.
pub fn gone(what: &str, digest: Digest) -> Problem {
    Problem::missing(format!("the {what} {digest} is gone"))
}

/// Somebody who watches a job.
struct Watch {
    app: App,
    job: Job,
    heard: Receiver<Event>,
    first: bool,
}

impl Watch {
    /// The next event; and who watches on, if there will be another.
    async fn next(mut self) -> Option<(sse::Event, Option<Self>)> {
        if !self.first {
            self.wait().await?;
        }
        self.first = false;
        self.job = self
            .app
            .scheduler
            .job(&self.job.tenant, &self.job.id)
            .await
            .ok()??;
        let view = view(&self.app, &self.job).await.ok()?;
        let event = sse::Event::default().event("job").json_data(view).ok()?;
        let goes_on = self.job.end.is_none();
        Some((event, goes_on.then_some(self)))
    }

    /// Waits for what concerns the job. Nothing comes back when the service ends.
    async fn wait(&mut self) -> Option<()> {
        let mut look = pin!(tokio::time::sleep(LOOK));
        loop {
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                _ = self.app.stopped.wait_for(|stop| *stop) => return None,
                // What others tell may be lost on its way.
                () = &mut look => return Some(()),
            };
            let concerns = match heard {
                Ok(Event::Progress(task, _) | Event::TaskEnded(task)) => {
                    let mut targets = self.job.targets.iter();
                    self.job.last == task
                        || targets.any(|target| target.tasks().any(|known| known == task))
                }
                Ok(Event::JobEnded { id, .. }) => self.job.id == id,
                // Something was missed: it may have been that.
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return None,
            };
            if concerns {
                return Some(());
            }
        }
    }
}

async fn find(app: &App, tenant: &str, id: &str) -> Result<Job, Problem> {
    let job = app.scheduler.job(tenant, &job_id(id)?).await?;
    job.ok_or_else(|| Problem::missing(format!("there is no job {id}")))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse()
        .map_err(|error| Problem::malformed(format!("{error}")))
}

async fn view(app: &App, job: &Job) -> Result<JobView, Problem> {
    let mut targets = Vec::with_capacity(job.targets.len());
    for target in &job.targets {
        let outcome = app
            .scheduler
            .task(target.task)
            .await?
            .and_then(|task| task.outcome);
        let running = target.tasks().filter_map(|task| app.news.progress(task));
        let progress = running.reduce(Progress::and);
        targets.push(VerdictView::of(&target.name, outcome, progress));
    }
    Ok(JobView::of(job, targets))
}
