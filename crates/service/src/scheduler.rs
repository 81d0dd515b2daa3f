//! From a submission to its end: which tasks a job needs, who waits for whom, what is in the queue.
//!
//! ```text
//! task.TASK                       a task
//! job.TENANT.JOB                  a job
//! wait.TASK.task.MERGE            a task that waits for one of its parts
//! wait.TASK.job.TENANT.JOB        a job that waits for a task
//! ```
//!
//! Each step may be the last one before the process dies, so what follows from a record is written before it, or can be
//! found out from it again: who waits for a task is noted before the task is looked at, a task's outcome is
//! written once and by whoever is first, and [`Scheduler::resume`] does what was left undone.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use preverify_pipeline::Limits;
use preverify_protocol::{Inputs, Share};
use serde::{Deserialize, Serialize};
use tracing::field::{Empty, display};
use tracing::{Span, instrument};

use crate::digest::Digest;
use crate::job::{Ended, Job, JobEnd, JobId, JobTarget};
use crate::news::{Event, News};
use crate::queue::{Queue, Ticket};
use crate::records::{Page, RecordError, Records};
use crate::task::{Outcome, Refused, Task, TaskId, Verification, Work};
use crate::tenants::Tenants;
use crate::traces::Origin;

/// How long a job may take to be written. A client that is gone, or a process that has died, may have broken that off.
const BROKEN_OFF: SignedDuration = SignedDuration::from_mins(10);

/// What a tenant wants.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who.
    pub tenant: String,
    /// The object's name.
    pub name: String,
    /// The object's bytes, which are there.
    pub object: Digest,
    /// What its own user space would set.
    pub inputs: Inputs,
    /// How far the verification may go.
    pub limits: Limits,
    /// In how many shares its programs are verified, apart from each other.
    pub shares: u32,
    /// The names and identities of the targets, at least one.
    pub targets: Vec<(String, String)>,
}

/// Knows what is to be done, and has it done by whoever takes from the queue.
#[derive(Clone, Debug)]
pub struct Scheduler {
    records: Records,
    queue: Queue,
    news: News,
    tenants: Tenants,
}

/// Who waits for a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Waiter {
    /// A merging that needs its outcome.
    Merge(TaskId),
    /// A job that ends with it.
    Job {
        /// Whose it is.
        tenant: String,
        /// What it is called.
        id: JobId,
    },
}

impl Scheduler {
    /// What is to be done according to records.
    pub fn new(records: Records, queue: Queue, news: News, tenants: Tenants) -> Self {
        Self {
            records,
            queue,
            news,
            tenants,
        }
    }

    /// Takes a job. If all that it wants has been done before, it has ended when this returns.
    #[instrument(skip_all, fields(tenant = submission.tenant, job = Empty))]
    pub async fn submit(&self, submission: Submission) -> Result<Job, RecordError> {
        let now = Timestamp::now();
        let Submission {
            tenant,
            name,
            object,
            inputs,
            limits,
            shares,
            targets,
        } = submission;
        let mut wanted = Vec::with_capacity(targets.len());
        for (target_name, target) in targets {
            let whole = Verification {
                object,
                name: name.clone(),
                inputs: inputs.clone(),
                limits,
                target,
                share: None,
            };
            wanted.push(
                self.want_verified(target_name, whole, shares, &tenant)
                    .await?,
            );
        }
        let last = match &wanted[..] {
            [only] => only.task,
            several => {
                let parts = several.iter().map(|target| target.task).collect();
                self.want(Work::Merge { parts }, &tenant).await?
            }
        };
        let mut job = Job {
            id: JobId::new(now),
            tenant,
            submitted: now,
            name,
            object,
            targets: wanted,
            last,
            end: None,
        };
        Span::current().record("job", display(&job.id));
        let key = job_key(&job.tenant, &job.id);
        // What has been done before needs nobody to wait for it.
        job.end = self.end_of(&job).await?;
        if job.end.is_some() {
            self.records.create(&key, &job).await?;
            return Ok(job);
        }
        let waiter = Waiter::Job {
            tenant: job.tenant.clone(),
            id: job.id.clone(),
        };
        self.wait(job.last, &waiter).await?;
        self.tenants.opened(&job.tenant, &job.id);
        self.records.create(&key, &job).await?;
        // The task may have ended before there was a job to end.
        let ended = self.try_end_job(&job).await?;
        Ok(ended.unwrap_or(job))
    }

