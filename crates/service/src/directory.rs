//! The targets that can be verified for: what workers say that they hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::nats::{Nats, NatsError, subject};
use crate::random;
use crate::targets::{Held, Known, Targets, Unready};

/// How often a worker says what it holds.
const OFTEN: Duration = Duration::from_secs(2);
/// How long that holds good.
const GOOD: Duration = Duration::from_secs(10);
/// How long a target may have no worker, as while its machine starts anew: so long it has its name, and what wants it waits.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long it may take until who listens has heard of all workers.
const ALL_HEARD: Duration = Duration::from_secs(3);

/// A worker process, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What the process calls itself.
    pub worker: String,
    /// Tasks at the same time.
    pub slots: usize,
    /// Tasks at this time.
    pub busy: usize,
    /// The targets that it holds.
    pub targets: Vec<Known>,
    /// Those that it does not hold yet, or cannot, by name.
    pub unready: BTreeMap<String, Unready>,
}

/// The workers of this process.
#[derive(Clone, Debug)]
pub struct Own {
    worker: String,
    slots: usize,
    busy: Busy,
    targets: Targets,
}

/// How many workers of a process have something to do.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicUsize>);

/// All workers that were heard of lately.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    own: Option<Own>,
    heard: Arc<RwLock<HashMap<String, Heard>>>,
    /// Where others are heard, if there are any.
    nats: Option<Nats>,
}

/// What a worker has said.
#[derive(Clone, Debug)]
pub struct Heard {
    /// It.
    pub announcement: Announcement,
    /// When.
    pub at: Timestamp,
    good_until: Instant,
    known_until: Instant,
}

impl Own {
    /// So many workers for these targets.
    pub fn new(targets: Targets, slots: usize, busy: Busy) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        Self {
            worker: format!("{host}-{}", hex::encode(random::bytes::<4>())),
            slots,
            busy,
            targets,
        }
    }

    /// What the process calls itself.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// What there is to say now.
    fn announcement(&self) -> Announcement {
        let held = self.targets.held();
        Announcement {
            worker: self.worker.clone(),
            slots: self.slots,
            busy: self.busy.count(),
            targets: held.values().map(Held::known).collect(),
            unready: self.targets.unready(),
        }
    }

    /// Says it until the process ends.
    pub fn repeat(self, nats: &Nats) {
        let client = nats.client.clone();
        let mut changes = self.targets.changes();
        tokio::spawn(async move {
            loop {
                let text = serde_json::to_vec(&self.announcement());
                let text = text.expect("all its keys are strings");
                let told = client.publish(subject("workers"), text.into()).await;
                if let Err(error) = told {
                    warn!(%error, "nobody hears which targets are held here");
                }
                // What changes is told at once.
                let _ = tokio::time::timeout(OFTEN, changes.changed()).await;
            }
        });
    }
}

impl Directory {
    /// This process alone.
    pub fn of(own: Option<Own>) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// This process, and all that have the same server.
    pub async fn shared(own: Option<Own>, nats: &Nats) -> Result<Self, NatsError> {
        let heard = nats.client.subscribe(subject("workers")).await;
        let mut heard = heard.map_err(NatsError::of("hear of workers"))?;
        let directory = Self {
            nats: Some(nats.clone()),
            ..Self::of(own)
        };
        let here = directory.clone();
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                match serde_json::from_slice(&message.payload) {
                    Ok(announcement) => here.hear(Heard::now(announcement)),
                    Err(error) => warn!(%error, "a worker is not understood"),
                }
            }
        });
        Ok(directory)
    }

    /// Whether all workers have been heard, if they have anything to say.
    pub fn knows_all(&self) -> bool {
        let nats = self.nats.as_ref();
        nats.is_none_or(|nats| nats.connected_for() > ALL_HEARD)
    }

    /// The target of a name; one that was held lately waits for its worker. If workers hold several of that name, it is the
    /// one with the greatest identity, for all who ask.
    pub fn named(&self, name: &str) -> Option<Known> {
        self.by_name().remove(name)
    }

    /// All targets, by name.
    pub fn all(&self) -> Vec<Known> {
        self.by_name().into_values().collect()
    }

    /// Those that somebody does not hold yet, or cannot, and nobody holds: by name.
    pub fn unready(&self) -> BTreeMap<String, Unready> {
        let said = self.workers().into_iter();
        let mut unready: BTreeMap<_, _> = said.flat_map(|said| said.announcement.unready).collect();
        let held = self.by_name();
        unready.retain(|name, _| !held.contains_key(name));
        unready
    }

    /// The identities of all targets that somebody holds.
    pub fn identities(&self) -> Vec<String> {
        let held = self.workers().into_iter();
        let held = held.flat_map(|said| said.announcement.targets);
        held.map(|known| known.identity).collect()
    }

    /// All workers, by name.
    pub fn workers(&self) -> Vec<Heard> {
        let heard = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        let good = heard.iter().filter(|(_, heard)| heard.is_good());
        let mut workers: BTreeMap<_, _> = good
            .map(|(worker, heard)| (worker.clone(), heard.clone()))
            .collect();
        // Of itself, a process knows what it would hear later.
        if let Some(own) = &self.own {
            workers.insert(own.worker.clone(), Heard::now(own.announcement()));
        }
        workers.into_values().collect()
    }

    fn by_name(&self) -> BTreeMap<String, Known> {
        let mut by_name = greatest(self.workers().into_iter());
        let heard = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        let known = heard.values().filter(|heard| heard.is_known());
        for (name, held_lately) in greatest(known.cloned()) {
            by_name.entry(name).or_insert(held_lately);
        }
        by_name
    }

    fn hear(&self, said: Heard) {
        let mut heard = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, heard| heard.is_known());
        heard.insert(said.announcement.worker.clone(), said);
    }
}

