//! `cargo xtask soak hostile`: thousands of damaged objects against a service, and another tenant meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use preverify_lab::service::{Client, ServiceError, serve};
use preverify_lab::{Damage, Damaged, TARGET, Vandal, memory, peak_memory, target};
use preverify_pipeline::Object;
use serde_json::Value;
use tempfile::TempDir;

use crate::arch::Arch;
use crate::paths::workspace;
use crate::{artifacts, bpf};

/// One of so many damaged objects gets as far as libbpf, in two virtual machines.
const DEEP: usize = 50;
/// How many are sent at the same time.
const SENDERS: usize = 4;
/// How many objects of another tenant are verified before.
const ALONE: usize = 10;
/// How long the other tenant waits between two objects.
const PAUSE: Duration = Duration::from_secs(2);
/// How a soak is done.
#[derive(clap::Args)]
pub struct HostileArgs {
    /// How many damaged objects are sent
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// What the damage depends on: the same seed gives the same objects
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The command `preverify`, with the agents of verifier VMs beside it, instead of one that is built
    #[arg(long, value_name = "FILE")]
    preverify: Option<PathBuf>,
}

/// Sends damaged objects to a service, and says what became of them, of the service, and of another tenant meanwhile.
pub fn hostile(args: &HostileArgs) -> Result<(), Box<dyn Error>> {
    let preverify = match &args.preverify {
        Some(file) => file.clone(),
        None => artifacts::command(&artifacts::binaries(&[Arch::X86_64])?)?,
    };
    let objects = objects()?;
    let honest = fs::read(bpf::example(Arch::X86_64, HONEST)?)?;
    let target = target(TARGET, &mut |stage| println!("{stage}"))?
        .name()
        .to_owned();

    let folder = TempDir::new()?;
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    let (service, admin) = serve(&preverify, &state, &log, &["--target", &target])?;
    let tenant = |name| -> Result<Tenant, ServiceError> {
        Ok(Tenant {
            client: admin.of_tenant(name)?,
            target: target.clone(),
        })
    };
    let (hostile, other) = (tenant("hostile")?, tenant("other")?);
    let mut alone = Vec::new();
    for number in 0..ALONE {
        alone.push(other.verified(&honest, &format!("alone{number}"))?);
    }
    let before = memory(service.id()).ok_or("the service is gone")?;
    println!("sending {} damaged objects, seed {}", args.count, args.seed);

    let start = Instant::now();
    let all = Mutex::new(
        Vandal::new(objects, args.seed, DEEP)
            .take(args.count)
            .enumerate(),
    );
    let found = Mutex::new(Found::default());
    let done = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| scope.spawn(|| send(&hostile, &all, &found)))
            .collect();
        let others = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                times.push(other.verified(&honest, &format!("meanwhile{}", times.len()))?);
                thread::sleep(PAUSE);
            }
            Ok::<_, String>(times)
        });
        let sent = senders.into_iter().try_for_each(joined).and_then(|()| {
            println!("all were sent after {} s", start.elapsed().as_secs());
            wait(&hostile, &found)
        });
        done.store(true, Ordering::Relaxed);
        let meanwhile = joined(others)?;
        sent.map(|()| meanwhile)
    })?;
    admin.get("/readyz")?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    print!("{found}");
    println!(
        "another tenant's objects, each verified: alone {}",
        Times(&alone)
    );
    println!(
        "                                      meanwhile {}",
        Times(&meanwhile)
    );
    println!(
        "memory of the service: {} MiB before, {} MiB after, {} MiB at most",
        before / 1024,
        memory(service.id()).ok_or("the service is gone")? / 1024,
        peak_memory(service.id()).ok_or("the service is gone")? / 1024
    );
    println!("{} s in all", start.elapsed().as_secs());
    found.check(args.count)
}

/// The example that the other tenant submits.
const HONEST: &str = "xdp_count";
/// What is not damaged: it alone takes longer than the others together.
const ENDLESS: &str = "endless.bpf.o";

/// The examples, and the programs of tests: always the same, whatever else was compiled.
fn objects() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut paths = bpf::examples(Arch::X86_64)?;
    let folder = bpf::test_programs(Arch::X86_64)?;
    for source in bpf::sources(&workspace().join("tests/programs"))? {
        let name = source.file_name().unwrap_or_default();
        paths.push(folder.join(name).with_extension("o"));
    }
    paths.retain(|path| !path.ends_with(ENDLESS));
    let objects = paths.iter().map(|path| Ok(Object::read(path)?.elf));
    objects.collect()
}

/// What became of damaged objects.
#[derive(Default)]
struct Found {
    /// How many there are of each damage, with each status.
    answers: BTreeMap<(Damage, u16), usize>,
    /// Why they were refused at once, without numbers and names.
    problems: BTreeMap<String, usize>,
    /// What came of those that got as far as libbpf.
    outcomes: BTreeMap<String, usize>,
    /// Jobs that may not have ended.
    jobs: VecDeque<Value>,
    slowest: Duration,
}

