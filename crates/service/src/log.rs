//! What a process tells of itself: a log on standard error, and spans for a collector.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::traces::{Traces, TracesError};

/// The log of this process. When it is dropped, the spans that are left are exported.
pub struct Log {
    _traces: Option<Traces>,
}

impl Log {
    /// Starts it: for people, or as JSON, one object a line. Spans are exported if the environment names a collector.
    pub fn start(json: bool) -> Result<Self, TracesError> {
        let traces = Traces::of_environment()?;
        let text = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        let text = match json {
            true => text.json().boxed(),
            false => text.boxed(),
        };
        registry()
            .with(LevelFilter::INFO)
            .with(text)
            .with(traces.as_ref().map(Traces::layer))
            .init();
        Ok(Self { _traces: traces })
    }
}
