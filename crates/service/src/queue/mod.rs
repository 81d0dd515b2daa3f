//! What waits for a worker, fairly between tenants.

mod lines;
mod nats;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use lines::Lines;
pub use nats::Work;

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
    delivery: Option<Delivery>,
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
                Claim {
                    ticket: lines.take(holds).await,
                    lost: 0,
                    delivery: None,
                }
            }
            Self::Work(work) => {
                let (ticket, delivery) = work.take(targets).await;
                Claim {
                    ticket,
                    lost: delivery.lost(),
                    delivery: Some(delivery),
                }
            }
        }
    }

    /// How many wait or are worked on, by target; those without one are under an empty name.
    pub async fn depth(&self) -> Result<HashMap<String, usize>, NatsError> {
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
            None => Ok(()),
            Some(delivery) => delivery.done().await,
        }
    }
}
