//! The targets that this process can verify for.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use preverify_target::{Store, Target, TargetError};
use tracing::warn;

/// A target, ready to be verified for.
#[derive(Clone, Debug)]
pub struct Held {
    /// It.
    pub target: Arc<Target>,
    /// [`Target::identity`].
    pub identity: String,
}

/// Targets of a store, by name.
#[derive(Clone, Debug)]
pub struct Targets {
    held: Arc<RwLock<BTreeMap<String, Held>>>,
}

impl Targets {
    /// Takes those of a store that have these names; without names all, but for what cannot be used here. Snapshots that other
    /// versions made are made anew, which takes a while; `progress` is told.
    pub fn of(
        store: &Store,
        names: &[String],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, TargetError> {
        let mut held = BTreeMap::new();
        if names.is_empty() {
            for target in store.list()? {
                let name = target.name().to_owned();
                match Held::new(target, progress) {
                    Ok(target) => drop(held.insert(name, target)),
                    Err(error) => warn!(target = name, %error, "a target is left out"),
                }
            }
        }
        for name in names {
            held.insert(name.clone(), Held::new(store.get(name)?, progress)?);
        }
        Ok(Self {
            held: Arc::new(RwLock::new(held)),
        })
    }

    /// The target of a name.
    pub fn named(&self, name: &str) -> Option<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(name).cloned()
    }

    /// A target with an identity: if there are several, they are the same but for their names.
    pub fn identified(&self, identity: &str) -> Option<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values()
            .find(|held| held.identity == identity)
            .cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().cloned().collect()
    }
}

impl Held {
    fn new(target: Target, progress: &mut dyn FnMut(&str)) -> Result<Self, TargetError> {
        target.prepare(progress)?;
        Ok(Self {
            identity: target.identity()?,
            target: Arc::new(target),
        })
    }
}
