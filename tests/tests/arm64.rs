#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! The whole way on emulated boards of arm64: machine code, bytecode, and processors that machine code is not for.

use preverify_lab::{Device, LOADER, Lab, pinned};
use preverify_protocol::TestRunRequest;
use preverify_target::DeviceOptions;

const TARGET: &str = "debian:6.12-cloud-arm64";
const BUNDLE: &str = "/tmp/b.pvb";
const PINS: &str = "/sys/fs/bpf/b";
const XDP_PASS: u32 = 2;

fn boot(lab: &Lab, cpu: &str) -> Device {
    let mut device = lab
        .boot(DeviceOptions {
            cpu: Some(cpu.into()),
            cpus: Some(2),
            ..DeviceOptions::default()
        })
        .unwrap();
    let verified = lab.verify(&lab.object("refusals").unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
    device
}

/// Loads the bundle, has a program run, unloads it; returns what the loader said.
fn go(device: &mut Device, options: &[&str]) -> String {
    let command = [&[LOADER, "load", BUNDLE, "--pin", PINS], options].concat();
    let said = device.run(&command).unwrap();
    let request = TestRunRequest {
        program: pinned(&format!("{PINS}/on_packet")),
        data_in: Some(vec![0; 64]),
        context_in: None,
        repeat: 100,
        flags: 0,
        data_out_size: 64,
    };
    let reply = device.test_run(request).unwrap();
    assert_eq!((reply.errno, reply.return_value), (0, XDP_PASS));
    device.run(&[LOADER, "unload", PINS]).unwrap();
    said
}

#[test]
fn a_small_processor_takes_both_images() {
    let lab = Lab::of(TARGET).unwrap();
    let mut device = boot(&lab, "cortex-a53");
    let said = go(&mut device, &[]);
    assert!(said.contains("native"), "{said}");
    let said = go(&mut device, &["--image", "bytecode"]);
    assert!(said.contains("bytecode"), "{said}");
    device.healthy_log().unwrap();
}

/// Atomics are other instructions there: machine code for small processors would work, that for large ones would not
/// on small ones. The kernel part does not tell one case from the other.
#[test]
fn another_processor_takes_bytecode() {
    let lab = Lab::of(TARGET).unwrap();
    let mut device = boot(&lab, "neoverse-n1");
    let said = go(&mut device, &[]);
    assert!(said.contains("bytecode"), "{said}");
    assert!(said.contains("native images do not fit"), "{said}");
    let native = device
        .try_run(&[LOADER, "load", BUNDLE, "--image", "native", "--pin", PINS])
        .unwrap();
    assert_ne!(native.status, 0);
    let said = String::from_utf8_lossy(&native.stderr).into_owned();
    assert!(said.contains("its bytecode image fits"), "{said}");
    device.healthy_log().unwrap();
}
