//! What is sent by those who mean harm, or do not care: each gets an answer, costs what is its own, and holds up nobody else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use preverify_lab::{Lab, Vandal, memory, object};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use ureq::unversioned::multipart::{Form, Part};

use crate::running::Running;

/// What this process may have more after a test than before, in KiB: other tests are in it, too.
const GROWTH: u64 = 512 << 10;
/// Where slow clients are.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn damaged_objects_get_an_answer() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let before = memory(process::id()).unwrap();
    let names = ["refusals", "maps", "inputs", "shared", "events", "attach"];
    let objects = names.map(|name| object(name).unwrap().elf).to_vec();
    let mut deep = Vec::new();
    for (number, damaged) in Vandal::new(objects, 1, 40).take(300).enumerate() {
        let form = form(&lab, &damaged.elf).text("name", "damaged");
        let (status, answer) = running.post("/v1/jobs", form, Some(&running.token));
        let what = format!("{number}, {}: {answer}", damaged.damage);
        match damaged.deep {
            true => {
                assert_eq!(status, 201, "{what}");
                deep.push(serde_json::from_str::<Value>(&answer).unwrap());
            }
            false => {
                assert_problem(status, &answer, 422, "clang --target=bpf");
            }
        }
    }
    assert_eq!(deep.len(), 8);
    for job in deep {
        let job = running.wait(&job);
        let said = job["targets"][0]["message"].as_str().unwrap_or_default();
        match job["state"].as_str().unwrap() {
            "accepted" => assert!(
                job["bundle"].is_object() || job["bundle"].is_string(),
                "{job:#}"
            ),
            "refused" | "failed" => assert!(said.len() > 20, "{job:#}"),
            _ => panic!("{job:#}"),
        }
    }
    assert_well(&running, before);
}

