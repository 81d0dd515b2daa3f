//! The targets that this process can verify for: those of a store, as they come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use preverify_abi::kinds::Architecture;
use preverify_target::{AddRequest, Stamp, Store, Target, TargetError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

/// A target, ready to be verified for. What it needs stays in the store for as long as this is there.
#[derive(Clone, Debug)]
pub struct Held {
    /// It.
    pub target: Arc<Target>,
    /// [`Target::identity`].
    pub identity: String,
}

/// What is known of a target where it is not held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// [`Target::identity`].
    pub identity: String,
    /// `uname -r` of the kernel that verifies.
    pub release: String,
    /// What processors it is for.
    pub architecture: String,
    /// The GNU build id of the kernel that devices run.
    pub build_id: String,
}

/// Those that are ready, by name.
pub type AllHeld = Arc<BTreeMap<String, Held>>;

/// Why a target is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unready {
    /// It will be; this is being done.
    Preparing(String),
    /// It will not be, for this reason.
    Failed(String),
}

/// Targets of a store.
#[derive(Clone, Debug)]
pub struct Targets {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// The names of those to take; all, if there are none.
    only: Vec<String>,
    held: watch::Sender<AllHeld>,
    /// Those of the store that are not ready.
    unready: Mutex<BTreeMap<String, Unready>>,
    /// What is being added to the store, or failed to be the last time.
    adding: Mutex<Option<(String, Unready)>>,
    /// What was seen of the store. Who looks has it.
    seen: Mutex<BTreeMap<String, Stamp>>,
    /// What is held no longer here, and may still be used.
    leaving: Mutex<Vec<Weak<Target>>>,
}

