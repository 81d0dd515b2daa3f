//! How the service does, for Prometheus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::task::Outcome;

/// What is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    jobs: Counter,
    answered: Counter,
    tasks: Family<How, Counter>,
    seconds: Histogram,
    waiting: Family<For, Gauge>,
}

/// How a task has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    outcome: &'static str,
}

/// For which target a task waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct For {
    target: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("preverify");
        let jobs = Counter::default();
        registry.register("jobs", "Jobs that were submitted", jobs.clone());
        let answered = Counter::default();
        let help =
            "Jobs that had ended when they were submitted, since the same was verified before";
        registry.register("jobs_answered", help, answered.clone());
        let tasks = Family::default();
        registry.register(
            "tasks",
            "Verifications and mergings that have ended",
            tasks.clone(),
        );
        // From 10 ms to an hour and a half.
        let seconds = Histogram::new(exponential_buckets(0.01, 2.0, 20));
        let help = "How long a task took a worker";
        registry.register_with_unit("task", help, Unit::Seconds, seconds.clone());
        let waiting = Family::default();
        registry.register(
            "waiting",
            "Tasks that wait for a worker or have one, by target",
            waiting.clone(),
        );
        Self {
            registry: registry.into(),
            jobs,
            answered,
            tasks,
            seconds,
            waiting,
        }
    }
}

impl Metrics {
    /// A job was submitted, and may have ended at once.
    pub fn submitted(&self, ended: bool) {
        self.jobs.inc();
        if ended {
            self.answered.inc();
        }
    }

    /// A worker has ended a task.
    pub fn ended(&self, outcome: &Outcome, time: Duration) {
        let outcome = outcome.word();
        self.tasks.get_or_create(&How { outcome }).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// All of it as text. So many tasks wait for each target.
    pub fn text(&self, waiting: HashMap<String, usize>) -> String {
        self.waiting.clear();
        for (target, count) in waiting {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.waiting.get_or_create(&For { target }).set(count);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes whatever is written");
        text
    }
}