    /// A job of a tenant.
    pub async fn job(&self, tenant: &str, id: &JobId) -> Result<Option<Job>, RecordError> {
        let found = self.records.get(&job_key(tenant, id)).await?;
        Ok(found.map(|record| record.value))
    }

    /// The jobs of a tenant, the youngest first, so many at most; those that are older than a given one.
    pub async fn jobs(
        &self,
        tenant: &str,
        before: Option<&JobId>,
        limit: usize,
    ) -> Result<Vec<Job>, RecordError> {
        let after = before.map(|id| job_key(tenant, id));
        let page = Page {
            after: after.as_deref(),
            limit,
            backwards: true,
        };
        let found = self.records.list(&format!("job.{tenant}."), page).await?;
        Ok(found.into_iter().map(|(_, record)| record.value).collect())
    }

    /// A task.
    pub async fn task(&self, id: TaskId) -> Result<Option<Task>, RecordError> {
        let found = self.records.get(&task_key(id)).await?;
        Ok(found.map(|record| record.value))
    }

    /// A task has ended so, unless somebody was faster. Whoever waits for it goes on.
    pub async fn end(&self, id: TaskId, outcome: Outcome) -> Result<(), RecordError> {
        let mut ended = vec![(id, outcome)];
        while let Some((id, outcome)) = ended.pop() {
            let key = task_key(id);
            let first = self.records.change(&key, |task: Task| {
                task.outcome.is_none().then(|| Task {
                    outcome: Some(outcome.clone()),
                    ..task
                })
            });
            let task = match first.await? {
                Some(task) => {
                    self.news.tell(Event::TaskEnded(id));
                    Some(task)
                }
                None => self.task(id).await?,
            };
            // Until now, each of its parts could have been wanted anew.
            for part in task.iter().flat_map(|task| task.work.parts()) {
                let key = wait_key(*part, &Waiter::Merge(id));
                self.records.remove(&key).await?;
            }
            for (key, waiter) in self.waiters(id).await? {
                let waits_no_longer = match waiter {
                    Waiter::Job { tenant, id } => match self.job(&tenant, &id).await? {
                        // The task may be wanted anew already: then it waits for that.
                        Some(job) => self.try_end_job(&job).await?.is_some(),
                        // It is about to be written, and looks for itself then, unless that was broken off.
                        None => id.age() > BROKEN_OFF,
                    },
                    Waiter::Merge(merge) => {
                        if let Some(outcome) = self.advance(merge).await? {
                            ended.push((merge, outcome));
                        }
                        let merge = self.task(merge).await?;
                        merge.is_none_or(|task| task.outcome.is_some())
                    }
                };
                if waits_no_longer {
                    self.records.remove(&key).await?;
                }
            }
        }
        Ok(())
    }

    /// Does what a process that died has left undone: what somebody waits for has ended, or is queued.
    pub async fn resume(&self) -> Result<(), RecordError> {
        for id in self.waited_for().await? {
            let Some(task) = self.task(id).await? else {
                continue;
            };
            match task.outcome {
                None => self.start(id, &task).await?,
                Some(outcome) => self.end(id, outcome).await?,
            }
        }
        Ok(())
    }

    /// The tasks that somebody waits for; the jobs that do are under way.
    async fn waited_for(&self) -> Result<BTreeSet<TaskId>, RecordError> {
        let waiting = self.records.list::<Waiter>("wait.", Page::ALL).await?;
        let jobs = waiting
            .iter()
            .filter_map(|(_, record)| match &record.value {
                Waiter::Job { tenant, id } => Some((tenant.as_str(), id)),
                Waiter::Merge(_) => None,
            });
        self.tenants.all_open(jobs);
        let tasks = waiting
            .iter()
            .filter_map(|(key, _)| key.split('.').nth(1)?.parse().ok());
        Ok(tasks.collect())
    }

