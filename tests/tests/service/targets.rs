//! Targets that come and go while the service runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use preverify_lab::{Lab, object};
use preverify_target::{Store, default_cache};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::Running;

/// How long a service may take to see what has changed.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn targets_come_and_go_while_it_runs() {
    let lab = Lab::new().unwrap();
    let scratch = Scratch::new();
    let running = Running::of_store(&scratch.store, 1, &tempfile::tempdir().unwrap());
    assert_eq!(running.targets(), json!([]));

    // As from the command, in another process.
    scratch.put(&lab, "kept");
    running.wait_for_target("kept");
    let release = &lab.target.facts().release;
    let source = format!("debian:{release}");
    let wanted = json!({ "source": source, "name": "board" });
    let (status, answer) = running.post_json("/v1/targets", &wanted, &running.token);
    assert_eq!(status, 202, "{answer}");
    let board = running.wait_for_target_to_be("ready", "board");
    assert_eq!(board["release"], *release);
    let job = running.wait(&running.submit(&object("refusals").unwrap(), &["board"]));
    assert_eq!(job["state"], "accepted", "{job:#}");

    // What is the same under another name goes on.
    let (status, answer) = running.delete("/v1/targets/kept");
    assert_eq!(status, 204, "{answer}");
    let targets = running.targets();
    assert_eq!(targets[0]["name"], "board", "{targets:#}");
    assert_eq!(targets.as_array().unwrap().len(), 1);
    wait("a verifier waits", || scratch.machines() == 2);

    // As from the command again: verifiers that wait end, and nothing is left on disk.
    scratch.store.remove("board").unwrap();
    wait("it is gone", || running.targets() == json!([]));
    wait("no verifier waits", || scratch.machines() == 0);
    for folder in ["kernels", "parts", "layouts"] {
        wait("nothing is left", || scratch.is_empty(folder));
    }
    scratch.put(&lab, "kept");
    running.wait_for_target("kept");
    let job = running.wait(&running.submit(&object("rejected").unwrap(), &["kept"]));
    assert_eq!(job["state"], "refused", "{job:#}");

    let (status, audit) = running.get("/v1/audit");
    assert_eq!(status, 200);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let deeds = audit.as_array().unwrap().iter();
    let deeds: Vec<_> = deeds
        .filter(|entry| entry["action"].as_str().unwrap().ends_with("-target"))
        .map(|entry| {
            (
                entry["action"].as_str().unwrap(),
                entry["subject"].as_str().unwrap(),
            )
        })
        .collect();
    let added = format!("board {source}");
    assert_eq!(deeds, [("add-target", &*added), ("remove-target", "kept")]);
}

#[test]
fn what_cannot_be_added_or_removed_is_told() {
    let lab = Lab::new().unwrap();
    let scratch = Scratch::new();
    scratch.put(&lab, "kept");
    let running = Running::of_store(&scratch.store, 0, &tempfile::tempdir().unwrap());
    let source = "debian:6.12-cloud-amd64";
    for (wanted, status, words) in [
        (json!({ "source": "/boot/vmlinuz" }), 422, "names no kernel"),
        (
            json!({ "source": source, "name": "../x" }),
            422,
            "cannot name a target",
        ),
        (
            json!({ "source": source, "name": "kept" }),
            409,
            "`kept` already",
        ),
        (json!({ "source": source, "cpu": "a\0" }), 422, "`cpu`"),
        (json!({ "source": source, "max_cpus": 0 }), 422, "1 to 255"),
        (
            json!({ "source": source, "kernel": "/boot/vmlinuz" }),
            422,
            "kernel",
        ),
    ] {
        let (found, answer) = running.post_json("/v1/targets", &wanted, &running.token);
        assert_eq!(found, status, "{wanted}: {answer}");
        assert!(answer.contains(words), "{wanted}: {answer}");
    }
    // What shows later shows where the target would be.
    let wanted = json!({ "source": source, "name": "board", "fingerprint": { "abi_version": 0 } });
    let (status, answer) = running.post_json("/v1/targets", &wanted, &running.token);
    assert_eq!(status, 202, "{answer}");
    let board = running.wait_for_target_to_be("failed", "board");
    assert!(
        board["reason"].as_str().unwrap().contains("version"),
        "{board:#}"
    );
    assert_eq!(running.targets().as_array().unwrap().len(), 2);
    assert_eq!(running.delete("/v1/targets/board").0, 204);
    let (status, answer) = running.delete("/v1/targets/board");
    assert_eq!(status, 404, "{answer}");
    assert!(answer.contains("there are: kept"), "{answer}");

    // While somebody else changes the store, nobody waits for it.
    let changing = fs::File::create(scratch.folder.path().join("store.lock")).unwrap();
    changing.lock().unwrap();
    let wanted =
        json!({ "source": format!("debian:{}", lab.target.facts().release), "name": "board" });
    let (status, answer) = running.post_json("/v1/targets", &wanted, &running.token);
    assert_eq!(status, 202, "{answer}");
    for (status, answer) in [
        running.post_json("/v1/targets", &wanted, &running.token),
        running.delete("/v1/targets/kept"),
        running.delete("/v1/targets/board"),
    ] {
        assert_eq!(status, 409, "{answer}");
    }
    let board = running.wait_for_target_to_be("preparing", "board");
    assert!(board["step"].is_string(), "{board:#}");
    drop(changing);
    running.wait_for_target("board");
}

