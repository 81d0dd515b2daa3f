//! How much tenants may ask for.

use axum::Json;
use axum::extract::{Path, State};

use super::App;
use super::caller::{Admin, Caller};
use super::problem::Problem;
use super::views::TenantView;
use crate::audit::Action;
use crate::tenants::Quota;
use crate::tokens::TenantName;

/// A tenant: its quota, and what it has used of it.
#[utoipa::path(
    get, path = "/v1/tenants/{name}", tag = "tenants", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It", body = TenantView))
)]
pub async fn show(
    State(app): State<App>,
    _caller: Caller<Admin>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    Ok(Json(view(&app, tenant(&name)?).await?))
}

/// Gives a tenant a quota of its own.
#[utoipa::path(
    put, path = "/v1/tenants/{name}", tag = "tenants", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name")),
    request_body = Quota,
    responses((status = 200, description = "It", body = TenantView))
)]
pub async fn set_quota(
    State(app): State<App>,
    caller: Caller<Admin>,
    Path(name): Path<String>,
    Json(quota): Json<Quota>,
) -> Result<Json<TenantView>, Problem> {
    let name = tenant(&name)?;
    app.tenants.set_quota(&name, quota).await?;
    caller.did(&app, Action::SetQuota, &name).await?;
    Ok(Json(view(&app, name).await?))
}

async fn view(app: &App, name: String) -> Result<TenantView, Problem> {
    Ok(TenantView {
        quota: app.tenants.quota(&name).await?,
        seconds_today: app.tenants.used(&name).await?.as_secs(),
        open_jobs: app.tenants.open_jobs(&name),
        name,
    })
}

fn tenant(name: &str) -> Result<String, Problem> {
    let name: Result<TenantName, _> = name.parse();
    name.map(String::from)
        .map_err(|error| Problem::malformed(format!("{error}")))
}
