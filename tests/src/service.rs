//! A service in processes of its own, and a client of it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use preverify_bundle::{Bundle, FormatError};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::unversioned::multipart::{Form, Part};

/// How long a process may take until it listens: what is stale of a target is made anew before.
const START: Duration = Duration::from_secs(600);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(600);

/// A service does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A process cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A process has ended, or does not listen.
    #[error("{program} does not listen; its log:\n{log}")]
    Silent {
        /// Which.
        program: String,
        /// What it said.
        log: String,
    },
    /// There is no answer.
    #[error("{path}: {source}")]
    Http {
        /// What was asked for.
        path: String,
        /// Why there is none.
        source: Box<ureq::Error>,
    },
    /// The answer is not the one that is expected.
    #[error("{path}: {status} {answer}")]
    Status {
        /// What was asked for.
        path: String,
        /// The answer's status.
        status: u16,
        /// The answer.
        answer: String,
    },
    /// An answer is not understood.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] FormatError),
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts it; what it says goes to a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, ServiceError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|source| ServiceError::Start {
                program: program.clone(),
                source,
            })?;
        Ok(Self {
            child,
            program,
            log: log.to_owned(),
        })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for what `look` looks for.
    pub fn until<T>(&mut self, look: impl Fn() -> Option<T>) -> Result<T, ServiceError> {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if self.child.try_wait()?.is_some() || start.elapsed() > START {
                return Err(ServiceError::Silent {
                    program: self.program.clone(),
                    log: self.log(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Bytes of memory that it has now.
    pub fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Starts a service on a port of the loopback device that is free, and waits until it listens; returns a client with its
/// first token. `more` says how it shall serve.
pub fn serve(
    preverify: &Path,
    state: &Path,
    log: &Path,
    more: &[&str],
) -> Result<(Process, Client), ServiceError> {
    let mut command = Command::new(preverify);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .args(more);
    let mut service = Process::start(&mut command, log)?;
    let url = service.until(|| listening(&fs::read_to_string(log).ok()?))?;
    let token = fs::read_to_string(state.join("admin.token"))?;
    Ok((service, Client::new(url, token.trim())))
}

/// Where a service listens, by its log.
pub fn listening(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// Whoever asks a service.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    /// Where it is: `http://127.0.0.1:8440`.
    pub url: String,
    /// What it is asked with.
    pub token: String,
}

impl Client {
    /// One for a service.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            agent: Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(ANSWER))
                .build()
                .into(),
            url: url.into(),
            token: token.into(),
        }
    }

    /// Submits an object's file, with more fields of the form: each target, at least.
    pub fn submit<'a>(
        &self,
        name: &'a str,
        elf: &'a [u8],
        fields: &[(&'a str, &'a str)],
    ) -> Result<Value, ServiceError> {
        let object = Part::bytes(elf).file_name("x.bpf.o");
        self.post_form(
            Form::new().part("object", object).text("name", name),
            fields,
        )
    }

    /// Submits an object that the service has.
    pub fn submit_known<'a>(
        &self,
        name: &'a str,
        sha256: &'a str,
        fields: &[(&'a str, &'a str)],
    ) -> Result<Value, ServiceError> {
        let form = Form::new().text("object_sha256", sha256);
        self.post_form(form.text("name", name), fields)
    }

    fn post_form<'a>(
        &self,
        mut form: Form<'a>,
        fields: &[(&'a str, &'a str)],
    ) -> Result<Value, ServiceError> {
        for (field, text) in fields {
            form = form.text(field, text);
        }
        let path = "/v1/jobs";
        let request = self.agent.post(self.at(path));
        let sent = request.header("authorization", self.bearer()).send(form);
        Ok(serde_json::from_slice(&expect(path, sent)?)?)
    }

    /// Waits until a job has ended.
    pub fn wait(&self, job: &Value) -> Result<Value, ServiceError> {
        match job["state"] == "running" {
            true => self.watch(job),
            false => Ok(job.clone()),
        }
    }

    /// Watches a job until it has ended; one that has is shown once.
    pub fn watch(&self, job: &Value) -> Result<Value, ServiceError> {
        loop {
            let events = self.get(&format!("/v1/jobs/{}/events", id(job)))?;
            let events = String::from_utf8_lossy(&events);
            let mut seen = events
                .lines()
                .filter_map(|line| line.strip_prefix("data: "));
            if let Some(last) = seen.next_back() {
                let job: Value = serde_json::from_str(last)?;
                // A stream ends early if its process does.
                if job["state"] != "running" {
                    return Ok(job);
                }
            }
        }
    }

    /// The bundle of a job that has ended.
    pub fn bundle(&self, job: &Value) -> Result<Bundle, ServiceError> {
        let bytes = self.get(&format!("/v1/jobs/{}/bundle", id(job)))?;
        Ok(Bundle::read(&bytes)?)
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, ServiceError> {
        let request = self.agent.get(self.at(path));
        expect(path, request.header("authorization", self.bearer()).call())
    }

    /// A client of another tenant, by a token that this one has made.
    pub fn of_tenant(&self, tenant: &str) -> Result<Self, ServiceError> {
        let wanted = json!({ "name": tenant, "tenant": tenant, "scopes": ["submit", "read"] });
        let path = "/v1/tokens";
        let request = self.agent.post(self.at(path));
        let request = request.header("authorization", self.bearer());
        let request = request.header("content-type", "application/json");
        let issued: Value =
            serde_json::from_slice(&expect(path, request.send(wanted.to_string()))?)?;
        Ok(Self {
            token: issued["token"].as_str().unwrap_or_default().to_owned(),
            ..self.clone()
        })
    }

    /// Writes something.
    pub fn put(&self, path: &str, json: &Value) -> Result<(), ServiceError> {
        let request = self.agent.put(self.at(path));
        let request = request.header("authorization", self.bearer());
        let request = request.header("content-type", "application/json");
        expect(path, request.send(json.to_string()))?;
        Ok(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap_or_default()
}

fn expect(
    path: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Vec<u8>, ServiceError> {
    let failed = |source| ServiceError::Http {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut answer = answer.map_err(failed)?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(1 << 30);
    let bytes = body.read_to_vec().map_err(failed)?;
    match (200..300).contains(&status) {
        true => Ok(bytes),
        false => Err(ServiceError::Status {
            path: path.to_owned(),
            status,
            answer: String::from_utf8_lossy(&bytes).into_owned(),
        }),
    }
}
