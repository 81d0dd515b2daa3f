//! A service of many processes: NATS servers, processes with the API, workers.

mod network;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use preverify_lab::service::{Client, Process, listening};
use preverify_lab::{NatsServers, machines_of};
use preverify_target::debian::Apt;
use preverify_target::default_cache;
use serde_json::{Value, json};

use crate::debs::unpacked;
use crate::run::run_command;
use network::Network;

/// How many there are of each.
#[derive(Clone, Copy)]
pub struct Plan {
    /// NATS servers.
    pub nats: usize,
    /// Processes with the API.
    pub apis: usize,
    /// Workers.
    pub workers: usize,
    /// Verifiers that wait in each of them.
    pub warm: usize,
}

/// The Debian release whose NATS server is used.
const NATS_RELEASE: &str = "trixie";
/// How long a state may take to come about.
const LIMIT: Duration = Duration::from_secs(600);

/// All of them.
pub struct Cluster {
    /// How many there are.
    pub plan: Plan,
    preverify: PathBuf,
    target: String,
    folder: PathBuf,
    /// What is between the last worker and all else, if it can be cut off.
    network: Option<Network>,
    /// What holds the state.
    pub nats: NatsServers,
    apis: Vec<Option<Process>>,
    /// Where those listen, or did.
    addresses: Vec<String>,
    workers: Vec<Option<Process>>,
    token: String,
}

impl Cluster {
    /// Starts all on the loopback device, and waits until they work. All that they keep and say goes to a folder, which is
    /// made anew.
    pub fn start(
        plan: Plan,
        preverify: &Path,
        target: &str,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_in(plan, preverify, target, folder, None)
    }

    /// The same with a last worker that can be cut off from all others.
    pub fn start_with_cable(
        plan: Plan,
        preverify: &Path,
        target: &str,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_in(plan, preverify, target, folder, Some(Network::new()?))
    }