fn send(
    tenant: &Tenant,
    all: &Mutex<impl Iterator<Item = (usize, Damaged)>>,
    found: &Mutex<Found>,
) -> Result<(), String> {
    loop {
        let next = locked(all).next();
        let Some((number, damaged)) = next else {
            return Ok(());
        };
        let start = Instant::now();
        let (status, answer) = tenant.submit(&damaged.elf, &format!("damaged{number}"))?;
        let took = start.elapsed();
        let mut found = locked(found);
        found.slowest = found.slowest.max(took);
        *found.answers.entry((damaged.damage, status)).or_default() += 1;
        match (status, damaged.deep) {
            (201, true) => found.jobs.push_back(answer),
            (400..500, false) => {
                let why = without_names(&text(&answer, "detail")?);
                *found.problems.entry(why).or_default() += 1;
            }
            _ => {
                return Err(format!(
                    "object {number} ({}) was answered with {status}: {answer}",
                    damaged.damage
                ));
            }
        }
    }
}

/// Waits until all jobs have ended.
fn wait(tenant: &Tenant, found: &Mutex<Found>) -> Result<(), String> {
    loop {
        let next = locked(found).jobs.pop_front();
        let Some(job) = next else {
            return Ok(());
        };
        let job = tenant.ended(&job)?;
        let state = text(&job, "state")?;
        let message = job["targets"][0]["message"].as_str().unwrap_or_default();
        if state != "accepted" && message.is_empty() {
            return Err(format!("nobody says why: {job}"));
        }
        let outcome = match &*state {
            "accepted" => state,
            _ => format!("{state}: {}", beginning(message)),
        };
        *locked(found).outcomes.entry(outcome).or_default() += 1;
    }
}

impl Found {
    fn check(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let answers: usize = self.answers.values().sum();
        match answers == count {
            true => Ok(()),
            false => Err(format!("{answers} answers to {count} objects").into()),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "answers by damage and status:")?;
        for ((damage, status), count) in &self.answers {
            writeln!(f, "  {damage:22} {status} {count:6}")?;
        }
        writeln!(f, "why at once:")?;
        by_number(f, &self.problems)?;
        writeln!(
            f,
            "what came of those that got as far as libbpf, one of {DEEP}:"
        )?;
        by_number(f, &self.outcomes)?;
        writeln!(f, "the slowest answer took {} ms", self.slowest.as_millis())
    }
}

fn by_number(f: &mut fmt::Formatter<'_>, counts: &BTreeMap<String, usize>) -> fmt::Result {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    counts
        .iter()
        .try_for_each(|(what, count)| writeln!(f, "  {count:6}  {what}"))
}

/// A message without what differs from object to object.
fn without_names(message: &str) -> String {
    let message = message.split("; compile it").next().unwrap_or_default();
    let message = message.rsplit("can open: ").next().unwrap_or_default();
    let mut short = String::new();
    for (number, part) in message.split('`').enumerate() {
        match number % 2 {
            0 => short.push_str(part),
            _ => short.push('~'),
        }
    }
    let mut words: Vec<_> = Vec::new();
    for word in short.split(' ') {
        let bare = word.trim_matches(|character: char| !character.is_ascii_alphanumeric());
        let is_number = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit());
        words.push(if is_number { "N" } else { word });
    }
    words.join(" ")
}

/// What a message begins with, up to names.
fn beginning(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let end = line.find(['`', '(']).unwrap_or(line.len());
    line[..end].trim().chars().take(100).collect()
}

/// Somebody of a tenant.
struct Tenant {
    client: Client,
    target: String,
}

impl Tenant {
    /// Submits an object. What is refused is an answer, too.
    fn submit(&self, elf: &[u8], name: &str) -> Result<(u16, Value), String> {
        let fields = [("target", self.target.as_str()), ("limits", "time=60s")];
        match self.client.submit(name, elf, &fields) {
            Ok(job) => Ok((201, job)),
            Err(ServiceError::Status { status, answer, .. }) => {
                let problem = serde_json::from_str(&answer);
                let problem = problem.map_err(|_| format!("{status} without JSON: {answer}"))?;
                Ok((status, problem))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A job once it has ended.
    fn ended(&self, job: &Value) -> Result<Value, String> {
        self.client.wait(job).map_err(|error| error.to_string())
    }

    /// How long an object takes that is accepted.
    fn verified(&self, elf: &[u8], name: &str) -> Result<Duration, String> {
        let start = Instant::now();
        let (status, job) = self.submit(elf, name)?;
        if status != 201 {
            return Err(format!(
                "an honest object was answered with {status}: {job}"
            ));
        }
        let job = self.ended(&job)?;
        match text(&job, "state")?.as_str() {
            "accepted" => Ok(start.elapsed()),
            _ => Err(format!("an honest object was not accepted: {job}")),
        }
    }
}

fn text(answer: &Value, field: &str) -> Result<String, String> {
    let found = answer[field].as_str().map(str::to_owned);
    found.ok_or_else(|| format!("an answer without `{field}`: {answer}"))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread
        .join()
        .unwrap_or_else(|_| Err("a thread has panicked".into()))
}

/// The median and the longest.
struct Times<'a>(&'a [Duration]);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.0.to_vec();
        times.sort_unstable();
        match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(longest)) => write!(
                f,
                "{:.1} s in the median, {:.1} s at most, of {}",
                median.as_secs_f64(),
                longest.as_secs_f64(),
                times.len()
            ),
            _ => f.write_str("none"),
        }
    }
}