#[test]
fn enormous_objects_are_refused() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let before = memory(process::id()).unwrap();
    let good = object("refusals").unwrap().elf;
    let put = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let headers = usize::try_from(u64::from_le_bytes(good[40..48].try_into().unwrap())).unwrap();
    let mut many_sections = put(60, &[0, 0]);
    many_sections[headers + 32..headers + 40].copy_from_slice(&(1u64 << 58).to_le_bytes());
    for (bytes, words) in [
        (put(40, &(1u64 << 63).to_le_bytes()), "section headers"),
        (put(60, &[0xff, 0xff]), "65535 section headers"),
        (many_sections, "288230376151711744 section headers"),
        (
            put(headers + 64 + 32, &u64::MAX.to_le_bytes()),
            "do not fit",
        ),
    ] {
        let form = form(&lab, &bytes);
        let (status, answer) = running.post("/v1/jobs", form, Some(&running.token));
        assert_problem(status, &answer, 422, words);
    }
    // Larger than an object may be, and than a request may be; with a length that is announced, and without one.
    let mut large = good.clone();
    large.resize((32 << 20) + 1, 0);
    let form = form(&lab, &large);
    let (status, answer) = running.post("/v1/jobs", form, Some(&running.token));
    assert_problem(status, &answer, 413, "33554432 are allowed");
    let digest = hex(&Sha256::digest(&good));
    for length in [
        "Content-Length: 9007199254740992",
        "Transfer-Encoding: chunked",
    ] {
        let mut client = TcpStream::connect(running.address).unwrap();
        let head = format!(
            "PUT /v1/objects/{digest} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{length}\r\n\r\n",
            running.token
        );
        client.write_all(head.as_bytes()).unwrap();
        let piece = [b"100000\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
        for _ in 0..40 {
            client.write_all(&piece).unwrap();
        }
        let answer = rest(&mut client);
        assert!(answer.starts_with("HTTP/1.1 413"), "{length}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    assert_well(&running, before);
}

#[test]
fn slow_clients_hold_up_nobody() {
    const MOST: usize = 64;
    let lab = Lab::new().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = Running::start_with(&lab, &state, |options| {
        options.bounds.head = Duration::from_secs(4);
        options.bounds.request = Duration::from_secs(6);
        options.bounds.connections = MOST;
    });
    let runtime = Runtime::new().unwrap();
    let slow = running.issue("slow", &["submit", "read"]);
    let start = Instant::now();
    let mut clients = Vec::new();
    for number in 0..2 * MOST {
        let mut client = connect(&runtime, running.address);
        let head = match number % 4 {
            // The tenant's objects are read so many at a time: the others wait.
            0 => format!(
                "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow}\r\nContent-Length: 30000000\r\n\
                 Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data"
            ),
            1 => "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned(),
            2 => "G".to_owned(),
            _ => String::new(),
        };
        // Those that are too many are gone already.
        let _ = client.write_all(head.as_bytes());
        clients.push(client);
    }
    // Others come from elsewhere.
    let job = running.submit(&object("refusals").unwrap(), &[lab.target.name()]);
    let job = running.wait(&job);
    assert_eq!(job["state"], "accepted", "{job:#}");

    let mut answers = Vec::new();
    for mut client in clients {
        answers.push(rest(&mut client));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let late = answers
        .iter()
        .filter(|answer| answer.starts_with("HTTP/1.1 408"))
        .count();
    assert!((1..=MOST / 2).contains(&late), "{late} of {answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| !answer.starts_with("HTTP/1.1 2")),
        "{answers:?}"
    );

    // All of them have gone, so there is room again; and a second request may not be slower than a first.
    let mut idle = connect(&runtime, running.address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/j")
        .unwrap();
    let start = Instant::now();
    let answer = rest(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_never_ends_is_ended_and_others_get_their_turn() {
    const OPEN: u32 = 20;
    let lab = Lab::new().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = Running::start_with(&lab, &state, |options| options.quota.open_jobs = OPEN);
    let before = memory(process::id()).unwrap();
    let greedy = running.issue("greedy", &["submit", "read"]);
    let other = running.issue("other", &["submit", "read"]);
    let endless = object("endless").unwrap().elf;
    let mut first = Value::Null;
    for number in 0..OPEN {
        let form = form(&lab, &endless)
            .text("limits", "time=2s")
            .text("name", NAMES[number as usize]);
        let (status, answer) = running.post("/v1/jobs", form, Some(&greedy));
        assert_eq!(status, 201, "{answer}");
        if number == 0 {
            first = serde_json::from_str(&answer).unwrap();
        }
    }
    let form_of_other = || form(&lab, &endless).text("limits", "time=2s");
    let (status, answer) = running.post("/v1/jobs", form_of_other(), Some(&greedy));
    assert_problem(status, &answer, 429, "20 jobs are under way");

    // The queue is full of one tenant's tasks, and another has its turn after the one that is under way.
    let good = object("refusals").unwrap().elf;
    let (status, answer) = running.post("/v1/jobs", form(&lab, &good), Some(&other));
    assert_eq!(status, 201, "{answer}");
    let job: Value = serde_json::from_str(&answer).unwrap();
    let job = running.wait_as(&job, &other);
    assert_eq!(job["state"], "accepted", "{job:#}");
    let (_, all) = running.get_as("/v1/jobs?limit=100", &greedy);
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    let ended = all.iter().filter(|job| job["state"] != "running").count();
    assert!(ended <= 3, "{ended} jobs of the other tenant came first");

    let first = running.wait_as(&first, &greedy);
    assert_eq!(first["state"], "failed", "{first:#}");
    let message = first["targets"][0]["message"].as_str().unwrap();
    assert!(message.contains("did not end within 2 s"), "{message}");
    assert_well(&running, before);
}

/// Names, so that the same object is another task.
const NAMES: [&str; 20] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t",
];

#[test]
fn what_eats_memory_or_says_too_much_is_bounded() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let before = memory(process::id()).unwrap();
    let submit = |form: Form<'_>| {
        let (status, answer) = running.post("/v1/jobs", form, Some(&running.token));
        assert_eq!(status, 201, "{answer}");
        running.wait(&serde_json::from_str(&answer).unwrap())
    };
    // A map larger than the machine, and zeros without end.
    let maps = object("maps").unwrap().elf;
    let inputs = "[maps.hash]\nmax-entries = 4294967295";
    let job = submit(form(&lab, &maps).text("inputs", inputs));
    assert_eq!(job["state"], "refused", "{job:#}");
    let mut zeros = object("maps").unwrap().elf;
    let headers = usize::try_from(u64::from_le_bytes(zeros[40..48].try_into().unwrap())).unwrap();
    let of_zeros = zeros[headers..]
        .chunks_exact(64)
        .position(|header| header[4..8] == [8, 0, 0, 0]);
    let size = headers + 64 * of_zeros.unwrap() + 32;
    zeros[size..size + 8].copy_from_slice(&(1u64 << 46).to_le_bytes());
    let job = submit(form(&lab, &zeros));
    assert_ne!(job["state"], "accepted", "{job:#}");

    // A verifier that is asked why writes a line for each of a million instructions.
    let job = submit(form(&lab, &object("complex/loop").unwrap().elf));
    assert_eq!(job["state"], "refused", "{job:#}");
    let message = job["targets"][0]["message"].as_str().unwrap();
    assert!(message.contains("too large"), "{message}");
    assert!(message.len() < 20_000, "{}", message.len());
    let id = job["id"].as_str().unwrap();
    let path = format!("/v1/jobs/{id}/targets/{}/log", lab.target.name());
    let log = running.bytes(&path);
    assert!(
        (1 << 20..=16 << 20).contains(&log.len()),
        "{} bytes",
        log.len()
    );
    assert!(String::from_utf8_lossy(&log).contains("too large"));

    // Who fetches it slowly, many times, has no copies of it in memory.
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        running.token
    );
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut client = TcpStream::connect(running.address).unwrap();
            client.write_all(head.as_bytes()).unwrap();
            client.read_exact(&mut [0; 100]).unwrap();
            client
        })
        .collect();
    assert_well(&running, before);
    drop(slow);
}

