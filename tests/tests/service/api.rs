//! What programs are answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use preverify_lab::{Lab, object};
use serde_json::{Value, json};
use ureq::unversioned::multipart::{Form, Part};

use crate::running::Running;

#[test]
fn bundles_are_those_of_local_builds() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let object = object("refusals").unwrap();
    let job = running.wait(&running.submit(&object, &[lab.target.name()]));
    assert_eq!(job["state"], "accepted", "{job:#}");
    let local = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    let bundle = running.bundle(&job);
    assert_eq!(bundle.manifest_bytes(), local.manifest_bytes());
    bundle.verify(&[running.certificate()]).unwrap();
    let program = &job["targets"][0]["programs"][0];
    assert!(program["total_insns"].as_u64().unwrap() > 0, "{job:#}");

    let id = job["id"].as_str().unwrap();
    let (status, contents) = running.get(&format!("/v1/jobs/{id}/contents"));
    assert_eq!(status, 200, "{contents}");
    let contents: Value = serde_json::from_str(&contents).unwrap();
    let described = &contents["targets"][0]["programs"][0];
    assert_eq!(described["function"], program["program"]);
    let function = described["function"].as_str().unwrap();
    let code = format!(
        "/v1/jobs/{id}/targets/{}/programs/{function}/code",
        lab.target.name()
    );
    for (image, bytes) in [("native", "native_bytes"), ("bytecode", "bytecode_bytes")] {
        let (status, code) = running.get(&format!("{code}?image={image}"));
        assert_eq!(status, 200, "{code}");
        let code: Value = serde_json::from_str(&code).unwrap();
        let lines = code["lines"].as_array().unwrap().iter();
        let shown: usize = lines
            .map(|line| line["bytes"].as_str().unwrap().len() / 2)
            .sum();
        assert_eq!(Some(shown as u64), program[bytes].as_u64(), "{image}");
    }
    for (path, expected) in [
        (format!("{code}?image=x"), 400),
        (code.replace(function, "nobody"), 404),
        (code.replace(lab.target.name(), "nowhere"), 404),
    ] {
        let (status, answer) = running.get(&path);
        assert_eq!(status, expected, "{path}: {answer}");
    }

    // The same again has ended when it is answered.
    let again = running.submit(&object, &[lab.target.name()]);
    assert_eq!(again["state"], "accepted", "{again:#}");
    assert_eq!(again["bundle"], job["bundle"]);
    assert_ne!(again["id"], job["id"]);
}

#[test]
fn a_rejection_comes_with_its_log() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let rejected = object("rejected").unwrap();
    let job = running.wait(&running.submit(&rejected, &[lab.target.name()]));
    assert_eq!(job["state"], "refused", "{job:#}");
    let target = &job["targets"][0];
    let message = target["message"].as_str().unwrap();
    assert!(message.contains("invalid access to packet"), "{message}");
    assert_eq!(target["program"], "reads_too_far");
    let id = job["id"].as_str().unwrap();
    let name = lab.target.name();
    let (status, log) = running.get(&format!("/v1/jobs/{id}/targets/{name}/log"));
    assert_eq!(status, 200);
    assert!(log.contains("invalid access to packet"), "{log}");
    let (status, problem) = running.get(&format!("/v1/jobs/{id}/bundle"));
    assert_eq!(status, 409);
    assert!(problem.contains("ended without a bundle"), "{problem}");
}