    /// Has an object verified for a target, in so many shares.
    async fn want_verified(
        &self,
        name: String,
        whole: Verification,
        shares: u32,
        tenant: &str,
    ) -> Result<JobTarget, RecordError> {
        let mut parts = Vec::new();
        if shares > 1 {
            for number in 0..shares {
                let share = Verification {
                    share: Some(Share { number, of: shares }),
                    ..whole.clone()
                };
                parts.push(self.want(Work::Verify(Box::new(share)), tenant).await?);
            }
        }
        let work = match parts.is_empty() {
            true => Work::Verify(Box::new(whole)),
            false => Work::Join {
                parts: parts.clone(),
            },
        };
        let task = self.want(work, tenant).await?;
        Ok(JobTarget { name, task, parts })
    }

    /// Has some work done, unless it has been or is about to be.
    async fn want(&self, work: Work, tenant: &str) -> Result<TaskId, RecordError> {
        let id = work.id();
        let key = task_key(id);
        let task = Task {
            work,
            tenant: tenant.to_owned(),
            origin: Origin::here(),
            outcome: None,
        };
        let begun = match self.records.get::<Task>(&key).await? {
            None => self.records.create(&key, &task).await?,
            // What had no verdict is tried again.
            Some(found) if found.value.has_failed() => {
                self.records.update(&key, &task, found.revision).await?
            }
            Some(_) => false,
        };
        // Who was faster has started it.
        if begun {
            self.start(id, &task).await?;
        }
        Ok(id)
    }

    async fn start(&self, id: TaskId, task: &Task) -> Result<(), RecordError> {
        match &task.work {
            Work::Verify(verification) => {
                let ticket = Ticket {
                    task: id,
                    tenant: task.tenant.clone(),
                    target: Some(verification.target.clone()),
                    origin: task.origin.clone(),
                };
                self.queue.push(ticket).await?;
            }
            work @ (Work::Join { .. } | Work::Merge { .. }) => {
                for part in work.parts() {
                    self.wait(*part, &Waiter::Merge(id)).await?;
                }
                if let Some(outcome) = self.advance(id).await? {
                    Box::pin(self.end(id, outcome)).await?;
                }
            }
        }
        Ok(())
    }

    /// Queues a task once all its parts are there; if there is one that will never be, the outcome comes back.
    async fn advance(&self, merge: TaskId) -> Result<Option<Outcome>, RecordError> {
        let Some(task) = self
            .task(merge)
            .await?
            .filter(|task| task.outcome.is_none())
        else {
            return Ok(None);
        };
        let parts = task.work.parts();
        let mut outcomes = Vec::with_capacity(parts.len());
        for part in parts {
            match self.task(*part).await?.and_then(|task| task.outcome) {
                Some(outcome) => outcomes.push(outcome),
                None => return Ok(None),
            }
        }
        let mut refused = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Refused(_)));
        if let Some(first) = refused.next() {
            return Ok(Some(match &task.work {
                Work::Merge { .. } => Outcome::Refused(Refused {
                    message: format!(
                        "{} of {} targets do not take it",
                        1 + refused.count(),
                        outcomes.len()
                    ),
                    program: None,
                    log: None,
                }),
                // That is where a kernel that gets all programs at once ends, too.
                Work::Verify(_) | Work::Join { .. } => first.clone(),
            }));
        }
        if let Some(failed) = outcomes.into_iter().find(|outcome| !outcome.is_final()) {
            return Ok(Some(failed));
        }
        let ticket = Ticket {
            task: merge,
            tenant: task.tenant,
            target: None,
            origin: task.origin,
        };
        self.queue.push(ticket).await?;
        Ok(None)
    }

    async fn wait(&self, task: TaskId, waiter: &Waiter) -> Result<(), RecordError> {
        // It may wait for it already.
        self.records.create(&wait_key(task, waiter), waiter).await?;
        Ok(())
    }

    async fn waiters(&self, task: TaskId) -> Result<Vec<(String, Waiter)>, RecordError> {
        let found = self
            .records
            .list(&format!("wait.{task}."), Page::ALL)
            .await?;
        let found = found.into_iter();
        Ok(found.map(|(key, record)| (key, record.value)).collect())
    }

    /// How a job ends, if what it waits for has.
    async fn end_of(&self, job: &Job) -> Result<Option<JobEnd>, RecordError> {
        let outcome = self.task(job.last).await?.and_then(|task| task.outcome);
        Ok(outcome.map(|outcome| JobEnd {
            at: Timestamp::now(),
            how: match outcome {
                Outcome::Bundle(accepted) => Ended::Bundle {
                    digest: accepted.bundle,
                    bytes: accepted.bytes,
                },
                Outcome::Refused(_) => Ended::Refused,
                Outcome::Failed { reason } => Ended::Failed { reason },
            },
        }))
    }

    /// Ends a job if what it waits for has ended. It ends once; what has ended comes back, whoever has done it.
    async fn try_end_job(&self, job: &Job) -> Result<Option<Job>, RecordError> {
        let Some(end) = self.end_of(job).await? else {
            return Ok(None);
        };
        let key = job_key(&job.tenant, &job.id);
        let first = self.records.change(&key, |job: Job| {
            job.end.is_none().then(|| Job {
                end: Some(end.clone()),
                ..job
            })
        });
        let Some(ended) = first.await? else {
            return self.job(&job.tenant, &job.id).await;
        };
        self.tenants.closed(&job.tenant, &job.id);
        self.news.tell(Event::JobEnded {
            tenant: job.tenant.clone(),
            id: job.id.clone(),
        });
        Ok(Some(ended))
    }
}