/// A target is not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It would not be taken up.
    #[error(
        "this process verifies for the targets that it was started with (`--target {}`): start it without `--target`, or \
         with `--target {name}` once `preverify target add` has made that",
        only.join(" --target ")
    )]
    Fixed { name: String, only: Vec<String> },
    /// There is one.
    #[error("there is a target `{0}` already: remove it first, or give another name")]
    Exists(String),
    /// There is something else to do.
    #[error("`{0}` is being prepared: one target is at a time")]
    Busy(String),
    /// It cannot be.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A target is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// This process does not have it.
    #[error("this process has no target `{0}`")]
    Unknown(String),
    /// It is not there yet.
    #[error("`{0}` is being prepared: remove it once it is ready, or has failed")]
    Preparing(String),
    /// It would take too long.
    #[error(
        "the targets are being changed, as when one is prepared: remove `{0}` once that has ended"
    )]
    Busy(String),
    /// It cannot be.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Targets {
    /// Takes those of a store that have these names; without names all, but for what cannot be used here. Snapshots that other
    /// versions made are made anew, which takes a while; `progress` is told.
    pub fn of(
        store: &Store,
        only: &[String],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, TargetError> {
        for name in only {
            store.get(name)?.prepare(progress)?;
        }
        let targets = Self {
            shared: Arc::new(Shared {
                store: store.clone(),
                only: only.to_vec(),
                held: watch::Sender::new(AllHeld::default()),
                unready: Mutex::default(),
                adding: Mutex::default(),
                seen: Mutex::default(),
                leaving: Mutex::default(),
            }),
        };
        targets.look(progress)?;
        Ok(targets)
    }

    /// All that are ready, by name.
    pub fn held(&self) -> AllHeld {
        self.shared.held.borrow().clone()
    }

    /// The same, as it changes.
    pub fn changes(&self) -> watch::Receiver<AllHeld> {
        self.shared.held.subscribe()
    }

    /// Those that are not ready, by name.
    pub fn unready(&self) -> BTreeMap<String, Unready> {
        let mut unready = lock(&self.shared.unready).clone();
        if let Some((name, why)) = lock(&self.shared.adding).clone() {
            unready.entry(name).or_insert(why);
        }
        let held = self.held();
        unready.retain(|name, _| !held.contains_key(name));
        unready
    }

    /// Looks what is in the store: what is new is prepared and then ready, what is gone is held no longer. Blocks.
    pub fn look(&self, progress: &mut dyn FnMut(&str)) -> Result<(), TargetError> {
        let mut seen = lock(&self.shared.seen);
        let mut stamps = self.shared.store.stamps()?;
        stamps.retain(|name, _| self.takes(name));
        self.let_go(|name| !stamps.contains_key(name));
        for (name, stamp) in &stamps {
            if seen.get(name) != Some(stamp) {
                self.take_up(name, progress);
            }
        }
        *seen = stamps;
        drop(seen);
        self.tidy()
    }

    /// Begins to add a target under a name. How far it is shows among those that are not ready, until it is. What the request
    /// refers to can be kept until it has been read.
    pub fn add(
        &self,
        name: String,
        mut request: AddRequest,
        keep: impl Send + 'static,
    ) -> Result<(), AddError> {
        request.name = Some(name.clone());
        request.check()?;
        if !self.takes(&name) {
            let only = self.shared.only.clone();
            return Err(AddError::Fixed { name, only });
        }
        {
            let mut adding = lock(&self.shared.adding);
            if let Some((other, Unready::Preparing(_))) = &*adding {
                return Err(AddError::Busy(other.clone()));
            }
            if self.shared.store.stamps()?.contains_key(&name) {
                return Err(AddError::Exists(name));
            }
            *adding = Some((name.clone(), Unready::Preparing("begin".into())));
        }
        let targets = self.clone();
        tokio::spawn(async move {
            let added = tokio::task::spawn_blocking({
                let (targets, name) = (targets.clone(), name.clone());
                move || {
                    let _keep = keep;
                    let mut tell = |step: &str| {
                        info!(target = name, "{step}");
                        let now = Unready::Preparing(step.to_owned());
                        *lock(&targets.shared.adding) = Some((name.clone(), now));
                    };
                    targets.shared.store.add(&request, &mut tell)?;
                    targets.look(&mut tell)
                }
            });
            let failure = match added.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic.to_string()),
            };
            match &failure {
                None => info!(target = name, "the target was added"),
                Some(reason) => warn!(target = name, reason, "the target was not added"),
            }
            *lock(&targets.shared.adding) = failure.map(|reason| (name, Unready::Failed(reason)));
        });
        Ok(())
    }

    /// Removes a target from the store, or forgets one that could not be added. Tasks that have begun end. Blocks, but
    /// does not wait for others.
    pub fn remove(&self, name: &str) -> Result<(), RemoveError> {
        {
            let mut adding = lock(&self.shared.adding);
            match adding.take_if(|(adding, _)| adding == name) {
                Some((name, Unready::Preparing(step))) => {
                    *adding = Some((name.clone(), Unready::Preparing(step)));
                    return Err(RemoveError::Preparing(name));
                }
                Some((_, Unready::Failed(_))) => return Ok(()),
                None => {}
            }
        }
        if !self.takes(name) || !self.shared.store.stamps()?.contains_key(name) {
            return Err(RemoveError::Unknown(name.to_owned()));
        }
        match self.shared.store.try_remove(name) {
            Ok(true) => {}
            Ok(false) => return Err(RemoveError::Busy(name.to_owned())),
            // Somebody was faster.
            Err(TargetError::Unknown { .. }) => return Err(RemoveError::Unknown(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
        // Who looks at this time may still take it up; then it goes with the next look.
        self.let_go(|held| held == name);
        Ok(())
    }

    fn takes(&self, name: &str) -> bool {
        let only = &self.shared.only;
        only.is_empty() || only.iter().any(|taken| taken == name)
    }

    /// Prepares a target, unless it is held already.
    fn take_up(&self, name: &str, progress: &mut dyn FnMut(&str)) {
        let target = match self.shared.store.get(name) {
            Ok(target) => target,
            // It was removed a moment ago, which the next look sees.
            Err(TargetError::Unknown { .. }) => return,
            Err(error) => return self.fail(name, &error),
        };
        let held = self.held();
        if held
            .get(name)
            .is_some_and(|held| held.target.is_like(&target))
        {
            return;
        }
        // It is another one now.
        self.let_go(|held| held == name);
        let prepared = Held::new(target, &mut |step| {
            let now = Unready::Preparing(step.to_owned());
            lock(&self.shared.unready).insert(name.to_owned(), now);
            progress(step);
        });
        match prepared {
            Ok(held) => {
                let add = |all: &mut AllHeld| drop(Arc::make_mut(all).insert(name.into(), held));
                self.shared.held.send_modify(add);
                lock(&self.shared.unready).remove(name);
            }
            Err(error) => self.fail(name, &error),
        }
    }

    fn fail(&self, name: &str, error: &TargetError) {
        warn!(target = name, %error, "a target is left out");
        self.let_go(|held| held == name);
        let failed = Unready::Failed(error.to_string());
        lock(&self.shared.unready).insert(name.to_owned(), failed);
    }

    /// Holds those no longer of which this is true. Their waiting verifiers end when [`Self::changes`] is heard.
    fn let_go(&self, goes: impl Fn(&str) -> bool) {
        lock(&self.shared.unready).retain(|name, _| !goes(name));
        self.shared.held.send_if_modified(|all| {
            let gone: Vec<String> = all.keys().filter(|name| goes(name)).cloned().collect();
            for name in &gone {
                if let Some(held) = Arc::make_mut(all).remove(name) {
                    info!(target = name, "the target is gone");
                    lock(&self.shared.leaving).push(Arc::downgrade(&held.target));
                }
            }
            !gone.is_empty()
        });
    }

    /// Once nobody uses what was held before, the store can do without.
    fn tidy(&self) -> Result<(), TargetError> {
        let mut leaving = lock(&self.shared.leaving);
        let before = leaving.len();
        leaving.retain(|target| target.strong_count() > 0);
        if leaving.len() < before {
            self.shared.store.tidy()?;
        }
        Ok(())
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
            architecture: Architecture(facts.fingerprint.arch.get()).to_string(),
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

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preparing(step) => write!(f, "it is being prepared: {step}"),
            Self::Failed(reason) => write!(f, "it could not be prepared: {reason}"),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is ever half-changed.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
