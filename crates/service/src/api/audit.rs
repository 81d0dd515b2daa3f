//! Who did what.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::App;
use super::caller::{Admin, Caller};
use super::problem::Problem;
use super::views::EntryView;

/// Entries that an answer has if it is not said how many.
const USUAL: usize = 1000;
/// Entries that an answer is cut after.
const MOST: usize = 10_000;

/// Which part of the log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Entries from this number on: from the first, if it is not given.
    from: Option<u64>,
    /// So many at least, if there are so many: 1000 if it is not given, and 10000 at most.
    limit: Option<usize>,
}

/// The audit log, from a number on.
///
/// Each entry has the SHA-256 of the hash before it, in hexadecimal, and of itself: `["number", {"at", "tenant", "token",
/// "action", "subject"}]` as JSON without spaces. Whoever keeps a hash can tell later whether anything before it was changed.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", security(("token" = ["admin"])), params(Part),
    responses((status = 200, description = "Entries, the oldest first", body = Vec<EntryView>))
)]
pub async fn read(
    State(app): State<App>,
    _caller: Caller<Admin>,
    Query(part): Query<Part>,
) -> Result<Json<Vec<EntryView>>, Problem> {
    let limit = part.limit.unwrap_or(USUAL).min(MOST);
    let entries = app.audit.read(part.from.unwrap_or(0), limit).await?;
    Ok(Json(entries.into_iter().map(EntryView::of).collect()))
}
