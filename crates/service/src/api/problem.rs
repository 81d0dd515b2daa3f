//! What a request gets if it does not get what it asks for: problem details (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::blobs::BlobError;
use crate::nats::NatsError;
use crate::records::RecordError;
use crate::tenants::Exceeded;
use crate::text::shortened;

/// Their media type.
const KIND: HeaderValue = HeaderValue::from_static("application/problem+json");
/// The longest that is said to be wrong: names that somebody has sent are part of it.
const DETAIL_LIMIT: usize = 2000;

/// Seconds that servers take to agree on another one that leads.
const RETRY_AFTER: u64 = 5;

/// Why a request was not answered otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What the status means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what helps.
    detail: String,
    /// Seconds after which it may be otherwise.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: shortened(detail.into(), DETAIL_LIMIT),
            retry_after: None,
        }
    }

    /// The request is not understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The request is understood, and asks for what cannot be.
    pub fn impossible(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// The request is larger than one may be.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The request did not come in time.
    pub fn too_slow(limit: Duration) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request was not all there after {} s", limit.as_secs()),
        )
    }

    /// There is no such thing, or not for who asks.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// There will be, but not yet; or there cannot be any longer.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Nobody knows who asks.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// Who asks may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// Not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// What others have is not to be had now: clients ask again.
    fn cut_off(error: &NatsError) -> Self {
        warn!(%error, "a request cannot be answered now");
        Self::not_yet("the service cannot reach what it keeps: ask again in a moment")
    }

    /// Not now, but soon.
    pub fn not_yet(detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER),
            ..Self::unavailable(detail)
        }
    }

    /// The service's own fault: its log says more than who asks is told.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        error!(%error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the service failed, and its log says why",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, KIND);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let status = match exceeded {
            Exceeded::Object { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Exceeded::OpenJobs(_) | Exceeded::Rate { .. } | Exceeded::Time(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
        };
        Self {
            retry_after: match exceeded {
                Exceeded::Rate { wait, .. } => Some(wait.as_secs() + 1),
                _ => None,
            },
            ..Self::new(status, exceeded.to_string())
        }
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Nats(error) => Self::cut_off(&error),
            error => Self::internal(&error),
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Nats(error) => Self::cut_off(&error),
            error => Self::internal(&error),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(error: BytesRejection) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

/// Has what the framework refuses in the form of all else: it says it in plain text, or only by the status.
pub async fn in_one_form(response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    if !status.is_client_error() || headers.get(header::CONTENT_TYPE) == Some(&KIND) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let detail = match (String::from_utf8_lossy(&text).into_owned(), status) {
        (text, _) if !text.is_empty() => text,
        (_, StatusCode::METHOD_NOT_ALLOWED) => {
            "there is something, but not for this method: /v1/openapi.json says what there is"
                .into()
        }
        _ => "the request is not understood: /v1/openapi.json says what is".into(),
    };
    let mut response = Problem::new(status, detail).into_response();
    // The methods that are allowed are said in a header.
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::CONTENT_TYPE);
    response.headers_mut().extend(head.headers);
    response
}

/// A path that leads nowhere.
pub async fn no_such_path(uri: Uri) -> Problem {
    Problem::missing(format!(
        "there is nothing at {}: /v1/openapi.json says what there is",
        uri.path()
    ))
}
