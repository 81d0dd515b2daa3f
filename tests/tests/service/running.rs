//! A service in the test's process, and a client of it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use preverify_bundle::{Bundle, Certificate, Signer};
use preverify_lab::service::Client;
use preverify_lab::{Lab, signer};
use preverify_pipeline::Object;
use preverify_service::{Bounds, NatsOptions, Options, Quota, Service, WorkerSetup};
use preverify_target::{Store, default_cache};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use ureq::Agent;
use ureq::unversioned::multipart::{Form, Part};

/// How long somebody may take to say which targets they hold: what is stale is made anew before.
const LIMIT: Duration = Duration::from_secs(300);

/// A service in this process.
pub struct Running {
    pub agent: Agent,
    pub address: SocketAddr,
    pub token: String,
    pub signer: Signer,
    end: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl Running {
    /// With what tests usually need.
    pub fn start(lab: &Lab, state: &TempDir) -> Self {
        Self::start_with(lab, state, |_| {})
    }

    /// With something else.
    pub fn start_with(lab: &Lab, state: &TempDir, change: impl FnOnce(&mut Options)) -> Self {
        let signer = signer().unwrap();
        let same = Signer::from_pem(&signer.to_pem().unwrap()).unwrap();
        let mut options = options(state, None);
        change(&mut options);
        let store = Store::open(&default_cache().unwrap()).unwrap();
        Self::run(options, Some(workers(&store, lab, 1, same)), signer)
    }

    /// With a key of which there is no copy, and several verifications at the same time.
    pub fn start_signing(lab: &Lab, state: &TempDir, open: impl Fn() -> Signer) -> Self {
        let store = Store::open(&default_cache().unwrap()).unwrap();
        let workers = workers(&store, lab, 2, open());
        Self::run(options(state, None), Some(workers), open())
    }

    /// With all targets of a store, and so many verifiers that wait.
    pub fn of_store(store: &Store, warm: usize, state: &TempDir) -> Self {
        let signer = signer().unwrap();
        let workers = WorkerSetup {
            store,
            targets: Vec::new(),
            signer: Signer::from_pem(&signer.to_pem().unwrap()).unwrap(),
            slots: 1,
            warm,
        };
        Self::run(options(state, None), Some(workers), signer)
    }

    /// One that verifies nothing itself, with a server that others have, too. Its signer is for them.
    pub fn api(nats: &NatsOptions, state: &TempDir) -> Self {
        let options = options(state, Some(nats.clone()));
        Self::run(options, None, signer().unwrap())
    }

    fn run(options: Options, workers: Option<WorkerSetup<'_>>, signer: Signer) -> Self {
        let runtime = Runtime::new().unwrap();
        let first_token = options.state.join("admin.token");
        let quietly = &mut |_: &str| {};
        let starting = Service::start(options, workers, quietly);
        let service = runtime.block_on(starting).unwrap();
        runtime.block_on(service.first_token()).unwrap();
        // There is none if the server has tokens already.
        let token = std::fs::read_to_string(first_token).unwrap_or_default();
        let address = service.address().unwrap();
        let (end, ends) = oneshot::channel();
        runtime.spawn(service.run(async { drop(ends.await) }));
        Self {
            agent: Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(300)))
                .build()
                .into(),
            address,
            token: token.trim().to_owned(),
            signer,
            end: Some(end),
            runtime: Some(runtime),
        }
    }

    /// Waits until somebody has said that they hold a target.
    pub fn wait_for_target(&self, name: &str) {
        self.wait_for_target_to_be("ready", name);
    }

    /// Waits until a target is in a state, and says what is told of it.
    pub fn wait_for_target_to_be(&self, state: &str, name: &str) -> Value {
        let start = Instant::now();
        loop {
            let (_, answer) = self.get(&format!("/v1/targets/{name}"));
            let target: Value = serde_json::from_str(&answer).unwrap();
            if target["state"] == state {
                return target;
            }
            assert!(start.elapsed() < LIMIT, "{name} is not {state}: {answer}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn certificate(&self) -> Certificate {
        self.signer.certificate().clone()
    }

    pub fn submit(&self, object: &Object, targets: &[&str]) -> Value {
        let file = format!("{}.bpf.o", object.name);
        let mut form = Form::new().part("object", Part::bytes(&object.elf).file_name(&file));
        for target in targets {
            form = form.text("target", target);
        }
        let (status, answer) = self.post("/v1/jobs", form, Some(&self.token));
        assert_eq!(status, 201, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Watches a job until it has ended.
    pub fn wait(&self, job: &Value) -> Value {
        self.wait_as(job, &self.token)
    }

    /// The same with another token.
    pub fn wait_as(&self, job: &Value, token: &str) -> Value {
        Client::new(self.url(""), token).watch(job).unwrap()
    }

    /// A token for a tenant.
    pub fn issue(&self, tenant: &str, scopes: &[&str]) -> String {
        let request = json!({ "name": "test", "tenant": tenant, "scopes": scopes });
        let (status, answer) = self.post_json("/v1/tokens", request, &self.token);
        assert_eq!(status, 201, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    pub fn bundle(&self, job: &Value) -> Bundle {
        self.client().bundle(job).unwrap()
    }

    /// All bytes that are there.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.client().get(path).unwrap()
    }

    /// A number among the metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(name));
        let number = found.unwrap_or_else(|| panic!("{name} is not in {text}"));
        number.trim().parse().unwrap()
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, &self.token)
    }

    pub fn get_as(&self, path: &str, token: &str) -> (u16, String) {
        let request = self.agent.get(self.url(path));
        let request = request.header("authorization", format!("Bearer {token}"));
        let mut answer = request.call().unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    pub fn post(&self, path: &str, form: Form<'_>, token: Option<&str>) -> (u16, String) {
        let mut request = self.agent.post(self.url(path));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send(form).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    pub fn post_json(&self, path: &str, body: impl Display, token: &str) -> (u16, String) {
        self.post_as("application/json", path, &body.to_string(), token)
    }

    /// Posts a text that is said to be of some kind.
    pub fn post_as(&self, kind: &str, path: &str, body: &str, token: &str) -> (u16, String) {
        let request = self.agent.post(self.url(path));
        let request = request.header("authorization", format!("Bearer {token}"));
        let mut answer = request.header("content-type", kind).send(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    pub fn delete(&self, path: &str) -> (u16, String) {
        let request = self.agent.delete(self.url(path));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let mut answer = request.call().unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    fn client(&self) -> Client {
        Client::new(self.url(""), &self.token)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Workers for the target of a laboratory.
fn workers<'a>(store: &'a Store, lab: &Lab, slots: usize, signer: Signer) -> WorkerSetup<'a> {
    WorkerSetup {
        store,
        targets: vec![lab.target.name().to_owned()],
        signer,
        slots,
        warm: 0,
    }
}

/// What services are usually started with.
pub fn options(state: &TempDir, nats: Option<NatsOptions>) -> Options {
    Options {
        state: state.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        nats,
        drain: Duration::ZERO,
        bounds: Bounds::default(),
        quota: Quota::default(),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
