//! Tasks that wait for a target that nobody holds any longer: they end, for nobody would come to them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::directory::Directory;
use crate::nats::NatsError;
use crate::queue::Queue;
use crate::records::RecordError;
use crate::scheduler::Scheduler;
use crate::task::Outcome;

/// Ends what nobody would come to.
pub struct Orphans {
    scheduler: Scheduler,
    queue: Queue,
    directory: Directory,
    /// How long a target may be held by nobody.
    patience: Duration,
    /// Since when nobody holds a target that is waited for, by its identity.
    since: HashMap<String, Instant>,
}

#[derive(Debug, thiserror::Error)]
enum OrphanError {
    #[error(transparent)]
    Queue(#[from] NatsError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Orphans {
    /// Those of a service whose workers may be away for so long.
    pub fn new(
        scheduler: Scheduler,
        queue: Queue,
        directory: Directory,
        patience: Duration,
    ) -> Self {
        Self {
            scheduler,
            queue,
            directory,
            patience,
            since: HashMap::new(),
        }
    }

    /// Looks for them this often, for as long as the process lives.
    pub async fn look(mut self, often: Duration) {
        loop {
            if let Err(error) = self.end().await {
                // Who could not look cannot say since when.
                self.since.clear();
                warn!(%error, "what waits for a target that nobody holds waits on");
            }
            tokio::time::sleep(often).await;
        }
    }

    async fn end(&mut self) -> Result<(), OrphanError> {
        if !self.directory.knows_all() {
            self.since.clear();
            return Ok(());
        }
        let held: HashSet<String> = self.directory.identities().into_iter().collect();
        let now = Instant::now();
        let mut waited_for = self.queue.depth().await?.by_target();
        // What needs no target has no name.
        waited_for.retain(|target, _| !target.is_empty() && !held.contains(target));
        self.since
            .retain(|target, _| waited_for.contains_key(target));
        for target in waited_for.into_keys() {
            let since = *self.since.entry(target.clone()).or_insert(now);
            if since.elapsed() < self.patience {
                continue;
            }
            while let Some(claim) = self.queue.withdraw(&target).await? {
                let task = claim.ticket.task;
                let reason = match self.patience.as_secs() {
                    0 => "its target was removed, or is another one now".to_owned(),
                    seconds => format!("no worker has held its target for {seconds} s"),
                };
                let ended = self.scheduler.end(task, Outcome::Failed { reason }).await;
                if let Err(error) = ended {
                    // It waits again, if it was only in this process that it did.
                    self.queue.push(claim.ticket).await?;
                    return Err(error.into());
                }
                info!(%task, target, "nobody holds its target: the task has ended");
                claim.done().await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use preverify_pipeline::Limits;
    use preverify_protocol::Inputs;

    use super::*;
    use crate::digest::Digest;
    use crate::job::{Ended, Job};
    use crate::news::News;
    use crate::queue::Lines;
    use crate::records::{Records, Sqlite};
    use crate::scheduler::Submission;
    use crate::task::testing::bundle;
    use crate::tenants::{Quota, Tenants};

    #[tokio::test]
    async fn what_waits_for_nobody_ends_and_what_does_not_waits_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        let (records, queue) = (Records::from(store), Queue::Lines(Lines::default()));
        let tenants = Tenants::new(records.clone(), Quota::default());
        let scheduler = Scheduler::new(records, queue.clone(), News::default(), tenants);
        let submit = async |name: &str, targets: &[&str]| {
            let named = |target: &&str| ((*target).to_owned(), (*target).to_owned());
            let submission = Submission {
                tenant: "a".into(),
                name: name.into(),
                object: Digest::of(name.as_bytes()),
                inputs: Inputs::default(),
                limits: Limits::default(),
                shares: 1,
                targets: targets.iter().map(named).collect(),
            };
            scheduler.submit(submission).await.unwrap()
        };
        let how = async |job: &Job| {
            let job = scheduler.job("a", &job.id).await.unwrap().unwrap();
            job.end.map(|end| end.how)
        };
        let orphans = |patience| {
            let (scheduler, queue) = (scheduler.clone(), queue.clone());
            Orphans::new(scheduler, queue, Directory::default(), patience)
        };
        let begun = submit("begun", &["z"]).await;
        let claim = queue.take(&["z".to_owned()]).await;
        let alone = submit("alone", &["x"]).await;
        let pair = submit("pair", &["x", "y"]).await;
        let merging = submit("merging", &["x", "y"]).await;
        for target in &merging.targets {
            let bundle = bundle(&target.name);
            scheduler.end(target.task, bundle).await.unwrap();
        }

        let mut patient = orphans(Duration::from_secs(60));
        patient.end().await.unwrap();
        assert_eq!(how(&alone).await, None);
        assert_eq!(patient.since.len(), 3);
        orphans(Duration::ZERO).end().await.unwrap();
        for job in [&alone, &pair] {
            let Some(Ended::Failed { reason }) = how(job).await else {
                panic!("{job:?}");
            };
            assert!(reason.contains("its target was removed"), "{reason}");
        }
        // It needs no target; and somebody is at work at the other one.
        assert_eq!(how(&merging).await, None);
        assert_eq!(how(&begun).await, None);
        let depth = queue.depth().await.unwrap().by_target();
        assert_eq!(depth, [(String::new(), 1), ("z".to_owned(), 1)].into());
        drop(claim);
        patient.end().await.unwrap();
        assert!(patient.since.is_empty(), "nothing waits for them");
        // It is done for whoever asks when there is a target again.
        let again = submit("alone", &["x"]).await;
        let claim = queue.withdraw("x").await.unwrap().unwrap();
        assert_eq!(claim.ticket.task, again.last);
    }
}