#[test]
fn what_waits_for_a_target_that_is_removed_ends() {
    let lab = Lab::new().unwrap();
    let scratch = Scratch::new();
    scratch.put(&lab, "board");
    let running = Running::of_store(&scratch.store, 0, &tempfile::tempdir().unwrap());
    let begun = running.submit(&object("maps").unwrap(), &["board"]);
    let path = format!("/v1/jobs/{}", begun["id"].as_str().unwrap());
    wait("it has begun", || {
        let job: Value = serde_json::from_str(&running.get(&path).1).unwrap();
        job["targets"][0]["state"] == "running"
    });
    let waiting = running.submit(&object("refusals").unwrap(), &["board"]);
    let queue: Value = serde_json::from_str(&running.get("/v1/queue").1).unwrap();
    assert_eq!((&queue["slots"], &queue["busy"]), (&json!(1), &json!(1)));
    let line = &queue["targets"][0];
    assert_eq!(
        (&line["target"], &line["tasks"]),
        (&json!("board"), &json!(2)),
        "{queue:#}"
    );
    assert_eq!(line["own"], 2);

    let (status, answer) = running.delete("/v1/targets/board");
    assert_eq!(status, 204, "{answer}");
    // What is under way has what it needs.
    let waiting = running.wait(&waiting);
    assert_eq!(waiting["state"], "failed", "{waiting:#}");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.contains("its target was removed"), "{reason}");
    let begun = running.wait(&begun);
    assert_eq!(begun["state"], "accepted", "{begun:#}");
    // The worker lets go of its ticket once all that waited for it was told.
    wait("the queue is empty", || {
        let queue: Value = serde_json::from_str(&running.get("/v1/queue").1).unwrap();
        queue["targets"] == json!([])
    });
}

impl Running {
    fn targets(&self) -> Value {
        serde_json::from_str(&self.get("/v1/targets").1).unwrap()
    }
}

/// A store of a test's own.
pub struct Scratch {
    pub store: Store,
    folder: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        // Beside what is linked to.
        let beside = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(default_cache().unwrap());
        let folder = beside.unwrap();
        let store = Store::open(folder.path()).unwrap();
        link("apt", folder.path());
        let accelerators = "accelerators.json";
        fs::copy(
            default_cache().unwrap().join(accelerators),
            folder.path().join(accelerators),
        )
        .unwrap();
        Self { store, folder }
    }

    /// Adds the laboratory's target under a name: all that it is made of is there already.
    pub fn put(&self, lab: &Lab, name: &str) {
        lab.target.prepare(&mut |_| {}).unwrap();
        let record = format!("targets/{}.json", lab.target.name());
        let record = fs::read(default_cache().unwrap().join(record)).unwrap();
        let mut record: Value = serde_json::from_slice(&record).unwrap();
        for (folder, key) in [
            ("kernels", "kernel"),
            ("parts", "part"),
            ("layouts", "layouts"),
        ] {
            let path = format!("{folder}/{}", record[key].as_str().unwrap());
            link(&path, &self.folder.path().join(folder));
            // Who uses the one does not use the other.
            let _ = fs::remove_file(self.folder.path().join(path).join("in-use"));
        }
        record["name"] = name.into();
        let targets = self.folder.path().join("targets");
        fs::create_dir_all(&targets).unwrap();
        let written = targets.join(".partial-test");
        fs::write(&written, record.to_string()).unwrap();
        fs::rename(written, targets.join(format!("{name}.json"))).unwrap();
    }

    /// How many machines go on from snapshots in it.
    fn machines(&self) -> usize {
        let folder = self.folder.path().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let of_it = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(folder)
        };
        processes.filter(of_it).count()
    }

    fn is_empty(&self, folder: &str) -> bool {
        fs::read_dir(self.folder.path().join(folder))
            .unwrap()
            .next()
            .is_none()
    }
}

/// Links a part of the cache into a folder, file by file.
fn link(part: &str, into: &Path) {
    fs::create_dir_all(into).unwrap();
    let from = default_cache().unwrap().join(part);
    let mut copy = Command::new("cp");
    let copied = copy.arg("-al").arg(from).arg(into).status();
    assert!(copied.unwrap().success(), "{part}");
}

fn wait(what: &str, until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
