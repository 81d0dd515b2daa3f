//! Verification as a service.
//!
//! ```text
//! submission (api)
//!   -> job and tasks (scheduler)     what was done before is found again: a task is called by all that its outcome depends on
//!   -> queue                         tenants take turns
//!   -> worker                        the pipeline, in verifiers that wait in a pool; signs in the same step
//!   -> outcome (scheduler)           once; whoever waits for it goes on
//!   -> bundle, verdict, log (api)    and events for who watches (news)
//! ```
//!
//! What is known lies in records, what is large in blobs. Both survive the process, and nothing else needs to.

#![forbid(unsafe_code)]

mod api;
mod audit;
mod backup;
mod blobs;
mod connections;
mod digest;
mod directory;
mod files;
mod job;
mod log;
mod merge;
mod metrics;
mod nats;
mod news;
mod orphans;
mod pool;
mod queue;
mod random;
mod records;
mod scheduler;
mod serve;
mod shared;
mod shares;
mod state;
mod targets;
mod task;
mod tenants;
mod text;
mod tls;
mod tokens;
mod traces;
mod verify;
mod web;
mod worker;
mod workers;

pub use api::{Bounds, description, views};
pub use backup::{Backup, BackupError, back_up, restore};
pub use log::Log;
pub use nats::{NatsError, NatsOptions};
pub use serve::{Options, ServeError, Service};
pub use state::{DATABASE, private_folder};
pub use tenants::Quota;
pub use tls::{Tls, TlsError};
pub use traces::TracesError;
pub use workers::{WorkerSetup, WorkersError, work};