#[test]
fn forged_tokens_are_worth_nothing() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let good = running.issue("acme", &["submit", "read"]);
    let stranger = running.issue("other", &["submit", "read"]);
    let mut wrong = good.clone();
    wrong.replace_range(10..11, if &good[10..11] == "0" { "1" } else { "0" });
    let forged = [
        String::new(),
        "pv_".into(),
        wrong,
        good[..good.len() - 1].into(),
        format!("{good}0"),
        good.to_uppercase(),
        good.replace("pv_", ""),
        hex(&Sha256::digest(good.as_bytes())),
        format!("pv_{}", hex(&Sha256::digest(good.as_bytes()))),
        "pv_' OR '1'='1' --".into(),
        "pv_%' UNION SELECT value FROM records; DROP TABLE records; --".into(),
        "pv_*".into(),
        "pv_>".into(),
        "pv_../../token".into(),
        format!("{good}, {good}"),
        format!("pv_{}", "a".repeat(10_000)),
    ];
    for token in &forged {
        let (status, answer) = running.get_as("/v1/jobs", token);
        assert_problem(status, &answer, 401, "token");
    }
    for (header, expected) in [
        (format!("Authorization: Basic {good}"), 401),
        (format!("Authorization: {good}"), 401),
        (format!("Authorization: Bearer {good}\0"), 400),
        (format!("Authorization: Bearer {good}\u{1}"), 400),
        ("Authorization: Bearer pv_\u{e4}".into(), 401),
        (
            format!("Authorization: Bearer pv_{}", "a".repeat(1 << 20)),
            431,
        ),
        (format!("Authorization : Bearer {good}"), 400),
        (format!("X-Authorization: Bearer {good}"), 401),
    ] {
        let answer = raw(
            &running,
            &format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n"),
        );
        let start = format!("HTTP/1.1 {expected}");
        let shown: String = header.chars().take(80).collect();
        assert!(answer.starts_with(&start), "{shown}: {answer}");
    }
    // Of the tokens of two tenants, each sees its own, whoever's job it asks for.
    let rejected = object("rejected").unwrap();
    let form = form(&lab, &rejected.elf);
    let (status, job) = running.post("/v1/jobs", form, Some(&good));
    assert_eq!(status, 201, "{job}");
    let job: Value = serde_json::from_str(&job).unwrap();
    let id = job["id"].as_str().unwrap();
    let target = lab.target.name();
    for path in [
        format!("/v1/jobs/{id}"),
        format!("/v1/jobs/{id}/events"),
        format!("/v1/jobs/{id}/bundle"),
        format!("/v1/jobs/{id}/contents"),
        format!("/v1/jobs/{id}/targets/{target}/log"),
    ] {
        let (status, answer) = running.get_as(&path, &stranger);
        assert_problem(status, &answer, 404, "no job");
    }
    for path in ["/v1/tokens", "/v1/audit", "/v1/tenants/other"] {
        let (status, answer) = running.get_as(path, &good);
        assert_problem(status, &answer, 403, "`admin`");
    }
    // One that has ended.
    let request = json!({ "name": "x", "tenant": "acme", "scopes": ["read"], "seconds": 1 });
    let (_, short) = running.post_json("/v1/tokens", &request, &running.token);
    let short: Value = serde_json::from_str(&short).unwrap();
    let short = short["token"].as_str().unwrap();
    assert_eq!(running.get_as("/v1/jobs", short).0, 200);
    thread::sleep(Duration::from_millis(1100));
    let (status, answer) = running.get_as("/v1/jobs", short);
    assert_problem(status, &answer, 401, "has ended");
    assert_eq!(running.get_as("/v1/jobs", &good).0, 200);
}

