//! What waits for a worker, fairly between tenants.

mod lines;
mod nats;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use lines::Lines;
pub use nats::Work;

use lines::Taken;

use crate::nats::NatsError;
use crate::task::TaskId;
use crate::traces::Origin;
use nats::Delivery;

/// A task that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which.
    pub task: TaskId,
    /// Who wanted it first.
    pub tenant: String,
    /// The target that its worker must hold, if it needs one.
    pub target: Option<String>,
    /// The span in which it was wanted.
    #[serde(default, skip_serializing_if = "Origin::is_none")]
    pub origin: Origin,
}

/// The queue of a service.
#[derive(Clone, Debug)]
pub enum Queue {
    /// In this process.
    Lines(Lines),
    /// Where the workers of other processes take from, too.
    Work(Arc<Work>),
}

/// A task that was taken. If its worker dies before it is done, somebody else gets it.
#[derive(Debug)]
pub struct Claim {
    /// What is to be done.
    pub ticket: Ticket,
    /// How many workers have taken it before, and were not heard of again.
    pub lost: u32,
    delivery: Delivered,
}

/// How a task came.
#[derive(Debug)]
enum Delivered {
    Here { _taken: Taken },
    Elsewhere(Delivery),
}

/// How many tasks wait or are worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// By target, if they need one, and tenant.
    lines: HashMap<(Option<String>, String), usize>,
}

impl Queue {
    /// Adds a task, unless it waits already.
    pub async fn push(&self, ticket: Ticket) -> Result<(), NatsError> {
        match self {
            Self::Lines(lines) => {
                lines.push(ticket);
                Ok(())
            }
            Self::Work(work) => work.push(&ticket).await,
        }
    }

    /// Waits for a task whose target is one of these, or that needs none.
    pub async fn take(&self, targets: &[String]) -> Claim {
        match self {
            Self::Lines(lines) => {
                let holds = |target: &str| targets.iter().any(|held| held == target);
                Claim::here(lines.take(holds).await)
            }
            Self::Work(work) => Claim::elsewhere(work.take(targets).await),
        }
    }

    /// Takes the next task for exactly this target, if one waits.
    pub async fn withdraw(&self, target: &str) -> Result<Option<Claim>, NatsError> {
        match self {
            Self::Lines(lines) => Ok(lines.withdraw(target).map(Claim::here)),
            Self::Work(work) => Ok(work.withdraw(target).await?.map(Claim::elsewhere)),
        }
    }

    /// How many wait or are worked on.
    pub async fn depth(&self) -> Result<Depth, NatsError> {
        match self {
            Self::Lines(lines) => Ok(lines.depth()),
            Self::Work(work) => work.depth().await,
        }
    }
}

impl Claim {
    /// It is done: nobody else gets it.
    pub async fn done(self) -> Result<(), NatsError> {
        match self.delivery {
            Delivered::Here { .. } => Ok(()),
            Delivered::Elsewhere(delivery) => delivery.done().await,
        }
    }

    fn here((ticket, taken): (Ticket, Taken)) -> Self {
        Self {
            ticket,
            lost: 0,
            delivery: Delivered::Here { _taken: taken },
        }
    }

    fn elsewhere((ticket, delivery): (Ticket, Delivery)) -> Self {
        Self {
            ticket,
            lost: delivery.lost(),
            delivery: Delivered::Elsewhere(delivery),
        }
    }
}

impl Depth {
    /// By target; what needs none is under an empty name.
    pub fn by_target(&self) -> HashMap<String, usize> {
        let mut depth = HashMap::new();
        for ((target, _), count) in &self.lines {
            *depth.entry(target.clone().unwrap_or_default()).or_default() += count;
        }
        depth
    }

    /// Those of one tenant.
    pub fn of_tenant(&self, name: &str) -> Self {
        let mut lines = self.lines.clone();
        lines.retain(|(_, tenant), _| tenant == name);
        Self { lines }
    }
}

impl FromIterator<((Option<String>, String), usize)> for Depth {
    fn from_iter<I: IntoIterator<Item = ((Option<String>, String), usize)>>(counts: I) -> Self {
        let mut lines = HashMap::new();
        for (line, count) in counts {
            *lines.entry(line).or_default() += count;
        }
        Self { lines }
    }
}
