//! `cargo xtask soak cluster`: a service of many processes, which are killed, stopped and cut off while it works.
//!
//! Three NATS servers, two processes with the API, four workers. One worker is in a network namespace of its own, so that it
//! can be cut off from all others. Clients do what clients should: they ask again if they get no answer. In the end, each
//! job must have ended once, and as a local build does.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use preverify_lab::TARGET;
use preverify_lab::service::{Client, ServiceError};
use preverify_pipeline::Object;
use serde_json::Value;

use super::faults::Fault;
use crate::arch::Arch;
use crate::chance::Chance;
use crate::cluster::{Cluster, Plan};
use crate::paths::target_dir;
use crate::{artifacts, bpf};

const PLAN: Plan = Plan {
    nats: 3,
    apis: 2,
    workers: 4,
    warm: 1,
};
/// Clients at the same time.
const CLIENTS: usize = 8;
/// Objects that are built here, too, to compare.
const COMPARED: usize = 20;
/// How long a job may take, with all that happens meanwhile.
const LIMIT: Duration = Duration::from_secs(900);
/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(500);

/// How much is done.
#[derive(clap::Args)]
pub struct ClusterArgs {
    /// Jobs of the long run
    #[arg(long, default_value_t = 1000)]
    jobs: usize,
    /// Faults while it goes on
    #[arg(long, default_value_t = 20)]
    faults: usize,
    /// Which faults, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs all of it, and stops at what is wrong.
pub fn cluster(args: &ClusterArgs) -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[Arch::X86_64])?;
    let preverify = artifacts::command(&binaries)?;
    // The target is there before all workers look for it.
    let lab = binaries.lab(TARGET, preverify_lab::signer()?)?;
    let folder = target_dir().join("soak-cluster");
    let mut objects = Objects::default();
    let mut cluster = Cluster::start_with_cable(PLAN, &preverify, lab.target.name(), &folder)?;
    println!(
        "{} NATS servers, {} processes with the API, {} workers; logs are in {}",
        PLAN.nats,
        PLAN.apis,
        PLAN.workers,
        folder.display()
    );

    for worker in 0..PLAN.workers {
        // As many as keep all workers at work for a while.
        let jobs = objects.next(10 * PLAN.workers)?;
        let name = format!("kill -9 of worker {worker} in the middle of a job");
        run(&name, &mut cluster, &jobs, |cluster, _| {
            cluster.while_it_works(worker)?;
            cluster.kill_worker(worker)?;
            thread::sleep(Duration::from_secs(2));
            cluster.start_worker(worker)
        })?;
    }
    for (name, fault) in [
        ("kill -9 of a NATS server", Fault::KillNats(0)),
        ("kill -9 of a process with the API", Fault::KillApi(0)),
        ("a worker is cut off", Fault::CutOff(40)),
        ("a worker is stopped, and goes on", Fault::Stop(1, 40)),
    ] {
        let jobs = objects.next(6)?;
        run(name, &mut cluster, &jobs, |cluster, _| {
            thread::sleep(Duration::from_secs(1));
            fault.happen(cluster)
        })?;
    }
    let jobs = objects.next(6)?;
    run(
        "kill -9 of all processes",
        &mut cluster,
        &jobs,
        |cluster, _| {
            thread::sleep(Duration::from_secs(2));
            cluster.restart_all()
        },
    )?;

    let jobs = objects.next(args.jobs)?;
    let name = format!(
        "{} jobs with {} faults of chance (seed {})",
        args.jobs, args.faults, args.seed
    );
    let bundles = run(&name, &mut cluster, &jobs, |cluster, ended| {
        let mut chance = Chance::new(args.seed);
        for number in 0..args.faults {
            // Spread over the run, at the pace that it turns out to have.
            let due = (number + 1) * args.jobs / (args.faults + 1);
            ended.wait_for(due)?;
            let fault = Fault::of(PLAN, &mut chance);
            println!("    after {due} jobs: {fault}");
            fault.happen(cluster)?;
        }
        Ok(())
    })?;
    let compared = &jobs[..COMPARED.min(jobs.len())];
    for object in compared {
        let local = lab.bundle(&lab.verify(object)?)?;
        if local.manifest_bytes() != bundles[&object.name] {
            return Err(
                format!("the bundle of {} is not that of a local build", object.name).into(),
            );
        }
    }
    println!(
        "{} of the bundles equal those of local builds byte for byte, up to the signature",
        compared.len()
    );
    let (ended, twice) = cluster.count_tasks()?;
    println!(
        "{ended} tasks have ended; {twice} of them were done by more than one worker, and count once"
    );
    Ok(())
}