#[test]
fn what_was_begun_is_ended_by_the_next_process() {
    let lab = Lab::new().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = Running::start(&lab, &state);
    let job = running.submit(&object("inputs").unwrap(), &[lab.target.name()]);
    assert_eq!(job["state"], "running");
    // It ends without waiting for anything.
    drop(running);
    let running = Running::start(&lab, &state);
    let job = running.wait(&job);
    assert_eq!(job["state"], "accepted", "{job:#}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let good = object("refusals").unwrap().elf;
    let target = lab.target.name();
    let text = |name: &'static str, value: &'static str| (name, Part::text(value));
    let file = |bytes| ("object", Part::bytes(bytes).file_name("x.bpf.o"));
    let mut other_machine = good.clone();
    other_machine[18] = 62;
    let to = || ("target", Part::text(target));
    let unknown_digest = "0".repeat(64);
    type Field<'a> = (&'a str, Part<'a>);
    let cases: Vec<(Vec<Field<'_>>, u16, &str)> = vec![
        (vec![to()], 400, "no name"),
        (vec![file(&good)], 400, "no target"),
        (vec![text("name", "x"), to()], 400, "no object"),
        (
            vec![file(&good), text("target", "nowhere")],
            404,
            "no target `nowhere`",
        ),
        (vec![file(&good), to(), to()], 422, "leave one out"),
        (vec![file(&good), file(&good), to()], 400, "`object` twice"),
        (
            vec![file(&good), to(), text("image", "x")],
            400,
            "a field `image`",
        ),
        (
            vec![file(b"PVB"), to()],
            422,
            "do not begin as ELF files do",
        ),
        (vec![file(b""), to()], 422, "its 0 bytes"),
        (vec![file(&other_machine), to()], 422, "expected 247 (BPF)"),
        (
            vec![file(&good), to(), text("limits", "insns=x")],
            422,
            "insns=x",
        ),
        (
            vec![file(&good), to(), text("limits", "time=24h")],
            422,
            "3600 s at most",
        ),
        (
            vec![file(&good), to(), text("limits", "memory=64G")],
            422,
            "8192 MiB",
        ),
        (
            vec![file(&good), to(), text("inputs", "[maps.x]\nsize = 1")],
            422,
            "size",
        ),
        (
            vec![file(&good), to(), text("name", "../x")],
            422,
            "cannot be called",
        ),
        (
            vec![
                text("name", "x"),
                to(),
                ("object_sha256", Part::text(&unknown_digest)),
            ],
            404,
            "/v1/objects/",
        ),
        (
            vec![text("name", "x"), to(), text("object_sha256", "..")],
            400,
            "no SHA-256",
        ),
    ];
    for (parts, status, words) in cases {
        let form = parts
            .into_iter()
            .fold(Form::new(), |form, (name, part)| form.part(name, part));
        let (found, answer) = running.post("/v1/jobs", form, Some(&running.token));
        assert_eq!(found, status, "{words}: {answer}");
        assert!(answer.contains(words), "{words}: {answer}");
    }
    for path in [
        "/v1/jobs/x",
        "/v1/jobs/..%2f..%2fetc",
        "/v1/jobs?limit=x",
        "/v1/jobs?before=y",
    ] {
        let (status, answer) = running.get(path);
        assert_eq!(status, 400, "{path}: {answer}");
    }
    let (status, answer) = running.get("/etc/passwd");
    assert_eq!(
        (status, answer.contains("openapi")),
        (404, true),
        "{answer}"
    );
}

#[test]
fn tokens_decide_who_may_do_what() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let reader = running.issue("acme", &["read"]);
    let submitter = running.issue("acme", &["submit"]);
    let stranger = running.issue("other", &["read", "submit"]);
    let request = json!({ "name": "test", "tenant": "a.b", "scopes": ["read"] });
    let (status, answer) = running.post_json("/v1/tokens", &request, &running.token);
    assert_eq!(status, 422, "{answer}");

    let rejected = object("rejected").unwrap();
    let form = || {
        Form::new()
            .part(
                "object",
                Part::bytes(&rejected.elf).file_name("rejected.bpf.o"),
            )
            .text("target", lab.target.name())
    };
    for (token, expected) in [(None, 401), (Some("pv_00"), 401), (Some(&*reader), 403)] {
        let (status, answer) = running.post("/v1/jobs", form(), token);
        assert_eq!(status, expected, "{answer}");
    }
    let (status, job) = running.post("/v1/jobs", form(), Some(&submitter));
    assert_eq!(status, 201, "{job}");
    let job: Value = serde_json::from_str(&job).unwrap();
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    for (token, expected) in [(&submitter, 403), (&stranger, 404), (&reader, 200)] {
        let (status, answer) = running.get_as(&path, token);
        assert_eq!(status, expected, "{answer}");
    }
    let wanted = json!({ "source": "debian:6.12-cloud-amd64" });
    let (status, answer) = running.post_json("/v1/targets", &wanted, &submitter);
    assert_eq!(status, 403, "{answer}");
    let (status, _) = running.get_as("/v1/tokens", &reader);
    assert_eq!(status, 403);
    let (status, own) = running.get_as("/v1/token", &reader);
    assert_eq!(status, 200);
    let own: Value = serde_json::from_str(&own).unwrap();
    let expected = json!({ "name": "test", "tenant": "acme", "scopes": ["read"] });
    assert_eq!(own, expected);
}

#[test]
fn what_is_too_much_is_refused() {
    let lab = Lab::new().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = Running::start_with(&lab, &state, |options| {
        options.bounds.object_bytes = 1 << 20;
        options.bounds.request = Duration::from_secs(1);
        options.quota.open_jobs = 0;
    });
    let good = object("refusals").unwrap().elf;
    let mut large = good.clone();
    large.resize((1 << 20) + 1, 0);
    for (bytes, status, words) in [(&large, 413, "1048576 are allowed"), (&good, 429, "0 jobs")] {
        let form = Form::new()
            .part("object", Part::bytes(bytes).file_name("x.bpf.o"))
            .text("target", lab.target.name());
        let (found, answer) = running.post("/v1/jobs", form, Some(&running.token));
        assert_eq!(found, status, "{answer}");
        assert!(answer.contains(words), "{answer}");
    }

    // Who is refused before all is read gets to know it none the less.
    for _ in 0..10 {
        let form = Form::new().part("object", Part::bytes(&large).file_name("x.bpf.o"));
        let (found, answer) = running.post("/v1/jobs", form, Some("pv_00"));
        assert_eq!(found, 401, "{answer}");
    }

    // A client that sends its form a byte at a time is not waited for.
    let mut slow = TcpStream::connect(running.address).unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n\r\n",
        running.token
    );
    slow.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    for byte in b"--x\r\nContent-Disposition: form-data" {
        let sent = slow.write_all(&[*byte]);
        thread::sleep(Duration::from_millis(100));
        if sent.is_err() {
            break;
        }
    }
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(running.get("/readyz").0, 200);
}
