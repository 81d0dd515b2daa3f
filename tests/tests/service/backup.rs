//! What is left of a service when its machine is lost: its backup.

use preverify_lab::{Lab, object};
use preverify_service::{back_up, restore};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::running::Running;

#[test]
fn a_backup_of_a_busy_service_is_a_whole_service() {
    let lab = Lab::new().unwrap();
    let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = Running::start(&lab, &state);
    let (done, begun) = (object("refusals").unwrap(), object("maps").unwrap());
    let targets = [lab.target.name()];
    let first = running.wait(&running.submit(&done, &targets));
    assert_eq!(first["state"], "accepted", "{first:#}");
    let bundle = running.bundle(&first);
    let under_way = running.submit(&begun, &targets);
    let log = audit_log(&running);
    let archive = elsewhere.path().join("service.tar");
    back_up(state.path(), &archive).unwrap();
    let path = format!("/v1/jobs/{}", under_way["id"].as_str().unwrap());
    let now: Value = serde_json::from_str(&running.get(&path).1).unwrap();
    assert_eq!(now["state"], "running", "the backup was to be faster");
    let (token, certificate) = (running.token.clone(), running.certificate());
    drop(running);
    drop(state);

    let state = elsewhere.path().join("state");
    restore(&archive, &state).unwrap();
    let mut restored = Running::start_with(&lab, &elsewhere, |options| options.state = state);
    assert_eq!(restored.token, "", "no token is made where there are some");
    restored.token = token;
    assert_eq!(audit_log(&restored), log);
    let again = restored.submit(&done, &targets);
    assert_eq!(again["state"], "accepted", "nothing is verified: {again:#}");
    assert_eq!(again["bundle"], first["bundle"]);
    assert_eq!(restored.bundle(&again), bundle);
    restored.bundle(&again).verify(&[certificate]).unwrap();
    let ended = restored.wait(&under_way);
    assert_eq!(ended["state"], "accepted", "{ended:#}");
    assert!(audit_log(&restored).starts_with(&log));
    assert!(audit_log(&restored).len() > log.len());
}

/// The audit log, if each of its entries has the right hash.
fn audit_log(running: &Running) -> Vec<Value> {
    let (status, text) = running.get("/v1/audit");
    assert_eq!(status, 200, "{text}");
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let sha256 = |text: &str| -> String {
        let digest = Sha256::digest(text).into_iter();
        digest.map(|byte| format!("{byte:02x}")).collect()
    };
    let mut previous = sha256("");
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry["number"], number);
        assert_eq!(entry["previous"], previous);
        let fields = ["at", "tenant", "token", "action", "subject"]
            .map(|name| format!(r#""{name}":{}"#, entry[name]));
        previous = sha256(&format!("{previous}[{number},{{{}}}]", fields.join(",")));
        assert_eq!(entry["hash"], previous);
    }
    entries
}
