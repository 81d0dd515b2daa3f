//! Where time goes: spans that belong to one trace, from a client's request to the bundle, whatever process works on it.
//!
//! ```text
//! POST /v1/jobs            goes on with the client's `traceparent`, if the request has one
//!   submit                 a task keeps where it comes from, and so does its ticket
//!     task                 on a worker
//!       verification       with a span for each step
//!       merge
//! ```
//!
//! Spans are those of `tracing`. If nothing exports them, they are context of the log, and nothing is kept of a trace.

mod export;

use std::collections::BTreeMap;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use opentelemetry_http::HeaderExtractor;
use serde::{Deserialize, Serialize};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use export::{Traces, TracesError};

/// The most of a field that is kept: what the recommendation says that `tracestate` has room for.
const LONGEST: usize = 512;

/// The span that something comes from, as W3C's Trace Context has it: `traceparent`, and `tracestate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origin(BTreeMap<String, String>);

impl Origin {
    /// The span that this is called in, if it is exported.
    pub fn here() -> Self {
        let mut origin = Self::default();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&Span::current().context(), &mut origin);
        });
        origin
    }

    /// Whether it is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Injector for Origin {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() && value.len() <= LONGEST {
            self.0.insert(key.to_owned(), value);
        }
    }
}

impl Extractor for Origin {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Has a new span go on with the trace that something comes from, and tells the log which that is in its field `trace_id`.
pub fn go_on(span: &Span, origin: &dyn Extractor) {
    let parent = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), origin)
    });
    // It fails if nobody exports spans.
    if span.set_parent(parent).is_ok() {
        let context = span.context();
        let trace = context.span().span_context().trace_id();
        span.record("trace_id", tracing::field::display(trace));
    }
}

/// The span of a request.
pub async fn of_request(request: Request, next: Next) -> Response {
    let method = request.method();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        trace_id = Empty,
    );
    go_on(&span, &HeaderExtractor(request.headers()));
    let answer = next.run(request).instrument(span.clone()).await;
    // Only signed numbers are exported as numbers.
    let status = i64::from(answer.status().as_u16());
    span.record("http.response.status_code", status);
    if answer.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    answer
}