impl Heard {
    fn now(announcement: Announcement) -> Self {
        let now = Instant::now();
        Self {
            announcement,
            at: Timestamp::now(),
            good_until: now + GOOD,
            known_until: now + PATIENCE,
        }
    }

    fn is_good(&self) -> bool {
        Instant::now() < self.good_until
    }

    fn is_known(&self) -> bool {
        Instant::now() < self.known_until
    }
}

/// What is held, by name; of several with one name, the one with the greatest identity.
fn greatest(said: impl Iterator<Item = Heard>) -> BTreeMap<String, Known> {
    let mut by_name: BTreeMap<String, Known> = BTreeMap::new();
    for known in said.flat_map(|said| said.announcement.targets) {
        let place = by_name.entry(known.name.clone());
        let place = place.or_insert_with(|| known.clone());
        if known.identity > place.identity {
            *place = known;
        }
    }
    by_name
}

impl Busy {
    /// Somebody has something to do for as long as the answer lives.
    pub fn begin(&self) -> impl Drop + use<> {
        struct Ends(Busy);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Ends(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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
        let (now, later) = (Instant::now(), Instant::now() + GOOD);
        let says = |worker: &str, targets: &[Known], good_until, known_until| {
            let announcement = Announcement {
                worker: worker.into(),
                slots: 1,
                busy: 0,
                targets: targets.to_vec(),
                unready: [("v".to_owned(), Unready::Preparing("boot".into()))].into(),
            };
            directory.hear(Heard {
                good_until,
                known_until,
                ..Heard::now(announcement)
            });
        };
        says("a", &[known("x", "1"), known("y", "1")], later, later);
        says("b", &[known("x", "2")], later, later);
        // One that was held lately still has its name, but for one that is held now.
        says("c", &[known("y", "2"), known("z", "1")], now, later);
        says("d", &[known("w", "1")], later, later);
        says("e", &[known("u", "1")], now, now);
        let all: Vec<_> = directory
            .all()
            .into_iter()
            .map(|found| found.name)
            .collect();
        assert_eq!(all, ["w", "x", "y", "z"]);
        assert_eq!(directory.named("x"), Some(known("x", "2")));
        assert_eq!(directory.named("y"), Some(known("y", "1")));
        assert_eq!(directory.named("z"), Some(known("z", "1")));
        assert_eq!(directory.named("u"), None);
        // What a worker holds no longer, it does not say any more.
        says("b", &[], later, later);
        assert_eq!(directory.named("x"), Some(known("x", "1")));
        assert_eq!(directory.workers().len(), 3);
        assert_eq!(directory.identities().len(), 3);
        // Who is silent prepares nothing, either; and what somebody holds is ready.
        let unready = || directory.unready().into_keys().collect::<Vec<_>>();
        assert_eq!(unready(), ["v"]);
        says("b", &[known("v", "1")], later, later);
        assert!(unready().is_empty());
    }
}
