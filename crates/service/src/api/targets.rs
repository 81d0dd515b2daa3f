//! Kernels that verify, who has them, and what waits for them.

use std::fs;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use preverify_target::{AddRequest, DebianKernel, HardwareRequest, MOST_CPUS, TargetError};
use tempfile::TempDir;

use super::App;
use super::caller::{Admin, Caller, Read};
use super::problem::Problem;
use super::views::{QueueView, QueuedView, TargetRequest, TargetView, WorkerView};
use crate::audit::Action;
use crate::directory::Heard;
use crate::targets::{AddError, RemoveError, Targets};

/// What names a kernel of Debian's.
const DEBIAN: &str = "debian:";
/// The longest text about a machine.
const LONGEST: usize = 1000;

/// All targets, by name: those that can be verified for, and those that cannot yet, or could not be prepared.
#[utoipa::path(
    get, path = "/v1/targets", tag = "targets", security(("token" = ["read"])),
    responses((status = 200, description = "Them", body = Vec<TargetView>))
)]
pub async fn list(State(app): State<App>, _caller: Caller<Read>) -> Json<Vec<TargetView>> {
    let ready = app.directory.all().into_iter().map(TargetView::from);
    let unready = app.directory.unready().into_iter();
    let unready = unready.map(|(name, why)| TargetView::unready(name, why));
    let mut all: Vec<_> = ready.chain(unready).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Json(all)
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
    view(&app, &name).map(Json)
}