fn task_key(id: TaskId) -> String {
    format!("task.{id}")
}

fn wait_key(task: TaskId, waiter: &Waiter) -> String {
    match waiter {
        Waiter::Merge(merge) => format!("wait.{task}.task.{merge}"),
        Waiter::Job { tenant, id } => format!("wait.{task}.job.{tenant}.{id}"),
    }
}

fn job_key(tenant: &str, id: &JobId) -> String {
    format!("job.{tenant}.{id}")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::queue::Lines;
    use crate::records::Sqlite;
    use crate::task::testing::{bundle, refused};
    use crate::tenants::Quota;

    /// A scheduler whose records outlive it.
    struct Process {
        scheduler: Scheduler,
        queue: Queue,
        tenants: Tenants,
    }

    impl Process {
        fn start(folder: &TempDir) -> Self {
            let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
            let (records, queue) = (Records::from(store), Queue::Lines(Lines::default()));
            let tenants = Tenants::new(records.clone(), Quota::default());
            Self {
                scheduler: Scheduler::new(records, queue.clone(), News::default(), tenants.clone()),
                queue,
                tenants,
            }
        }

        async fn submit(&self, tenant: &str, name: &str, targets: &[&str]) -> Job {
            self.submit_in_shares(1, tenant, name, targets).await
        }

        async fn submit_in_shares(
            &self,
            shares: u32,
            tenant: &str,
            name: &str,
            targets: &[&str],
        ) -> Job {
            let named = |target: &&str| (format!("name of {target}"), (*target).to_owned());
            let submission = Submission {
                tenant: tenant.into(),
                name: name.into(),
                object: Digest::of(name.as_bytes()),
                inputs: Inputs::default(),
                limits: Limits::default(),
                shares,
                targets: targets.iter().map(named).collect(),
            };
            self.scheduler.submit(submission).await.unwrap()
        }

        async fn end(&self, task: TaskId, outcome: Outcome) {
            self.scheduler.end(task, outcome).await.unwrap();
        }

        async fn how(&self, job: &Job) -> Option<Ended> {
            let job = self.scheduler.job(&job.tenant, &job.id).await.unwrap();
            job.unwrap().end.map(|end| end.how)
        }

        /// What waits in the queue, which is empty afterwards.
        async fn queued(&self) -> Vec<TaskId> {
            let mut queued = Vec::new();
            loop {
                let waiting = self.queue.depth().await.unwrap();
                let targets: Vec<String> = waiting.by_target().into_keys().collect();
                if targets.is_empty() {
                    break;
                }
                queued.push(self.queue.take(&targets).await.ticket.task);
            }
            queued
        }
    }

    fn ended_with(name: &str) -> Option<Ended> {
        Some(Ended::Bundle {
            digest: Digest::of(name.as_bytes()),
            bytes: name.len(),
        })
    }

    #[tokio::test]
    async fn the_same_is_done_once() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let first = process.submit("a", "object", &["x"]).await;
        let second = process.submit("b", "object", &["x"]).await;
        assert_eq!(process.queued().await, [first.last]);
        assert_eq!(second.last, first.last);
        assert_eq!(process.tenants.open_jobs("b"), 1);
        process.end(first.last, bundle("bundle")).await;
        for job in [&first, &second] {
            assert_eq!(process.how(job).await, ended_with("bundle"));
            assert_eq!(process.tenants.open_jobs(&job.tenant), 0);
        }
        let third = process.submit("a", "object", &["x"]).await;
        assert_eq!(third.end.unwrap().how, ended_with("bundle").unwrap());
        assert_eq!(process.queued().await, []);
    }

    #[tokio::test]
    async fn bundles_for_several_targets_are_merged_when_all_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process.submit("a", "object", &["x", "y"]).await;
        let [x, y] = [0, 1].map(|index: usize| job.targets[index].task);
        assert_eq!(process.queued().await, [x, y]);
        process.end(y, bundle("for y")).await;
        assert_eq!(process.queued().await, []);
        process.end(x, bundle("for x")).await;
        assert_eq!(process.queued().await, [job.last]);
        assert_eq!(process.how(&job).await, None);
        process.end(job.last, bundle("both")).await;
        assert_eq!(process.how(&job).await, ended_with("both"));
        // The other order is another bundle, of the same parts.
        let other = process.submit("a", "object", &["y", "x"]).await;
        assert_ne!(other.last, job.last);
        assert_eq!(process.queued().await, [other.last]);
    }

    #[tokio::test]
    async fn one_target_that_refuses_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process.submit("a", "object", &["x", "y", "z"]).await;
        process.end(job.targets[0].task, refused("no")).await;
        assert_eq!(
            process.how(&job).await,
            None,
            "the others still have to say"
        );
        process.end(job.targets[1].task, bundle("for y")).await;
        process.end(job.targets[2].task, refused("no")).await;
        assert_eq!(process.how(&job).await, Some(Ended::Refused));
        let task = process.scheduler.task(job.last).await.unwrap().unwrap();
        let Some(Outcome::Refused(refused)) = task.outcome else {
            panic!("{task:?}");
        };
        assert_eq!(refused.message, "2 of 3 targets do not take it");
        let again = process.submit("b", "object", &["x", "y", "z"]).await;
        assert_eq!(again.end.unwrap().how, Ended::Refused);
    }

    #[tokio::test]
    async fn shares_are_joined_when_all_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process
            .submit_in_shares(2, "a", "object", &["x", "y"])
            .await;
        let [x, y] = [0, 1].map(|index: usize| job.targets[index].clone());
        let parts = [&x.parts[..], &y.parts[..]].concat();
        assert_eq!(process.queued().await, parts);
        process.end(parts[1], bundle("x 2")).await;
        assert_eq!(process.queued().await, []);
        process.end(parts[0], bundle("x 1")).await;
        assert_eq!(process.queued().await, [x.task]);
        process.end(parts[2], bundle("y 1")).await;
        process.end(parts[3], bundle("y 2")).await;
        assert_eq!(process.queued().await, [y.task]);
        process.end(x.task, bundle("x")).await;
        process.end(y.task, bundle("y")).await;
        assert_eq!(process.queued().await, [job.last]);
        process.end(job.last, bundle("both")).await;
        assert_eq!(process.how(&job).await, ended_with("both"));
    }

    #[tokio::test]
    async fn the_first_program_that_is_refused_counts() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process.submit_in_shares(3, "a", "object", &["x"]).await;
        let parts = &job.targets[0].parts;
        process.end(parts[2], refused("the last")).await;
        process.end(parts[0], bundle("fine")).await;
        assert_eq!(process.how(&job).await, None, "another may come before");
        process.end(parts[1], refused("the second")).await;
        assert_eq!(process.how(&job).await, Some(Ended::Refused));
        let task = process.scheduler.task(job.last).await.unwrap().unwrap();
        assert_eq!(task.outcome, Some(refused("the second")));
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_for_the_next_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let failed = |reason: &str| Outcome::Failed {
            reason: reason.into(),
        };
        let job = process.submit("a", "object", &["x", "y"]).await;
        let [x, y] = [0, 1].map(|index: usize| job.targets[index].task);
        process.end(x, bundle("for x")).await;
        process.end(y, failed("the machine crashed")).await;
        let reason = "the machine crashed".into();
        assert_eq!(process.how(&job).await, Some(Ended::Failed { reason }));
        process.queued().await;
        let again = process.submit("a", "object", &["x", "y"]).await;
        assert_eq!(process.queued().await, [y]);
        process.end(y, bundle("for y")).await;
        assert_eq!(process.queued().await, [again.last]);
        process.end(again.last, bundle("both")).await;
        assert_eq!(process.how(&again).await, ended_with("both"));
    }

    #[tokio::test]
    async fn what_is_wanted_anew_while_others_wait_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let failed = Outcome::Failed {
            reason: "the machine crashed".into(),
        };
        let pair = process.submit("a", "object", &["x", "y"]).await;
        let [x, y] = [0, 1].map(|index: usize| pair.targets[index].task);
        assert_eq!(process.queued().await, [x, y]);
        process.end(x, failed).await;
        let alone = process.submit("b", "object", &["x"]).await;
        assert_eq!(process.queued().await, [x]);
        process.end(y, bundle("for y")).await;
        assert_eq!(process.queued().await, [], "one is being tried again");
        process.end(x, bundle("for x")).await;
        assert_eq!(process.how(&alone).await, ended_with("for x"));
        assert_eq!(process.queued().await, [pair.last]);
        process.end(pair.last, bundle("both")).await;
        assert_eq!(process.how(&pair).await, ended_with("both"));
        let left = process.scheduler.waited_for().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_job_that_was_never_written_is_waited_for_in_vain() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process.submit("a", "object", &["x"]).await;
        let now = Timestamp::now();
        for submitted in [now - 2 * BROKEN_OFF, now] {
            let waiter = Waiter::Job {
                tenant: "a".into(),
                id: JobId::new(submitted),
            };
            process.scheduler.wait(job.last, &waiter).await.unwrap();
        }
        process.scheduler.resume().await.unwrap();
        assert_eq!(process.tenants.open_jobs("a"), 3);
        process.end(job.last, bundle("bundle")).await;
        process.scheduler.resume().await.unwrap();
        assert_eq!(process.tenants.open_jobs("a"), 1, "it may be written yet");
    }

    #[tokio::test]
    async fn the_first_outcome_counts() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let job = process.submit("a", "object", &["x"]).await;
        process.end(job.last, bundle("first")).await;
        process.end(job.last, bundle("second")).await;
        assert_eq!(process.how(&job).await, ended_with("first"));
    }

    #[tokio::test]
    async fn a_new_process_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let alone = process.submit("a", "alone", &["x"]).await;
        let pair = process.submit("a", "pair", &["x", "y"]).await;
        let done = process.submit("a", "done", &["x"]).await;
        process.end(pair.targets[0].task, bundle("for x")).await;
        // It dies after it has written an outcome, and before whoever waits for it goes on.
        let key = task_key(done.last);
        let ended = process.scheduler.records.change(&key, |task: Task| {
            Some(Task {
                outcome: Some(bundle("done")),
                ..task
            })
        });
        ended.await.unwrap();
        drop(process);

        let process = Process::start(&folder);
        process.scheduler.resume().await.unwrap();
        assert_eq!(process.how(&done).await, ended_with("done"));
        assert_eq!(process.tenants.open_jobs("a"), 2, "alone and pair");
        let mut queued = process.queued().await;
        let mut expected = [alone.last, pair.targets[1].task];
        queued.sort();
        expected.sort();
        assert_eq!(queued, expected);
        process.end(alone.last, bundle("alone")).await;
        process.end(pair.targets[1].task, bundle("for y")).await;
        assert_eq!(process.queued().await, [pair.last]);
        drop(process);

        let process = Process::start(&folder);
        process.scheduler.resume().await.unwrap();
        assert_eq!(process.queued().await, [pair.last]);
    }

    #[tokio::test]
    async fn tenants_see_their_own_jobs_the_youngest_first() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder);
        let mut ids = Vec::new();
        for name in ["1", "2", "3"] {
            ids.push(process.submit("a", name, &["x"]).await.id);
            process.submit("b", name, &["x"]).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let all = process.scheduler.jobs("a", None, 10).await.unwrap();
        let all: Vec<_> = all.into_iter().map(|job| job.id).collect();
        assert_eq!(all, [&ids[2], &ids[1], &ids[0]].map(Clone::clone));
        let older = process.scheduler.jobs("a", Some(&ids[2]), 1).await.unwrap();
        assert_eq!(older[0].id, ids[1]);
        assert!(process.scheduler.job("b", &ids[0]).await.unwrap().is_none());
    }
}
