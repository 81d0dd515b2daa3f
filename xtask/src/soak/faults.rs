//! What can happen to a service of many processes.

use std::error::Error;
use std::fmt;
use std::thread;
use std::time::Duration;

use crate::chance::Chance;
use crate::cluster::{Cluster, Plan};

/// Something that happens, and passes.
pub enum Fault {
    /// A worker is killed, and started again.
    KillWorker(usize),
    /// A NATS server is killed, and started again.
    KillNats(usize),
    /// A process with the API is killed, and started again.
    KillApi(usize),
    /// The last worker is cut off for so many seconds.
    CutOff(u64),
    /// A worker is stopped, and goes on after so many seconds.
    Stop(usize, u64),
}

impl Fault {
    /// One of chance.
    pub fn of(plan: Plan, chance: &mut Chance) -> Self {
        match chance.below(5) {
            0 => Self::KillWorker(chance.below(plan.workers)),
            1 => Self::KillNats(chance.below(plan.nats)),
            2 => Self::KillApi(chance.below(plan.apis)),
            3 => Self::CutOff(5 + chance.below(30) as u64),
            _ => Self::Stop(chance.below(plan.workers), 5 + chance.below(30) as u64),
        }
    }

    /// Has it happen, and waits until it has passed.
    pub fn happen(&self, cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
        match *self {
            Self::KillWorker(worker) => {
                cluster.kill_worker(worker)?;
                thread::sleep(Duration::from_secs(2));
                cluster.start_worker(worker)
            }
            Self::KillNats(server) => {
                cluster.nats.kill(server)?;
                thread::sleep(Duration::from_secs(10));
                cluster.nats.restart(server)?;
                Ok(cluster.nats.wait()?)
            }
            Self::KillApi(api) => {
                cluster.kill_api(api)?;
                thread::sleep(Duration::from_secs(2));
                cluster.start_api(api)
            }
            Self::CutOff(seconds) => {
                cluster.cut_off(true)?;
                thread::sleep(Duration::from_secs(seconds));
                cluster.cut_off(false)
            }
            Self::Stop(worker, seconds) => {
                cluster.signal_worker(worker, "STOP")?;
                thread::sleep(Duration::from_secs(seconds));
                cluster.signal_worker(worker, "CONT")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillWorker(worker) => write!(f, "kill -9 of worker {worker}"),
            Self::KillNats(server) => write!(f, "kill -9 of NATS server {server}, back after 10 s"),
            Self::KillApi(api) => write!(f, "kill -9 of API process {api}"),
            Self::CutOff(seconds) => write!(f, "the last worker is cut off for {seconds} s"),
            Self::Stop(worker, seconds) => write!(f, "worker {worker} is stopped for {seconds} s"),
        }
    }
}