/// Submits objects while something happens. All must be accepted; the manifests come back.
fn run(
    name: &str,
    cluster: &mut Cluster,
    objects: &[Object],
    happen: impl FnOnce(&mut Cluster, &Ended) -> Result<(), Box<dyn Error>>,
) -> Result<HashMap<String, Vec<u8>>, Box<dyn Error>> {
    println!("{name}");
    let start = Instant::now();
    let (clients, target) = (cluster.clients(), cluster.target().to_owned());
    let (next, ended) = (AtomicUsize::new(0), Ended::default());
    let done = Mutex::new(HashMap::new());
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(object) = objects.get(index) else {
                return;
            };
            let outcome = accept(&clients, &target, index, object);
            ended.0.fetch_add(1, Ordering::Relaxed);
            match outcome {
                Ok(manifest) => drop(
                    done.lock()
                        .expect("nobody panics")
                        .insert(object.name.clone(), manifest),
                ),
                Err(error) => failed
                    .lock()
                    .expect("nobody panics")
                    .push(format!("{}: {error}", object.name)),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(work);
        }
        happen(cluster, &ended)
    })?;
    let failed = failed.into_inner().expect("nobody panics");
    if !failed.is_empty() {
        return Err(format!(
            "{} of {} jobs failed:\n{}",
            failed.len(),
            objects.len(),
            failed.join("\n")
        )
        .into());
    }
    cluster.wait_until_idle()?;
    println!(
        "    {} jobs accepted in {} s, each bundle the same from all processes; nothing waits any more",
        objects.len(),
        start.elapsed().as_secs()
    );
    Ok(done.into_inner().expect("nobody panics"))
}

/// Submits an object until it is taken, follows the job to its end, and fetches the bundle from each process.
fn accept(
    clients: &[Client],
    target: &str,
    index: usize,
    object: &Object,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let start = Instant::now();
    let mut turn = index;
    let mut again = |attempt: &dyn Fn(&Client) -> Result<Value, ServiceError>| loop {
        turn += 1;
        match attempt(&clients[turn % clients.len()]) {
            Err(error) if start.elapsed() < LIMIT && is_passing(&error) => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    };
    let job = again(&|client| client.submit(&object.name, &object.elf, &[("target", target)]))?;
    let ended = loop {
        let ended = again(&|client| client.wait(&job))?;
        if ended["state"] != "running" {
            break ended;
        }
        if start.elapsed() > LIMIT {
            return Err(format!("it has not ended after {} s: {ended:#}", LIMIT.as_secs()).into());
        }
    };
    if ended["state"] != "accepted" {
        return Err(format!("it was not accepted: {ended:#}").into());
    }
    let mut bundles = Vec::new();
    for client in clients {
        let bundle = loop {
            match client.bundle(&job) {
                Err(error) if start.elapsed() < LIMIT && is_passing(&error) => thread::sleep(PAUSE),
                outcome => break outcome?,
            }
        };
        bundles.push(bundle);
    }
    let first = &bundles[0];
    match bundles
        .iter()
        .all(|bundle| bundle.to_bytes() == first.to_bytes())
    {
        true => Ok(first.manifest_bytes().to_vec()),
        false => Err("its bundle is another from another process".into()),
    }
}

/// How many jobs of a run have ended.
#[derive(Default)]
struct Ended(AtomicUsize);

impl Ended {
    /// Waits for so many.
    fn wait_for(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let ended = self.0.load(Ordering::Relaxed);
            if ended >= count {
                return Ok(());
            }
            if ended > before {
                (before, since) = (ended, Instant::now());
            }
            if since.elapsed() > LIMIT {
                return Err(format!("no job has ended for {} s", LIMIT.as_secs()).into());
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Whether the same may be answered in a moment.
fn is_passing(error: &ServiceError) -> bool {
    match error {
        ServiceError::Http { .. } => true,
        ServiceError::Status { status, .. } => *status == 503,
        _ => false,
    }
}

/// Objects of which none is the same as another, nor was there before.
#[derive(Default)]
struct Objects {
    made: usize,
}

impl Objects {
    fn next(&mut self, count: usize) -> Result<Vec<Object>, Box<dyn Error>> {
        let numbers = self.made..self.made + count;
        self.made += count;
        numbers.map(bpf::distinct).collect()
    }
}
