//! The targets that can be verified for: what workers say that they hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::nats::{Nats, NatsError, subject};
use crate::random;
use crate::targets::Targets;

/// How often a worker says what it holds.
const OFTEN: Duration = Duration::from_secs(2);
/// How long that holds good.
const GOOD: Duration = Duration::from_secs(10);

/// What is known of a target where it is not held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// [`preverify_target::Target::identity`].
    pub identity: String,
    /// `uname -r` of the kernel that verifies.
    pub release: String,
    /// What processors it is for.
    pub architecture: String,
    /// The GNU build id of the kernel that devices run.
    pub build_id: String,
}

/// A worker process, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What the process calls itself.
    pub worker: String,
    /// Verifications at the same time.
    pub slots: usize,
    /// The targets that it holds.
    pub targets: Vec<Known>,
}

/// All workers that were heard of lately.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    heard: Arc<RwLock<HashMap<String, Heard>>>,
}

#[derive(Debug)]
struct Heard {
    announcement: Announcement,
    /// Until when it holds good; for ever, if it is this process.
    until: Option<Instant>,
}

impl Announcement {
    /// What this process says of itself.
    pub fn of(targets: &Targets, slots: usize) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        Self {
            worker: format!("{host}-{}", hex::encode(random::bytes::<4>())),
            slots,
            targets: targets.all().iter().map(|held| held.known()).collect(),
        }
    }

    /// Says it until the process ends.
    pub fn repeat(self, nats: &Nats) {
        let (client, text) = (
            nats.client.clone(),
            serde_json::to_vec(&self).expect("all its keys are strings"),
        );
        tokio::spawn(async move {
            loop {
                let told = client
                    .publish(subject("workers"), text.clone().into())
                    .await;
                if let Err(error) = told {
                    warn!(%error, "nobody hears which targets are held here");
                }
                tokio::time::sleep(OFTEN).await;
            }
        });
    }
}

impl Directory {
    /// This process alone.
    pub fn of(own: Announcement) -> Self {
        let directory = Self::default();
        directory.hear(own, None);
        directory
    }

    /// All processes that have the same server.
    pub async fn shared(nats: &Nats) -> Result<Self, NatsError> {
        let heard = nats.client.subscribe(subject("workers")).await;
        let mut heard = heard.map_err(NatsError::of("hear of workers"))?;
        let directory = Self::default();
        let here = directory.clone();
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                match serde_json::from_slice(&message.payload) {
                    Ok(announcement) => here.hear(announcement, Some(Instant::now() + GOOD)),
                    Err(error) => warn!(%error, "a worker is not understood"),
                }
            }
        });
        Ok(directory)
    }

    /// The target of a name. If workers hold several of that name, it is the one with the greatest identity, for all who ask.
    pub fn named(&self, name: &str) -> Option<Known> {
        self.by_name().remove(name)
    }

    /// All targets, by name.
    pub fn all(&self) -> Vec<Known> {
        self.by_name().into_values().collect()
    }

    /// All workers, by name.
    pub fn workers(&self) -> Vec<Announcement> {
        let heard = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        let mut workers: Vec<_> = heard
            .values()
            .filter(|heard| heard.is_good())
            .map(|heard| heard.announcement.clone())
            .collect();
        workers.sort_by(|a, b| a.worker.cmp(&b.worker));
        workers
    }

    fn by_name(&self) -> BTreeMap<String, Known> {
        let mut by_name: BTreeMap<String, Known> = BTreeMap::new();
        for known in self.workers().into_iter().flat_map(|worker| worker.targets) {
            let place = by_name.entry(known.name.clone());
            let place = place.or_insert_with(|| known.clone());
            if known.identity > place.identity {
                *place = known;
            }
        }
        by_name
    }

    fn hear(&self, announcement: Announcement, until: Option<Instant>) {
        let mut heard = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, heard| heard.is_good());
        let said = Heard {
            announcement,
            until,
        };
        heard.insert(said.announcement.worker.clone(), said);
    }
}

impl Heard {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, identity: &str) -> Known {
        Known {
            name: name.into(),
            identity: identity.into(),
            release: String::new(),
            architecture: String::new(),
            build_id: String::new(),
        }
    }

    #[test]
    fn workers_that_are_silent_are_forgotten() {
        let directory = Directory::default();
        let says = |worker: &str, targets: &[Known], until| {
            let announcement = Announcement {
                worker: worker.into(),
                slots: 1,
                targets: targets.to_vec(),
            };
            directory.hear(announcement, until);
        };
        let later = Some(Instant::now() + GOOD);
        says("a", &[known("x", "1"), known("y", "1")], later);
        says("b", &[known("x", "2")], later);
        says("c", &[known("z", "1")], Some(Instant::now()));
        says("d", &[known("w", "1")], None);
        let all: Vec<_> = directory
            .all()
            .into_iter()
            .map(|found| found.name)
            .collect();
        assert_eq!(all, ["w", "x", "y"]);
        assert_eq!(directory.named("x"), Some(known("x", "2")));
        assert_eq!(directory.named("z"), None);
        // What a worker holds no longer, it does not say any more.
        says("b", &[], later);
        assert_eq!(directory.named("x"), Some(known("x", "1")));
        assert_eq!(directory.workers().len(), 3);
    }
}
