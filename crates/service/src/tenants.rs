//! How much each tenant may ask for, and has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use crate::job::JobId;
use crate::records::{RecordError, Records};

/// How many objects of a tenant are read at the same time: each has its place in memory meanwhile, and clients may be slow.
const READ_AT_ONCE: usize = 8;

/// How much a tenant may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Jobs that have not ended.
    pub open_jobs: u32,
    /// Jobs in a minute.
    pub jobs_per_minute: u32,
    /// Bytes of an object.
    pub object_bytes: usize,
    /// Seconds of verification in a day (UTC). What others have paid for is free.
    pub seconds_per_day: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            open_jobs: 1000,
            jobs_per_minute: 6000,
            object_bytes: 32 << 20,
            seconds_per_day: 24 * 3600,
        }
    }
}

/// A tenant has asked for more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Too many jobs are under way.
    #[error(
        "{0} jobs are under way, which is all that the tenant may have: wait until some have ended"
    )]
    OpenJobs(u32),
    /// Too many came too fast.
    #[error("{per_minute} jobs a minute are all that the tenant may submit: wait {} s", wait.as_secs() + 1)]
    Rate {
        /// How many may.
        per_minute: u32,
        /// Until the next may.
        wait: Duration,
    },
    /// The object is too large.
    #[error("the object has {found} bytes, and the tenant's may have {allowed}")]
    Object {
        /// Its bytes.
        found: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// The day's time is used up.
    #[error(
        "today's {0} s of verification are used up: more comes with the next day (UTC), or from whoever runs the service"
    )]
    Time(u64),
}

/// The tenants of a service.
#[derive(Clone, Debug)]
pub struct Tenants {
    records: Records,
    /// What those have who have no quota of their own.
    usual: Quota,
    busy: Arc<Mutex<HashMap<String, Busy>>>,
}

/// What a tenant has under way in this process.
#[derive(Debug)]
struct Busy {
    open: HashSet<JobId>,
    /// Room for objects that are being read.
    room: Arc<Semaphore>,
    /// Jobs that may come at once: it fills up with time.
    allowance: f64,
    filled: Instant,
}

impl Tenants {
    /// Those among the records.
    pub fn new(records: Records, usual: Quota) -> Self {
        Self {
            records,
            usual,
            busy: Arc::default(),
        }
    }

    /// What a tenant may ask for.
    pub async fn quota(&self, tenant: &str) -> Result<Quota, RecordError> {
        let found = self.records.get(&quota_key(tenant)).await?;
        Ok(found.map_or(self.usual, |record| record.value))
    }

