//! What a collector of OpenTelemetry gets of a submission.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use preverify_lab::{Lab, object};
use preverify_service::Log;
use prost::Message;
use serde_json::Value;
use ureq::unversioned::multipart::{Form, Part};

use crate::cluster::{Server, Working};
use crate::running::Running;

/// Set in processes that export spans.
const EXPORTS: &str = "PREVERIFY_TEST_EXPORTS";
/// The trace and the span of a client.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

#[test]
fn a_submission_is_one_trace_up_to_its_worker() {
    if env::var_os(EXPORTS).is_some() {
        return submit_in_a_trace();
    }
    let collector = Collector::start();
    let output = exporting(
        "a_submission_is_one_trace_up_to_its_worker",
        &format!("http://{}", collector.address),
    );
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");

    let received = collector.received();
    let resources = received.iter().flat_map(|export| &export.resource_spans);
    for resource in resources.clone() {
        let told = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(text(told, "service.name"), "preverify");
        assert_eq!(text(told, "deployment.environment.name"), "test");
    }
    let spans = resources
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .filter(|span| hex(&span.trace_id) == TRACE);
    let spans: HashMap<&str, &Span> = spans.map(|span| (span.name.as_str(), span)).collect();
    let parents = [
        ("submit", "POST /v1/jobs"),
        ("task", "submit"),
        ("verification", "task"),
        ("restore", "verification"),
        ("verify", "verification"),
        ("discover", "verification"),
        ("prove", "verification"),
        ("sign", "verification"),
    ];
    assert_eq!(spans.len(), parents.len() + 1, "{:?}", spans.keys());
    for (child, parent) in parents {
        let (child, parent) = (spans[child], spans[parent]);
        assert_eq!(child.parent_span_id, parent.span_id, "{}", child.name);
        assert!(child.start_time_unix_nano >= parent.start_time_unix_nano);
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano);
    }
    let request = spans["POST /v1/jobs"];
    assert_eq!(hex(&request.parent_span_id), CLIENT);
    assert_eq!(text(&request.attributes, "http.route"), "/v1/jobs");
    let status = attribute(&request.attributes, "http.response.status_code");
    assert_eq!(status, Some(&Attribute::IntValue(201)));
    assert_eq!(text(&spans["task"].attributes, "outcome"), "bundle");

    let ended = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["fields"]["message"] == "task ended");
    let ended = ended.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(ended["span"]["trace_id"], TRACE, "{ended}");
}

/// Submits as a client that has a trace, to a service whose worker knows only what the queue says.
fn submit_in_a_trace() {
    let log = Log::start(true).unwrap();
    let lab = Lab::new().unwrap();
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let running = Running::api(&server.options(), &state);
    let _worker = Working::start(&lab, &server, &running.signer);
    running.wait_for_target(lab.target.name());
    let object = object("refusals").unwrap();
    let form = Form::new()
        .part("object", Part::bytes(&object.elf).file_name("x.bpf.o"))
        .text("target", lab.target.name());
    let request = running.agent.post(running.url("/v1/jobs"));
    let mut answer = request
        .header("authorization", format!("Bearer {}", running.token))
        .header("traceparent", format!("00-{TRACE}-{CLIENT}-01"))
        .send(form)
        .unwrap();
    let job = answer.body_mut().read_to_string().unwrap();
    let job = running.wait(&serde_json::from_str(&job).unwrap());
    assert_eq!(job["state"], "accepted", "{job:#}");
    // Its span ends a moment after the task does.
    thread::sleep(Duration::from_millis(500));
    drop(log);
}

#[test]
fn nobody_waits_for_a_collector_that_says_nothing() {
    if env::var_os(EXPORTS).is_some() {
        return ask_often();
    }
    // Connections are taken by the system, and nobody ever reads from them.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let output = exporting(
        "nobody_waits_for_a_collector_that_says_nothing",
        &format!("http://{}", silent.local_addr().unwrap()),
    );
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
}

/// Makes more spans than are kept for a collector.
fn ask_often() {
    let log = Log::start(true).unwrap();
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let running = Running::api(&server.options(), &state);
    let start = Instant::now();
    for _ in 0..3000 {
        assert_eq!(running.get("/v1/workers").0, 200);
    }
    let asked = start.elapsed();
    assert!(asked < Duration::from_secs(120), "{asked:?}");
    drop(running);
    let start = Instant::now();
    drop(log);
    let ended = start.elapsed();
    assert!(ended < Duration::from_secs(10), "{ended:?}");
}

/// Runs a test of this file in a process of its own, with a collector.
fn exporting(test: &str, endpoint: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("traces::{test}"), "--nocapture"])
        .env(EXPORTS, "1")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        )
        .output()
        .unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Attribute> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    match attribute(attributes, key) {
        Some(Attribute::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

/// A collector that keeps what it gets.
struct Collector {
    address: std::net::SocketAddr,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<_>>>::default();
        thread::spawn({
            let received = received.clone();
            move || {
                for connection in listener.incoming() {
                    let export = take(connection.unwrap());
                    received.lock().unwrap().push(export);
                }
            }
        });
        Self { address, received }
    }

    fn received(&self) -> Vec<ExportTraceServiceRequest> {
        self.received.lock().unwrap().clone()
    }
}

/// One request of a connection, with an answer.
fn take(connection: TcpStream) -> ExportTraceServiceRequest {
    let mut reader = BufReader::new(&connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    assert_eq!(field("content-type: "), Some("application/x-protobuf"));
    let length = field("content-length: ").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    (&connection).write_all(answer).unwrap();
    ExportTraceServiceRequest::decode(&body[..]).unwrap()
}
