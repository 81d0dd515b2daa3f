//! `cargo xtask bench service`: what a service adds to the verifications that it is there for, and how fast it answers what
//! was verified before.

use std::error::Error;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use preverify_bundle::{Bundle, Signer};
use preverify_lab::service::{Client, serve};
use preverify_lab::{Lab, TARGET, memory};
use preverify_pipeline::{Limits, Object, Verifier};
use serde_json::{Value, json};

use super::{results, write};
use crate::arch::Arch;
use crate::chance::Chance;
use crate::paths::target_dir;
use crate::{artifacts, bpf};

/// Objects of which none is the same as another.
const OBJECTS: usize = 200;
/// They are verified by both sides in turn, so many at a time.
const BLOCK: usize = 50;
/// How often each is submitted.
const TIMES: usize = 10;
const CLIENTS: usize = 16;
/// Submissions of what is known.
const KNOWN: usize = 40_000;
/// Verifications at the same time, on both sides.
const SLOTS: usize = 2;
/// Verifiers that wait in the service.
const WARM: usize = 2;

/// Measures, and compares what both sides come to.
pub fn service() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[Arch::X86_64])?;
    let preverify = artifacts::command(&binaries)?;
    let lab = binaries.lab(TARGET, preverify_lab::signer()?)?;
    let objects: Vec<_> = (0..OBJECTS).map(bpf::distinct).collect::<Result<_, _>>()?;
    let folder = target_dir().join("bench-service");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let (slots, warm) = (SLOTS.to_string(), WARM.to_string());
    let more = [
        "--target",
        lab.target.name(),
        "--workers",
        &slots,
        "--warm",
        &warm,
    ];
    let (service, client) = serve(
        &preverify,
        &folder.join("state"),
        &folder.join("log"),
        &more,
    )?;
    let quota = json!({
        "open_jobs": 1_000_000, "jobs_per_minute": 100_000_000,
        "object_bytes": 1 << 24, "seconds_per_day": 1_000_000
    });
    client.put("/v1/tenants/default", &quota)?;

    let mut text = String::new();
    let mut add = |line: String| {
        println!("{line}");
        text += &line;
        text.push('\n');
    };
    add(head(&lab));
    let (mut of_direct, mut of_service) = (Duration::ZERO, Duration::ZERO);
    for block in objects.chunks(BLOCK) {
        let (local, direct) = timed(|| directly(&lab, block))?;
        let (answers, served) = timed(|| by_service(&client, lab.target.name(), block))?;
        compare(block, &local, &answers)?;
        of_direct += direct;
        of_service += served;
        add(format!(
            "| {} | {} | {:.2} | {:.2} | {:.0} % | {} |",
            block.len(),
            block.len() * TIMES,
            per_second(block.len(), direct),
            per_second(block.len(), served),
            100.0 * direct.as_secs_f64() / served.as_secs_f64(),
            mib(memory(service.id())),
        ));
    }
    add(format!(
        "\nAll {OBJECTS}: {:.2} a second directly, {:.2} by the service: **{:.0} %**. All {} bundles of the service equal those \
         of local builds byte for byte, up to the signature.\n",
        per_second(OBJECTS, of_direct),
        per_second(OBJECTS, of_service),
        100.0 * of_direct.as_secs_f64() / of_service.as_secs_f64(),
        OBJECTS * TIMES,
    ));
    for round in 1..=2 {
        let ((), known) = timed(|| known(&client, lab.target.name(), &objects))?;
        add(format!(
            "What was verified before, {KNOWN} submissions by {CLIENTS} clients on the same machine, round {round}: \
             **{:.0} answers a second**; the process has {} MiB afterwards.\n",
            per_second(KNOWN, known),
            mib(memory(service.id())),
        ));
    }
    drop(service);
    write(&results()?.join("service.md"), &text)
}

fn head(lab: &Lab) -> String {
    format!(
        "# The service against verifiers that are driven directly\n\n\
         `cargo xtask bench service`: {OBJECTS} objects of which none is the same as another, each submitted {TIMES} times by \
         {CLIENTS} clients in an order of chance; for `{}`, emulated. Both sides verify {SLOTS} objects at the same time, from \
         the same snapshots, in turn. Verified a second: the time until all submissions of a block are answered, and their bundles fetched, counts.\n\n\
         | objects | submissions | directly /s | service /s | ratio | process, MiB |\n\
         |--:|--:|--:|--:|--:|--:|",
        lab.target.name()
    )
}

/// Each with a verifier of its own, as local builds do.
fn directly(lab: &Lab, objects: &[Object]) -> Result<Vec<Bundle>, Box<dyn Error>> {
    let signer = Signer::from_pem(&lab.signer.to_pem()?)?;
    all(SLOTS, objects.len(), |index| {
        let mut verifier = Verifier::start(&lab.target, Limits::default())?;
        let verified = verifier.verify(&objects[index], &mut |_| {})?;
        let mut bundle = preverify_pipeline::bundle(&[(&lab.target, &verified)])?;
        bundle.sign(&signer)?;
        Ok(bundle)
    })
}

/// The bundles of all submissions, in an order of chance, with the places of their objects.
fn by_service(
    client: &Client,
    target: &str,
    objects: &[Object],
) -> Result<Vec<(usize, Bundle)>, Box<dyn Error>> {
    let order = Chance::new(1).order(objects.len() * TIMES);
    all(CLIENTS, order.len(), |place| {
        let index = order[place] % objects.len();
        let object = &objects[index];
        let job = client.submit(&object.name, &object.elf, &[("target", target)])?;
        let job = accepted(client.wait(&job)?)?;
        Ok((index, client.bundle(&job)?))
    })
}

fn compare(
    objects: &[Object],
    local: &[Bundle],
    answers: &[(usize, Bundle)],
) -> Result<(), Box<dyn Error>> {
    for (index, bundle) in answers {
        if bundle.manifest_bytes() != local[*index].manifest_bytes() {
            let name = &objects[*index].name;
            return Err(
                format!("the service's bundle of {name} is not that of a local build").into(),
            );
        }
    }
    Ok(())
}

fn known(client: &Client, target: &str, objects: &[Object]) -> Result<(), Box<dyn Error>> {
    let digests: Vec<_> = objects.iter().map(Object::sha256).collect();
    all(CLIENTS, KNOWN, |place| {
        let index = place % objects.len();
        let name = &objects[index].name;
        accepted(client.submit_known(name, &digests[index], &[("target", target)])?)?;
        Ok(())
    })?;
    Ok(())
}

fn timed<T>(
    work: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<(T, Duration), Box<dyn Error>> {
    let start = Instant::now();
    Ok((work()?, start.elapsed()))
}

fn accepted(job: Value) -> Result<Value, Failure> {
    match job["state"] == "accepted" {
        true => Ok(job),
        false => Err(format!("a job was not accepted: {job:#}").into()),
    }
}

type Failure = Box<dyn Error + Send + Sync>;

/// Does so many things, some at the same time; what comes of them is in their order. Ends with the first failure.
fn all<T: Send>(
    at_once: usize,
    count: usize,
    work: impl Fn(usize) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Box<dyn Error>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    let take_all = || -> Result<(), Failure> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let outcome = work(index).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            done.lock()
                .expect("nobody panics with it")
                .push((index, outcome));
        }
    };
    let ended = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(take_all)).collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    });
    ended.map_err(|failure| -> Box<dyn Error> { failure })?;
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
}

#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn mib(kib: Option<u64>) -> String {
    kib.map_or_else(|| "?".into(), |kib| (kib / 1024).to_string())
}
