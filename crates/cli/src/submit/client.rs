//! A service, as its clients see it.

use std::io::{self, BufRead, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use preverify_service::views::JobView;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::unversioned::multipart::{self, Part};
use ureq::{Agent, Body};

/// The most that an answer may have: bundles and logs.
const ANSWER_LIMIT: u64 = 1 << 30;

/// How long is waited before the next connection.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a service that has taken an object may be away.
const AWAY: Duration = Duration::from_secs(60);

/// A service does not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("{server} does not answer: {source}")]
    Unreachable {
        /// Where it should be.
        server: String,
        /// Why not.
        source: ureq::Error,
    },
    /// It does not wait for the object's end.
    #[error(
        "{server} ended the connection before it had the object's {bytes} bytes: it may take only smaller ones"
    )]
    CutOff {
        /// Who.
        server: String,
        /// Bytes of the object.
        bytes: usize,
    },
    /// It refuses.
    #[error("{server}: {detail}")]
    Refused {
        /// Who.
        server: String,
        /// Why.
        detail: String,
    },
    /// It says what is not understood.
    #[error("{server} does not answer as a preverify service does: {reason}")]
    Strange {
        /// Who.
        server: String,
        /// What is not understood.
        reason: String,
    },
}

/// What is submitted.
pub struct Form<'a> {
    /// The object.
    pub object: &'a [u8],
    /// Its file's name.
    pub file_name: &'a str,
    /// The names of the targets.
    pub targets: &'a [String],
    /// What its user space would set, as TOML.
    pub inputs: &'a str,
    /// How far the verification may go.
    pub limits: Option<&'a str>,
}

/// A service, and who asks.
pub struct Client {
    agent: Agent,
    server: String,
    authorization: String,
}

impl Client {
    /// A service at a URL, which knows the token.
    pub fn new(server: &str, token: &str, tls: TlsConfig) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls);
        Self {
            agent: config.build().into(),
            server: server.trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {token}"),
        }
    }

    /// Submits an object.
    pub fn submit(&self, form: &Form<'_>) -> Result<JobView, ClientError> {
        let object = Part::bytes(form.object).file_name(form.file_name);
        let mut body = multipart::Form::new()
            .part("object", object)
            .text("inputs", form.inputs);
        for target in form.targets {
            body = body.text("target", target);
        }
        if let Some(limits) = form.limits {
            body = body.text("limits", limits);
        }
        let request = self.agent.post(self.url("/v1/jobs"));
        let request = request.header("authorization", &self.authorization);
        let answer = request.send(body).map_err(|error| match error {
            ureq::Error::Io(error) if is_cut_off(&error) => ClientError::CutOff {
                server: self.server.clone(),
                bytes: form.object.len(),
            },
            source => self.unreachable(source),
        })?;
        let answer = self.good(answer)?;
        self.json(&self.whole(answer)?)
    }

    /// Watches a job until it has ended. If the connection ends before, another is made.
    pub fn follow(&self, id: &str, tell: &mut dyn FnMut(&JobView)) -> Result<JobView, ClientError> {
        loop {
            let answer = self.get(&format!("/v1/jobs/{id}/events"))?;
            let mut last = None;
            for line in BufReader::new(answer.into_body().into_reader()).lines() {
                // Whatever ends the connection, the job goes on.
                let Ok(line) = line else {
                    break;
                };
                let Some(data) = line.strip_prefix("data:") else {
                    continue;
                };
                let job: JobView = self.json(data.as_bytes())?;
                tell(&job);
                last = Some(job);
            }
            if let Some(job) = last.filter(|job| job.ended.is_some()) {
                return Ok(job);
            }
            thread::sleep(PAUSE);
        }
    }

    /// The bundle of a job.
    pub fn bundle(&self, id: &str) -> Result<Vec<u8>, ClientError> {
        self.whole(self.get(&format!("/v1/jobs/{id}/bundle"))?)
    }

    /// The log of a target's verifier.
    pub fn log(&self, id: &str, target: &str) -> Result<Vec<u8>, ClientError> {
        self.whole(self.get(&format!("/v1/jobs/{id}/targets/{target}/log"))?)
    }

    /// Asks for what comes of an object; again, if the service is away for a moment.
    fn get(&self, path: &str) -> Result<Response<Body>, ClientError> {
        let start = Instant::now();
        loop {
            let request = self.agent.get(self.url(path));
            let answer = request.header("authorization", &self.authorization).call();
            let is_away = match &answer {
                Ok(answer) => answer.status() == StatusCode::SERVICE_UNAVAILABLE,
                Err(_) => true,
            };
            if !is_away || start.elapsed() > AWAY {
                return self.good(answer.map_err(|source| self.unreachable(source))?);
            }
            thread::sleep(PAUSE);
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// The answer, if it is what was asked for.
    fn good(&self, answer: Response<Body>) -> Result<Response<Body>, ClientError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = self.whole(answer)?;
        let problem: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let detail = problem
            .as_ref()
            .and_then(|problem| problem["detail"].as_str())
            .map_or_else(|| format!("answers {status}"), str::to_owned);
        Err(ClientError::Refused {
            server: self.server.clone(),
            detail,
        })
    }

    fn whole(&self, answer: Response<Body>) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        let mut reader = answer.into_body().into_reader().take(ANSWER_LIMIT);
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.strange(&error)),
        }
    }

    fn json<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(text).map_err(|error| self.strange(&error.into()))
    }

    fn unreachable(&self, source: ureq::Error) -> ClientError {
        ClientError::Unreachable {
            server: self.server.clone(),
            source,
        }
    }

    fn strange(&self, error: &io::Error) -> ClientError {
        ClientError::Strange {
            server: self.server.clone(),
            reason: error.to_string(),
        }
    }
}

/// Whether the other side has ended a connection.
fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}