/// Adds a target, as `preverify target add` does: downloads its kernel, builds the kernel part for it, boots it, and keeps
/// snapshots.
///
/// That takes minutes, and goes on after the answer: `GET` of the address in `Location` says how far it is, and why if it
/// failed. One target at a time is prepared. A failed one is shown until the next is added, or until it is removed. The
/// process that is asked must have workers, and adds the target on its machine.
#[utoipa::path(
    post, path = "/v1/targets", tag = "targets", security(("token" = ["admin"])),
    request_body = TargetRequest,
    responses(
        (status = 202, description = "It is being prepared", body = TargetView,
         headers(("Location" = String, description = "Where it says how far it is"))),
        (status = 409, description = "Not now, or not here", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It cannot be", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn add(
    State(app): State<App>,
    caller: Caller<Admin>,
    Json(request): Json<TargetRequest>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<TargetView>), Problem> {
    let source = request.source.clone();
    let targets = here(&app, &format!("add {source}"))?;
    let Wanted {
        name,
        request,
        files,
    } = Wanted::of(request)?;
    let begun = {
        let (targets, name) = (targets.clone(), name.clone());
        blocking(move || targets.add(name, request, files)).await?
    };
    begun?;
    caller
        .did(&app, Action::AddTarget, format!("{name} {source}"))
        .await?;
    let view = view(&app, &name)?;
    let place = [(header::LOCATION, format!("/v1/targets/{name}"))];
    Ok((StatusCode::ACCEPTED, place, Json(view)))
}

/// Removes a target from the machine of the process that is asked, which must have workers; or forgets one that could not be
/// added.
///
/// Verifications that have begun end as if nothing were. What waits for it ends as failed: at once if this is the only process;
/// otherwise when no worker has held the target for 600 s.
#[utoipa::path(
    delete, path = "/v1/targets/{name}", tag = "targets", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not now, or not here", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn remove(
    State(app): State<App>,
    caller: Caller<Admin>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let targets = here(&app, &format!("remove {name}"))?.clone();
    let removed = {
        let name = name.clone();
        blocking(move || targets.remove(&name)).await?
    };
    match removed {
        Ok(()) => {}
        Err(RemoveError::Unknown(_)) => {
            return Err(match holders(&app, &name) {
                holders if holders.is_empty() => unknown(&app, &name),
                holders => Problem::conflict(format!(
                    "this process does not have `{name}`, but {holders}: run `preverify target remove {name}` there"
                )),
            });
        }
        Err(error @ (RemoveError::Preparing(_) | RemoveError::Busy(_))) => {
            return Err(Problem::conflict(error.to_string()));
        }
        Err(RemoveError::Target(error)) => return Err(Problem::internal(&error)),
    }
    caller.did(&app, Action::RemoveTarget, name).await?;
    Ok(StatusCode::NO_CONTENT)
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

/// What waits for workers, or has one, by target.
///
/// Everybody sees how many tasks there are, and how many are their tenant's; nobody sees whose the others are.
#[utoipa::path(
    get, path = "/v1/queue", tag = "targets", security(("token" = ["read"])),
    responses(
        (status = 200, description = "It", body = QueueView),
        (status = 503, description = "It cannot be seen", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn queue(
    State(app): State<App>,
    caller: Caller<Read>,
) -> Result<Json<QueueView>, Problem> {
    let depth = app.queue.depth().await;
    let depth = depth.map_err(|error| Problem::unavailable(error.to_string()))?;
    let own = depth.of_tenant(&caller.tenant).by_target();
    let known = app.directory.all();
    let mut targets: Vec<_> = depth
        .by_target()
        .into_iter()
        .map(|(identity, tasks)| {
            let mut found = known.iter();
            QueuedView {
                target: found
                    .find(|known| known.identity == identity)
                    .map(|known| known.name.clone()),
                own: own.get(&identity).copied().unwrap_or(0),
                identity: (!identity.is_empty()).then_some(identity),
                tasks,
            }
        })
        .collect();
    targets.sort_by(|a, b| (&a.target, &a.identity).cmp(&(&b.target, &b.identity)));
    let workers = app.directory.workers();
    let sum = |of: fn(&Heard) -> usize| workers.iter().map(of).sum();
    Ok(Json(QueueView {
        slots: sum(|heard| heard.announcement.slots),
        busy: sum(|heard| heard.announcement.busy),
        targets,
    }))
}

/// Says which targets there are.
pub fn unknown(app: &App, name: &str) -> Problem {
    if let Some(why) = app.directory.unready().get(name) {
        return Problem::missing(format!("the target `{name}` is not ready: {why}"));
    }
    if !app.directory.knows_all() {
        return Problem::not_yet(format!(
            "this process has not heard of all workers yet, nor of the target `{name}`: ask again in a moment"
        ));
    }
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

fn view(app: &App, name: &str) -> Result<TargetView, Problem> {
    if let Some(known) = app.directory.named(name) {
        return Ok(known.into());
    }
    match app.directory.unready().remove(name) {
        Some(why) => Ok(TargetView::unready(name.to_owned(), why)),
        None => Err(unknown(app, name)),
    }
}

/// What a request asks for.
struct Wanted {
    name: String,
    request: AddRequest,
    /// What it refers to.
    files: Option<TempDir>,
}

impl Wanted {
    /// Nothing in it names a file of this machine.
    fn of(request: TargetRequest) -> Result<Self, Problem> {
        let source: DebianKernel = request
            .source
            .parse()
            .map_err(|error| Problem::impossible(format!("{error}")))?;
        let name = request.name.unwrap_or_else(|| {
            let bare = request.source.strip_prefix(DEBIAN);
            bare.unwrap_or(&request.source).to_owned()
        });
        for (field, text) in [
            ("cpu", &request.cpu),
            ("command_line", &request.command_line),
        ] {
            let is_plain = |text: &str| {
                text.len() <= LONGEST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            };
            if !text.as_deref().is_none_or(is_plain) {
                return Err(Problem::impossible(format!(
                    "`{field}` has what cannot be there: expected up to {LONGEST} printable ASCII characters"
                )));
            }
        }
        if let Some(cpus) = request.max_cpus
            && !(1..=MOST_CPUS).contains(&cpus)
        {
            return Err(Problem::impossible(format!(
                "`max_cpus` is {cpus}: expected 1 to {MOST_CPUS}"
            )));
        }
        let mut wanted = AddRequest::debian(source, None);
        wanted.hardware = HardwareRequest {
            cpu: request.cpu,
            el2: request.el2,
            command_line: request.command_line,
            max_cpus: request.max_cpus,
            ..HardwareRequest::default()
        };
        let files = match request.fingerprint {
            None => None,
            Some(fingerprint) => {
                let written = TempDir::new().and_then(|folder| {
                    let file = folder.path().join("fingerprint.json");
                    fs::write(&file, fingerprint.to_string())?;
                    wanted.fingerprint = Some(file);
                    Ok(folder)
                });
                Some(written.map_err(|error| Problem::internal(&error))?)
            }
        };
        Ok(Self {
            name,
            request: wanted,
            files,
        })
    }
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Fixed { .. } | AddError::Exists(_) | AddError::Busy(_) => {
                Self::conflict(error.to_string())
            }
            AddError::Target(error @ TargetError::Name { .. }) => {
                Self::impossible(error.to_string())
            }
            AddError::Target(error) => Self::internal(&error),
        }
    }
}

/// The targets of this process; without workers it has none.
fn here<'a>(app: &'a App, what: &str) -> Result<&'a Targets, Problem> {
    app.targets.as_ref().ok_or_else(|| {
        let workers = app.directory.workers().into_iter();
        let workers: Vec<_> = workers.map(|heard| heard.announcement.worker).collect();
        let where_ = match &workers[..] {
            [] => "there are none at this time".to_owned(),
            workers => format!("there are {}", workers.join(", ")),
        };
        Problem::conflict(format!(
            "this process has no workers, and targets are where workers are: run `preverify target {what}` on the machine of \
             one, which sees it without a restart; {where_}"
        ))
    })
}

/// The workers that hold a target, in words.
fn holders(app: &App, name: &str) -> String {
    let holds = |heard: &Heard| {
        let mut targets = heard.announcement.targets.iter();
        targets.any(|known| known.name == name)
    };
    let workers = app.directory.workers().into_iter().filter(holds);
    let names: Vec<_> = workers.map(|heard| heard.announcement.worker).collect();
    names.join(", ")
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::internal(&error))
}