    fn start_in(
        plan: Plan,
        preverify: &Path,
        target: &str,
        folder: &Path,
        network: Option<Network>,
    ) -> Result<Self, Box<dyn Error>> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let address = network.as_ref().map_or(loopback, Network::address);
        let key = folder.join("signer.pem");
        run_command(
            Command::new(preverify)
                .args(["key", "generate", "--out"])
                .arg(key),
        )?;
        let mut cluster = Self {
            plan,
            nats: NatsServers::start(&nats_server()?, plan.nats, address, folder)?,
            preverify: preverify.to_owned(),
            target: target.to_owned(),
            folder: folder.to_owned(),
            network,
            apis: Vec::new(),
            addresses: vec!["127.0.0.1:0".into(); plan.apis],
            workers: Vec::new(),
            token: String::new(),
        };
        cluster.apis.resize_with(plan.apis, || None);
        cluster.workers.resize_with(plan.workers, || None);
        for api in 0..plan.apis {
            cluster.start_api(api)?;
        }
        // The first one has made it.
        let token = fs::read_to_string(cluster.state(0).join("admin.token"))?;
        token.trim().clone_into(&mut cluster.token);
        let quota = json!({
            "open_jobs": 1_000_000, "jobs_per_minute": 1_000_000,
            "object_bytes": 1 << 24, "seconds_per_day": 1_000_000
        });
        cluster.clients()[0].put("/v1/tenants/default", &quota)?;
        for worker in 0..plan.workers {
            cluster.start_worker(worker)?;
        }
        cluster.wait_for_workers()?;
        Ok(cluster)
    }

    /// Starts a process with the API. It listens where it has listened before.
    pub fn start_api(&mut self, api: usize) -> Result<(), Box<dyn Error>> {
        let log = self.folder.join(format!("api-{api}.log"));
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        let mut command = Command::new(&self.preverify);
        command
            .args(["serve", "--listen", &self.addresses[api], "--state"])
            .arg(self.state(api));
        self.share(&mut command);
        let mut process = Process::start(&mut command, &log)?;
        let url = process.until(|| listening(fs::read_to_string(&log).ok()?.get(before..)?))?;
        self.addresses[api] = url.trim_start_matches("http://").to_owned();
        self.apis[api] = Some(process);
        Ok(())
    }

    /// Starts a worker.
    pub fn start_worker(&mut self, worker: usize) -> Result<(), Box<dyn Error>> {
        let program = self.preverify.to_string_lossy();
        let is_last = worker + 1 == self.plan.workers;
        let mut command = match &self.network {
            Some(network) if is_last => network.command(&program),
            _ => Command::new(&*program),
        };
        command
            .args([
                "worker",
                "--slots",
                "1",
                "--warm",
                &self.plan.warm.to_string(),
            ])
            .args(["--target", &self.target, "--key"])
            .arg(self.folder.join("signer.pem"));
        self.share(&mut command);
        self.workers[worker] = Some(Process::start(&mut command, &self.worker_log(worker))?);
        Ok(())
    }

    fn share(&self, command: &mut Command) {
        command
            .args(["--nats", &self.nats.urls().join(",")])
            .args(["--nats-replicas", &self.plan.nats.to_string()]);
    }

    /// Ends a worker, and its machines with it.
    pub fn kill_worker(&mut self, worker: usize) -> Result<(), Box<dyn Error>> {
        if let Some(mut process) = self.workers[worker].take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Cuts off the last worker, or ends that.
    pub fn cut_off(&self, is_cut: bool) -> Result<(), Box<dyn Error>> {
        if let Some(network) = &self.network {
            network.cable(if is_cut { "down" } else { "up" })?;
        }
        Ok(())
    }

    /// The process of a worker.
    pub fn worker_process(&self, worker: usize) -> Option<u32> {
        self.workers[worker].as_ref().map(Process::id)
    }

    /// Sends a signal to a worker and its machines.
    pub fn signal_worker(&self, worker: usize, signal: &str) -> Result<(), Box<dyn Error>> {
        if let Some(id) = self.worker_process(worker) {
            for id in machines_of(id).into_iter().chain([id]) {
                // A machine may have ended meanwhile.
                let _ = Command::new("kill")
                    .args([&format!("-{signal}"), &id.to_string()])
                    .status()?;
            }
        }
        Ok(())
    }

    /// Ends a process with the API.
    pub fn kill_api(&mut self, api: usize) -> Result<(), Box<dyn Error>> {
        if let Some(mut process) = self.apis[api].take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Ends all processes at once, and starts them again.
    pub fn restart_all(&mut self) -> Result<(), Box<dyn Error>> {
        for worker in 0..self.plan.workers {
            self.kill_worker(worker)?;
        }
        for api in 0..self.plan.apis {
            self.kill_api(api)?;
        }
        for server in 0..self.plan.nats {
            self.nats.kill(server)?;
        }
        for server in 0..self.plan.nats {
            self.nats.restart(server)?;
        }
        self.nats.wait()?;
        for api in 0..self.plan.apis {
            self.start_api(api)?;
        }
        for worker in 0..self.plan.workers {
            self.start_worker(worker)?;
        }
        Ok(())
    }

    /// The name of the target that all workers verify for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// A client of each process with the API.
    pub fn clients(&self) -> Vec<Client> {
        let addresses = self.addresses.iter();
        addresses
            .map(|address| Client::new(format!("http://{address}"), &self.token))
            .collect()
    }

    /// Waits until a worker has begun something that it has not ended.
    pub fn while_it_works(&self, worker: usize) -> Result<(), Box<dyn Error>> {
        eventually("the worker works", || {
            let log = fs::read_to_string(self.worker_log(worker)).unwrap_or_default();
            let last = log.lines().rev().find(|line| line.contains("task "));
            last.is_some_and(|line| line.contains("task begun"))
        })
    }

    fn wait_for_workers(&self) -> Result<(), Box<dyn Error>> {
        let clients = self.clients();
        eventually("all workers are known", || {
            clients.iter().all(|client| {
                let workers = json_of(client, "/v1/workers");
                workers.as_array().map(Vec::len) == Some(self.plan.workers)
            })
        })
    }

    /// Waits until nothing waits for a worker any more, and no job is open.
    pub fn wait_until_idle(&self) -> Result<(), Box<dyn Error>> {
        let clients = self.clients();
        eventually("nothing waits", || {
            clients.iter().all(|client| {
                let metrics = client.get("/metrics").unwrap_or_default();
                let metrics = String::from_utf8_lossy(&metrics);
                let open = &json_of(client, "/v1/tenants/default")["open_jobs"];
                // A target for which nothing waits is not among the numbers.
                metrics.contains("# EOF") && !metrics.contains("preverify_waiting{") && open == 0
            })
        })
    }

    /// How many tasks have ended, as workers say, and how many of these by more than one.
    pub fn count_tasks(&self) -> Result<(usize, usize), Box<dyn Error>> {
        let mut ended: HashMap<String, usize> = HashMap::new();
        for worker in 0..self.plan.workers {
            let log = fs::read_to_string(self.worker_log(worker))?;
            for line in log.lines().filter(|line| line.contains("task ended")) {
                if let Some((_, rest)) = line.split_once("task=") {
                    let task = rest.split_whitespace().next().unwrap_or_default();
                    *ended.entry(task.to_owned()).or_default() += 1;
                }
            }
        }
        let twice = ended.values().filter(|&&count| count > 1).count();
        Ok((ended.len(), twice))
    }

    fn state(&self, api: usize) -> PathBuf {
        self.folder.join(format!("api-{api}"))
    }

    fn worker_log(&self, worker: usize) -> PathBuf {
        self.folder.join(format!("worker-{worker}.log"))
    }
}

/// The program, which need not be installed: not every Debian release has one that keeps what its cluster has agreed on.
fn nats_server() -> Result<PathBuf, Box<dyn Error>> {
    let cache = default_cache()?;
    let folder = cache.join(format!("nats-server-{NATS_RELEASE}"));
    let apt = || Apt::open_release(&cache, NATS_RELEASE);
    let folder = unpacked(&folder, apt, |_| {
        Ok::<_, Box<dyn Error>>(vec!["nats-server".to_owned()])
    })?;
    Ok(folder.join("usr/sbin/nats-server"))
}

fn json_of(client: &Client, path: &str) -> Value {
    let text = client.get(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn eventually(what: &str, is_so: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > LIMIT {
            return Err(format!("after {} s, it is not so that {what}", LIMIT.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