    /// Gives a tenant a quota of its own.
    pub async fn set_quota(&self, tenant: &str, quota: Quota) -> Result<(), RecordError> {
        let key = quota_key(tenant);
        while !self.records.create(&key, &quota).await? {
            let replaced = self.records.change(&key, |_: Quota| Some(quota)).await?;
            if replaced.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Lets a job in, or says why not.
    pub async fn admit(
        &self,
        tenant: &str,
        object_bytes: usize,
        now: Instant,
    ) -> Result<Result<(), Exceeded>, RecordError> {
        let quota = self.quota(tenant).await?;
        if object_bytes > quota.object_bytes {
            return Ok(Err(Exceeded::Object {
                found: object_bytes,
                allowed: quota.object_bytes,
            }));
        }
        let used = self.used(tenant).await?;
        if used >= Duration::from_secs(quota.seconds_per_day) {
            return Ok(Err(Exceeded::Time(quota.seconds_per_day)));
        }
        let mut busy = self.busy();
        let busy = busy.entry(tenant.to_owned()).or_default();
        if busy.open.len() >= quota.open_jobs as usize {
            return Ok(Err(Exceeded::OpenJobs(quota.open_jobs)));
        }
        Ok(busy.take(quota.jobs_per_minute, now))
    }

    /// Waits until there is room for another object of a tenant. It is taken until the permit goes.
    pub async fn room(&self, tenant: &str) -> OwnedSemaphorePermit {
        let room = {
            let mut busy = self.busy();
            busy.entry(tenant.to_owned()).or_default().room.clone()
        };
        let permit = room.acquire_owned().await;
        permit.expect("nobody closes it")
    }

    /// A job is under way.
    pub fn opened(&self, tenant: &str, job: &JobId) {
        let mut busy = self.busy();
        let busy = busy.entry(tenant.to_owned()).or_default();
        busy.open.insert(job.clone());
    }

    /// These jobs are under way, and no others.
    pub fn all_open<'a>(&self, jobs: impl Iterator<Item = (&'a str, &'a JobId)>) {
        let mut busy = self.busy();
        busy.values_mut().for_each(|busy| busy.open.clear());
        for (tenant, job) in jobs {
            let busy = busy.entry(tenant.to_owned()).or_default();
            busy.open.insert(job.clone());
        }
    }

    /// A job has ended.
    pub fn closed(&self, tenant: &str, job: &JobId) {
        if let Some(busy) = self.busy().get_mut(tenant) {
            busy.open.remove(job);
        }
    }

    /// A verification for a tenant took so long.
    pub async fn spent(&self, tenant: &str, time: Duration) -> Result<(), RecordError> {
        let key = usage_key(tenant, today());
        while !self.records.create(&key, &time).await? {
            let added = self
                .records
                .change(&key, |spent: Duration| Some(spent + time));
            if added.await?.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// What a tenant has spent today.
    pub async fn used(&self, tenant: &str) -> Result<Duration, RecordError> {
        let found = self.records.get(&usage_key(tenant, today())).await?;
        Ok(found.map_or(Duration::ZERO, |record| record.value))
    }

    /// How many jobs a tenant has under way.
    pub fn open_jobs(&self, tenant: &str) -> usize {
        self.busy().get(tenant).map_or(0, |busy| busy.open.len())
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<String, Busy>> {
        let busy = self.busy.lock();
        busy.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Busy {
    fn default() -> Self {
        Self {
            open: HashSet::new(),
            room: Arc::new(Semaphore::new(READ_AT_ONCE)),
            // As many as the quota says: it is never more.
            allowance: f64::INFINITY,
            filled: Instant::now(),
        }
    }
}

impl Busy {
    fn take(&mut self, per_minute: u32, now: Instant) -> Result<(), Exceeded> {
        let most = f64::from(per_minute);
        let per_second = most / 60.0;
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.allowance = (self.allowance + passed * per_second).min(most);
        self.filled = now;
        if self.allowance < 1.0 {
            // Who may submit none at all waits for a day.
            let seconds = ((1.0 - self.allowance) / per_second).min(86_400.0);
            return Err(Exceeded::Rate {
                per_minute,
                wait: Duration::from_secs_f64(seconds),
            });
        }
        self.allowance -= 1.0;
        Ok(())
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn quota_key(tenant: &str) -> String {
    format!("quota.{tenant}")
}

fn usage_key(tenant: &str, day: Date) -> String {
    format!("usage.{tenant}.{day}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Sqlite;

    #[tokio::test]
    async fn quotas_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::from(Sqlite::open(&folder.path().join("state.db")).unwrap());
        let tenants = Tenants::new(records, Quota::default());
        let quota = Quota {
            open_jobs: 1,
            jobs_per_minute: 2,
            object_bytes: 10,
            seconds_per_day: 5,
        };
        tenants.set_quota("a", quota).await.unwrap();
        let now = Instant::now();
        let admit = async |tenant: &str, bytes, seconds| {
            let then = now + Duration::from_secs(seconds);
            tenants.admit(tenant, bytes, then).await.unwrap()
        };
        assert_eq!(
            admit("a", 11, 0).await,
            Err(Exceeded::Object {
                found: 11,
                allowed: 10
            })
        );
        assert_eq!(admit("a", 10, 0).await, Ok(()));
        let job = JobId::new(Timestamp::now());
        tenants.opened("a", &job);
        assert_eq!(admit("a", 1, 0).await, Err(Exceeded::OpenJobs(1)));
        tenants.closed("a", &job);
        assert_eq!(admit("a", 1, 0).await, Ok(()));
        let Err(Exceeded::Rate { wait, .. }) = admit("a", 1, 0).await else {
            panic!("two a minute");
        };
        assert_eq!(wait.as_secs(), 30);
        assert_eq!(admit("a", 1, 31).await, Ok(()));
        tenants.spent("a", Duration::from_secs(3)).await.unwrap();
        assert_eq!(admit("a", 1, 120).await, Ok(()));
        tenants.spent("a", Duration::from_secs(2)).await.unwrap();
        assert_eq!(admit("a", 1, 180).await, Err(Exceeded::Time(5)));
        assert_eq!(admit("b", 1000, 180).await, Ok(()), "others have their own");
    }

    #[test]
    fn who_may_submit_nothing_waits_a_day_and_not_for_ever() {
        let now = Instant::now();
        let mut busy = Busy {
            allowance: 0.0,
            filled: now,
            ..Busy::default()
        };
        let Err(Exceeded::Rate { wait, .. }) = busy.take(0, now) else {
            panic!("none may");
        };
        assert_eq!(wait.as_secs(), 86_400);
    }
}
