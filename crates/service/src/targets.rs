//! The targets that this process can verify for.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use preverify_target::{Store, Target, TargetError};
use tracing::warn;

use crate::directory::Known;
use crate::verify::architecture;

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

    /// A target with an identity: if there are several, they are the same but for their names.
    pub fn identified(&self, identity: &str) -> Option<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values()
            .find(|held| held.identity == identity)
            .cloned()
    }

    /// The identities of all.
    pub fn identities(&self) -> Vec<String> {
        self.all().into_iter().map(|held| held.identity).collect()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().cloned().collect()
    }
}

impl Held {
    /// What others are told of it.
    pub fn known(&self) -> Known {
        let facts = self.target.facts();
        Known {
            name: self.target.name().to_owned(),
            identity: self.identity.clone(),
            release: facts.release.clone(),
            architecture: architecture(&self.target).to_string(),
            build_id: match self.target.device() {
                Some(device) => device.build_id_text(),
                None => facts.build_id_text(),
            },
        }
    }

    fn new(target: Target, progress: &mut dyn FnMut(&str)) -> Result<Self, TargetError> {
        target.prepare(progress)?;
        Ok(Self {
            identity: target.identity()?,
            target: Arc::new(target),
        })
    }
}