#[test]
fn names_and_requests_lead_nowhere_else() {
    let lab = Lab::new().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = Running::start_with(&lab, &state, |options| {
        options.bounds.head = Duration::from_secs(3);
    });
    let before = memory(process::id()).unwrap();
    let token = &running.token;
    let get = |path: &str| {
        raw(
            &running,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            ),
        )
    };
    let many = format!("/v1/jobs?{}", "a=b&".repeat(5000));
    for path in [
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/app.js/../../state.db",
        "/state.db",
        "/app.js%00.html",
        "//",
        "/v1//jobs",
        "/v1/jobs/..%2f..%2fstate.db",
        "/v1/jobs/%00",
        "/v1/jobs/%ff%fe",
        "/v1/jobs/../../admin.token",
        "/v1/jobs/0000000000000000000000000000/bundle",
        "/v1/jobs/x/targets/%2e%2e/log",
        "/v1/targets/..%2F..%2Fetc%2Fpasswd",
        "/v1/targets/a%00b",
        "/v1/tenants/..%2f..%2fx",
        "/v1/tenants/*",
        "/v1/jobs?limit=-1",
        "/v1/jobs?limit=99999999999999999999",
        "/v1/jobs?limit=1&limit=2",
        "/v1/jobs?before=%00",
        "/v1/jobs?before=job.other.",
        "/v1/audit?from=-1",
        &many,
    ] {
        let answer = get(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: Value =
            serde_json::from_str(body).unwrap_or_else(|_| panic!("{path:.80}: {answer}"));
        assert!(
            head.contains("application/problem+json"),
            "{path:.80}: {head}"
        );
        let status = problem["status"].as_u64().unwrap();
        assert!((400..500).contains(&status), "{path:.80}: {problem}");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(body.len() < 5000, "{path:.80}: {}", body.len());
        assert!(!body.contains("root:"), "{body}");
    }
    let answer = get(&format!("/{}", "a".repeat(100_000)));
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");

    // Requests within requests, and lengths that contradict each other.
    for (head, expected) in [
        ("Content-Length: 5\r\nContent-Length: 6", "400"),
        ("Content-Length: 5\r\nTransfer-Encoding: gzip", "400"),
        ("Transfer-Encoding: chunked, identity", "400"),
        ("Content-Length: -1", "400"),
        ("Content-Length: 99999999999999999999999", "400"),
        (" folded: x", "400"),
    ] {
        let answer = raw(
            &running,
            &format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\nhello!"),
        );
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{head}: {answer}"
        );
    }
    let within =
        format!("GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let length = within.len();
    let answer = raw(
        &running,
        &format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{within}"),
    );
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    let answer = raw(
        &running,
        "BREW /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.contains("problem+json"),
        "{answer}"
    );

    let good = object("refusals").unwrap().elf;
    let long = "x".repeat(200_000);
    let too_long = "x".repeat(300_000);
    let nested = format!("[globals]\na = {}", "[".repeat(100_000));
    for (field, value, expected) in [
        ("name", "../x", 422),
        ("name", "a/b", 422),
        ("name", "a\0b", 422),
        ("name", "a\"b", 422),
        ("name", "a\r\nSet-Cookie: x", 422),
        ("name", "", 422),
        ("name", &long, 422),
        ("name", &too_long, 413),
        ("target", "../../etc/passwd", 404),
        ("target", "a\0b", 404),
        ("target", &long, 404),
        ("limits", &long, 422),
        ("inputs", &nested, 422),
        ("inputs", &too_long, 413),
        ("object_sha256", "../../state.db", 400),
        ("nothing", "x", 400),
    ] {
        let mut form = form(&lab, &good);
        form = form.text(field, value);
        let (status, answer) = running.post("/v1/jobs", form, Some(token));
        assert_problem(status, &answer, expected, "");
        assert!(answer.len() < 5000, "{field}: {} bytes", answer.len());
    }
    let elsewhere = Form::new()
        .part(
            "object",
            Part::bytes(&good).file_name("../../../tmp/x.bpf.o"),
        )
        .text("target", lab.target.name());
    let (status, answer) = running.post("/v1/jobs", elsewhere, Some(token));
    assert_problem(status, &answer, 422, "cannot be called");

    // What only a target can tell.
    let inputs = "modules = [\"../../../../etc/passwd\"]";
    let form_of_module = form(&lab, &good).text("inputs", inputs);
    let (status, answer) = running.post("/v1/jobs", form_of_module, Some(token));
    assert_eq!(status, 201, "{answer}");
    let job = running.wait(&serde_json::from_str(&answer).unwrap());
    assert_ne!(job["state"], "accepted", "{job:#}");
    let message = job["targets"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("../../etc/passwd") && !message.contains("root:"),
        "{message}"
    );

    // Forms of thousands of parts, and such as never begin.
    for field in ["target", "nothing"] {
        let form = (0..5000).fold(Form::new(), |form, _| form.text(field, "x"));
        let (status, answer) = running.post("/v1/jobs", form, Some(token));
        assert!(status == 422 || status == 400, "{answer}");
    }
    for (kind, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=x", "no boundary"),
        (
            "multipart/form-data; boundary=x",
            &*format!("--x\r\nA: {long}"),
        ),
        ("application/json", "{}"),
    ] {
        let (status, answer) = running.post_as(kind, "/v1/jobs", body, &running.token);
        assert_problem(status, &answer, 400, "");
    }

    // JSON that is deep, or long, or something else.
    let deep = "[".repeat(1 << 20);
    let deeper = format!("{{\"name\":{}", "{\"a\":".repeat(100_000));
    let named = format!(r#"{{"name":"{long}","tenant":"a","scopes":["read"]}}"#);
    for (body, expected) in [
        (&*deep, 422),
        (&deeper, 422),
        ("", 400),
        ("{}", 422),
        (&named, 422),
        (r#"{"name":"x","tenant":"../..","scopes":["read"]}"#, 422),
        (
            r#"{"name":"x","tenant":"a","scopes":["read"],"seconds":-1}"#,
            422,
        ),
        (r#"{"name":"x","tenant":"a","scopes":["root"]}"#, 422),
    ] {
        let (status, answer) = running.post_json("/v1/tokens", body, &running.token);
        let shown: String = body.chars().take(60).collect();
        assert!(status == expected, "{shown}: {status} {answer}");
        assert_problem(status, &answer, expected, "");
    }
    let huge = " ".repeat(40 << 20);
    let (status, answer) = running.post_json("/v1/tokens", &huge, &running.token);
    assert_problem(status, &answer, 413, "");
    let (status, answer) = running.post_as("text/plain", "/v1/tokens", "{}", &running.token);
    assert_problem(status, &answer, 415, "");
    assert_well(&running, before);
}

/// A form with an object for the laboratory's target.
fn form<'a>(lab: &'a Lab, elf: &'a [u8]) -> Form<'a> {
    Form::new()
        .part("object", Part::bytes(elf).file_name("x.bpf.o"))
        .text("target", lab.target.name())
}

fn assert_problem(status: u16, answer: &str, expected: u16, words: &str) {
    let shown: String = answer.chars().take(300).collect();
    assert_eq!(status, expected, "{shown}");
    let problem: Value =
        serde_json::from_str(answer).unwrap_or_else(|_| panic!("no problem: {shown}"));
    assert_eq!(problem["status"], expected, "{shown}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.len() > 10 && detail.contains(words),
        "{words}: {shown}"
    );
}

/// The service answers as ever, and this process is about as large as before.
fn assert_well(running: &Running, before: u64) {
    assert_eq!(running.get("/healthz").0, 200);
    assert_eq!(running.get("/readyz").0, 200);
    let after = memory(process::id()).unwrap();
    assert!(after < before + GROWTH, "{before} KiB, then {after}");
}

/// What comes of some bytes, until the service ends the connection or is silent.
fn raw(running: &Running, request: &str) -> String {
    let mut client = TcpStream::connect(running.address).unwrap();
    // A service that has refused may not take all.
    let _ = client.write_all(request.as_bytes());
    rest(&mut client)
}

fn rest(client: &mut TcpStream) -> String {
    let limit = Duration::from_secs(60);
    client.set_read_timeout(Some(limit)).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection from elsewhere.
fn connect(runtime: &Runtime, to: SocketAddr) -> TcpStream {
    let connected = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((ELSEWHERE, 0).into())?;
        socket.connect(to).await
    });
    let client = connected.unwrap().into_std().unwrap();
    client.set_nonblocking(false).unwrap();
    client
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
