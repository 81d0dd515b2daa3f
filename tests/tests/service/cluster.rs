//! A service of several processes: what they share, and what is left when one is lost.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use preverify_bundle::Signer;
use preverify_lab::{Lab, NatsServers, object};
use preverify_service::{NatsOptions, Service, WorkerSetup, work};
use preverify_target::{Store, default_cache};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::running::{Running, options};

/// How long a worker may take to begin.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn processes_share_what_they_know() {
    let lab = Lab::new().unwrap();
    let server = Server::start();
    let (state, other_state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = Running::api(&server.options(), &state);
    let mut other = Running::api(&server.options(), &other_state);
    // Tokens are records, too.
    other.token.clone_from(&one.token);
    let _worker = Working::start(&lab, &server, &one.signer);
    one.wait_for_target(lab.target.name());
    other.wait_for_target(lab.target.name());

    let object = object("refusals").unwrap();
    let job = one.submit(&object, &[lab.target.name()]);
    let job = other.wait(&job);
    assert_eq!(job["state"], "accepted", "{job:#}");
    let local = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    assert_eq!(other.bundle(&job).manifest_bytes(), local.manifest_bytes());
    other.bundle(&job).verify(&[one.certificate()]).unwrap();
    let again = other.submit(&object, &[lab.target.name()]);
    assert_eq!(again["state"], "accepted", "{again:#}");
    let (status, workers) = one.get("/v1/workers");
    assert_eq!(status, 200);
    let workers: Value = serde_json::from_str(&workers).unwrap();
    assert_eq!(workers[0]["targets"][0], lab.target.name(), "{workers:#}");
    assert_eq!(workers[0]["slots"], 1);

    // Targets are where workers are.
    let worker = workers[0]["name"].as_str().unwrap();
    let wanted = json!({ "source": "debian:6.12-cloud-amd64" });
    for (status, answer) in [
        one.post_json("/v1/targets", &wanted, &one.token),
        one.delete(&format!("/v1/targets/{}", lab.target.name())),
    ] {
        assert_eq!(status, 409, "{answer}");
        assert!(answer.contains("run `preverify target "), "{answer}");
        assert!(answer.contains(worker), "{answer}");
    }
}

#[test]
fn what_a_lost_worker_had_begun_is_ended_by_another() {
    let lab = Lab::new().unwrap();
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let running = Running::api(&server.options(), &state);
    let lost = Working::start(&lab, &server, &running.signer);
    running.wait_for_target(lab.target.name());
    let job = running.submit(&object("maps").unwrap(), &[lab.target.name()]);
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let start = Instant::now();
    loop {
        let job: Value = serde_json::from_str(&running.get(&path).1).unwrap();
        if job["targets"][0]["state"] == "running" {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{job:#}");
        thread::sleep(Duration::from_millis(10));
    }
    drop(lost);
    let _other = Working::start(&lab, &server, &running.signer);
    let job = running.wait(&job);
    assert_eq!(job["state"], "accepted", "{job:#}");
}

#[test]
fn records_of_a_newer_version_are_left_alone() {
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    drop(Running::api(&server.options(), &state));
    // As a version writes it that has another format.
    let mut newer = server.connect();
    let put = b"CONNECT {}\r\nPUB $KV.preverify_records.format 1\r\n2\r\nPING\r\n";
    newer.write_all(put).unwrap();
    let mut answers = BufReader::new(newer).lines();
    assert!(answers.any(|answer| answer.unwrap() == "PONG"));
    let other = tempfile::tempdir().unwrap();
    let error = Runtime::new()
        .unwrap()
        .block_on(Service::start(
            options(&other, Some(server.options())),
            None,
            &mut |_| {},
        ))
        .err()
        .unwrap();
    assert!(error.to_string().contains("has the format 2"), "{error}");
}

/// A NATS server of this test's own.
pub struct Server {
    servers: NatsServers,
    _folder: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            servers: NatsServers::start(
                Path::new("nats-server"),
                1,
                Ipv4Addr::LOCALHOST.into(),
                folder.path(),
            )
            .unwrap(),
            _folder: folder,
        }
    }

    pub fn options(&self) -> NatsOptions {
        NatsOptions {
            servers: self.servers.urls(),
            credentials: None,
            replicas: 1,
        }
    }

    fn connect(&self) -> TcpStream {
        let [url] = &self.servers.urls()[..] else {
            panic!("there is one server");
        };
        TcpStream::connect(url.strip_prefix("nats://").unwrap()).unwrap()
    }
}

/// A process that only verifies. It is lost when it is dropped: it waits for nothing then, and tells nobody.
pub struct Working {
    end: Option<oneshot::Sender<()>>,
}

impl Working {
    pub fn start(lab: &Lab, server: &Server, signer: &Signer) -> Self {
        let signer = Signer::from_pem(&signer.to_pem().unwrap()).unwrap();
        let (nats, target) = (server.options(), lab.target.name().to_owned());
        let (end, ends) = oneshot::channel();
        thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            let store = Store::open(&default_cache().unwrap()).unwrap();
            let setup = WorkerSetup {
                store: &store,
                targets: vec![target],
                signer,
                slots: 1,
                warm: 0,
            };
            let quietly = &mut |_: &str| {};
            let end = async { drop(ends.await) };
            let worked = runtime.block_on(work(&nats, setup, Duration::ZERO, end, quietly));
            runtime.shutdown_background();
            worked.unwrap();
        });
        Self { end: Some(end) }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }
}
