//! Verifiers that wait for an object, so that small ones do not wait for their verifier.
//!
//! Each verifies one object and ends, since what kernels have verified before shows in their statistics. When one is taken,
//! another is started in its place.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use preverify_pipeline::{BuildError, Limits, Verifier};
use preverify_target::Target;

use crate::targets::{AllHeld, Held};

/// Two boots of a target's kernel.
pub type Warm = Verifier<Arc<Target>>;

/// Verifiers that wait, so many at most.
#[derive(Clone)]
pub struct Pool {
    at_most: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    verifiers: VecDeque<(String, Warm)>,
    /// The identities of the targets that they may be of.
    wanted: HashSet<String>,
}

impl Pool {
    /// Room for so many. Each has two machines with the memory of their target.
    pub fn new(at_most: usize) -> Self {
        Self {
            at_most,
            waiting: Arc::default(),
        }
    }

    /// A verifier that has verified nothing: one that waits, or a new one.
    pub fn take(&self, held: &Held, limits: Limits) -> Result<Warm, BuildError> {
        if limits.more_memory(&held.target).is_some() {
            return Verifier::start(held.target.clone(), limits);
        }
        let found = {
            let waiting = &mut self.waiting().verifiers;
            let place = waiting
                .iter()
                .position(|(identity, _)| *identity == held.identity);
            place.and_then(|place| waiting.remove(place))
        };
        match found {
            Some((_, mut verifier)) => {
                verifier.limit(limits);
                Ok(verifier)
            }
            None => Verifier::start(held.target.clone(), limits),
        }
    }

    /// Starts a verifier for whoever comes next, beside what this thread does. The one that has waited longest makes room.
    pub fn refill(&self, held: &Held) {
        if self.at_most == 0 {
            return;
        }
        let (pool, held) = (self.clone(), held.clone());
        // If there is no thread, or no verifier, the next one who wants one sees why.
        let _ = thread::Builder::new().name("refill".into()).spawn(move || {
            if let Ok(verifier) = Verifier::start(held.target, Limits::default()) {
                pool.put(held.identity, verifier);
            }
        });
    }

    /// Those of other targets than these end, also those that are about to wait.
    pub fn keep(&self, held: &AllHeld) {
        let gone: VecDeque<_> = {
            let mut waiting = self.waiting();
            waiting.wanted = held.values().map(|held| held.identity.clone()).collect();
            let Waiting { verifiers, wanted } = &mut *waiting;
            let (kept, gone) = verifiers
                .drain(..)
                .partition(|(identity, _)| wanted.contains(identity));
            *verifiers = kept;
            gone
        };
        // Their machines end without the lock.
        drop(gone);
    }

    fn put(&self, identity: String, verifier: Warm) {
        let evicted = {
            let mut waiting = self.waiting();
            if !waiting.wanted.contains(&identity) {
                Some((identity, verifier))
            } else {
                waiting.verifiers.push_back((identity, verifier));
                match waiting.verifiers.len() > self.at_most {
                    true => waiting.verifiers.pop_front(),
                    false => None,
                }
            }
        };
        drop(evicted);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}
