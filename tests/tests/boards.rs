#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! A board that is not at hand: its fingerprint in a file is what a target is made from that fits it.

use std::path::Path;

use preverify_lab::{Device, LOADER, Lab, on_packet};
use preverify_target::{
    AddRequest, Added, DeviceOptions, HardwareRequest, Store, TargetError, default_cache,
    fingerprint_words,
};
use serde_json::Value;

const KERNEL: &str = "debian:6.12-cloud-arm64";
const NAME: &str = "test-of-boards";
const CPU: &str = "neoverse-n1";
const CPUS: u32 = 2;

/// A target that goes when the test ends, however it does.
struct Temporary(Store);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is not there needs not go.
        let _ = self.0.remove(NAME);
    }
}

fn boot_board(lab: &Lab) -> Device {
    lab.boot(DeviceOptions {
        cpu: Some(CPU.into()),
        el2: Some(true),
        cpus: Some(CPUS),
        max_cpus: Some(CPUS),
        ..DeviceOptions::default()
    })
    .unwrap()
}

/// Adds a target for what the file says: the kernel that the laboratory has, and no network needed to find it.
fn add(
    store: &Store,
    lab: &Lab,
    file: &Path,
    hardware: HardwareRequest,
) -> Result<Added, TargetError> {
    let source = format!("debian:{}", lab.target.facts().release);
    let request = AddRequest {
        fingerprint: Some(file.to_owned()),
        hardware,
        ..AddRequest::debian(source.parse()?, Some(NAME.into()))
    };
    store.add(&request, &mut |stage| println!("{stage}"))
}

#[test]
fn a_target_is_made_for_a_board_from_its_fingerprint() {
    let mut lab = Lab::of(KERNEL).unwrap();
    let mut device = boot_board(&lab);
    let json = device.run(&[LOADER, "fingerprint", "--json"]).unwrap();
    let said: Value = serde_json::from_str(&json).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("board.json");
    std::fs::write(&file, &json).unwrap();

    let temporary = Temporary(Store::open(&default_cache().unwrap()).unwrap());
    let store = &temporary.0;
    let added = add(store, &lab, &file, HardwareRequest::default()).unwrap();
    let facts = added.target.facts();
    assert_eq!(said["build_id"], facts.build_id_text());
    let words = fingerprint_words(&facts.fingerprint, None);
    assert_eq!(words.len(), said["words"].as_object().unwrap().len());
    for (name, value) in words {
        assert_eq!(said["words"][name], value, "{name}");
    }

    differences_are_told(store, &lab, said);

    lab.target = added.target;
    let verified = lab.verify(&lab.object("refusals").unwrap()).unwrap();
    run_machine_code(&mut device, lab.bundle(&verified).unwrap().to_bytes());
    device.healthy_log().unwrap();
}

/// The target that is there is not like other boards.
fn differences_are_told(store: &Store, lab: &Lab, said: Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.json");
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut other = said.clone();
        change(&mut other);
        std::fs::write(&file, other.to_string()).unwrap();
        let same = HardwareRequest {
            cpu: Some(CPU.into()),
            el2: Some(true),
            max_cpus: Some(CPUS),
            ..HardwareRequest::default()
        };
        let error = add(store, lab, &file, same).unwrap_err().to_string();
        assert!(error.contains("other.json"), "{error}");
        error
    };
    let error = refusal(&|other| other["fingerprint"]["jit_flags"] = 0.into());
    for expected in [
        r#"JIT: "plain" on the board, "LSE atomics, VHE"#,
        "machine code",
        "--cpu",
        "--el2",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let error = refusal(&|other| other["fingerprint"]["cpu_limit"] = 3.into());
    assert!(error.contains("--max-cpus 3"), "{error}");
    let error = refusal(&|other| other["build_id"] = "00ff".into());
    let ours = said["build_id"].as_str().unwrap();
    assert!(error.contains("00ff") && error.contains(ours), "{error}");
}

/// Loads the bundle's native images, and has one of them run.
fn run_machine_code(device: &mut Device, bundle: Vec<u8>) {
    const BUNDLE: &str = "/tmp/b.pvb";
    const PINS: &str = "/sys/fs/bpf/b";
    const XDP_PASS: u32 = 2;
    device.put(BUNDLE, 0o644, bundle).unwrap();
    device
        .run(&[LOADER, "load", BUNDLE, "--image", "native", "--pin", PINS])
        .unwrap();
    let request = on_packet(&format!("{PINS}/on_packet"), &[0; 64], 100);
    let reply = device.test_run(request).unwrap();
    assert_eq!((reply.errno, reply.return_value), (0, XDP_PASS));
    device.run(&[LOADER, "unload", PINS]).unwrap();
}
