#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Devices whose kernel has no verifier, no JIT compiler and no BTF: what was verified on another build of their kernel
//! runs there, and nothing else is missing.

use preverify_abi::image::{IMAGE_BYTECODE, IMAGE_NATIVE};
use preverify_lab::{Lab, PROBE, Subject, assert_reason};
use preverify_probe::Answer;
use preverify_protocol::{Inputs, LoadReply, LoadRequest, WantedLimits};
use preverify_target::DeviceOptions;

const EOPNOTSUPP: i32 = 95;
const ENOEXEC: i32 = 8;

fn lab() -> Lab {
    Lab::of_device_kernel().unwrap()
}

#[test]
fn nothing_is_verified_there_and_classic_filters_run() {
    let lab = lab();
    let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
    let object = lab.object("refusals").unwrap();
    let reply = device
        .load_stock(LoadRequest {
            object: object.elf.clone(),
            name: object.name.clone(),
            inputs: Inputs::default(),
            share: None,
            export: false,
            doubles: 0,
            limits: WantedLimits::default(),
            time_limit: 60,
        })
        .unwrap();
    match reply {
        LoadReply::Rejected(rejection) => {
            assert_eq!(rejection.errno.abs(), EOPNOTSUPP, "{rejection:?}");
        }
        LoadReply::Accepted(_) => panic!("a kernel without a verifier took a program"),
    }
    let printed = device.run(&[PROBE, "classic"]).unwrap();
    assert!(printed.contains("seccomp: runs"), "{printed}");
    let symbols = device.symbols().unwrap();
    for absent in ["bpf_check", "do_check_common", "do_jit"] {
        let is_there = |line: &str| line.split(' ').nth(2) == Some(absent);
        assert!(!symbols.lines().any(is_there), "{absent} is there");
    }
    assert!(device.get("/sys/kernel/btf/vmlinux").is_err());
    device.healthy_log().unwrap();
}

#[test]
fn machine_code_is_taken_and_bytecode_is_not() {
    let mut subject = Subject::new(lab(), "refusals", IMAGE_NATIVE).unwrap();
    let mut device = subject.boot().unwrap();
    let native = subject.honest("on_packet");
    subject.kind = IMAGE_BYTECODE;
    let bytecode = subject.honest("on_packet");
    let answers = device.probe(&[native, bytecode]).unwrap();
    assert!(matches!(answers[0], Answer::Done), "{:?}", answers[0]);
    assert_reason(&answers[1], EOPNOTSUPP, "no JIT compiler");
    device.healthy_log().unwrap();
}

#[test]
fn bundles_of_another_build_are_refused() {
    let subject = Subject::new(lab(), "refusals", IMAGE_NATIVE).unwrap();
    let mut device = subject.boot().unwrap();
    let other = subject.with_manifest("on_packet", |manifest| {
        manifest.targets[0].build_id[0] ^= 1;
    });
    let answers = device.probe(&[other]).unwrap();
    assert_reason(&answers[0], ENOEXEC, "another kernel build");
}
