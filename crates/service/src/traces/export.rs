//! Spans for a collector: OTLP over HTTP, as the environment says.
//!
//! A thread of the SDK's own sends what has gathered. What does not fit is thrown away: nobody ever waits for a collector, but for
//! a moment when the process ends.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, global};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::crypto::ring;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// Whoever sets one of these has a collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// How the service calls itself if the environment does not say.
const NAME: &str = "preverify";
/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what is still to be sent.
const LAST: Duration = Duration::from_secs(5);

/// Spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported as the environment's OTEL_EXPORTER_OTLP_... say: {0}")]
pub struct TracesError(#[from] ExporterBuildError);

/// Exports spans until it is dropped; then what is left is sent.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// As the environment says, if it names a collector.
    pub fn of_environment() -> Result<Option<Self>, TracesError> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !ENDPOINTS.into_iter().any(is_set) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::default())
            .build()?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self {
            provider: SdkTracerProvider::builder()
                .with_resource(resource())
                .with_batch_exporter(exporter)
                .build(),
        }))
    }

    /// What takes the spans of this process: the service's own, and no library's.
    pub fn layer<S>(&self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| {
                metadata.target().starts_with(NAME) && *metadata.level() <= tracing::Level::INFO
            }))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Whoever could not be reached was warned of before.
        let _ = self.provider.shutdown_with_timeout(LAST);
    }
}

fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::from_static_str("service.name"));
    match name {
        Some(name) if !name.as_str().starts_with("unknown_service") => found,
        _ => Resource::builder().with_service_name(NAME).build(),
    }
}

/// How a collector is talked to.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    /// It did not take what was sent last, which is said once and not each time.
    away: AtomicBool,
}

impl Default for Collector {
    fn default() -> Self {
        let provider = Arc::new(ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .tls_config(tls);
        Self {
            agent: config.build().into(),
            away: AtomicBool::new(false),
        }
    }
}

impl Collector {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.to_vec());
        let (head, mut body) = self.agent.run(request)?.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}

#[async_trait]
impl HttpClient for Collector {
    /// Waits for the answer: the thread that calls it has nothing else to do.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let collector = request.uri().clone();
        let sent = self.send(request);
        let failure = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.away.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_away => warn!(%collector, %error, "spans are not taken"),
            None if was_away => info!(%collector, "spans are taken again"),
            _ => {}
        }
        Ok(sent?)
    }
}
