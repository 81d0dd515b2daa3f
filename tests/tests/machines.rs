#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! What machines do that crash, hang, or go on from one snapshot at the same time.

use std::time::Duration;

use preverify_lab::{BUSYBOX, Lab};
use preverify_protocol::{ExecRequest, Reply, Request};
use preverify_target::DeviceOptions;
use preverify_vm::{Machine, VmError};

const LIMIT: Duration = Duration::from_secs(60);

fn greet(machine: &mut Machine) -> String {
    match machine.request(&Request::Hello, LIMIT).unwrap() {
        Reply::Hello(hello) => hello.release,
        other => panic!("expected a greeting, found {other:?}"),
    }
}

#[test]
fn a_crashed_guest_is_reported_with_its_last_words() {
    let lab = Lab::new().unwrap();
    let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
    let crash = "echo c > /proc/sysrq-trigger";
    let error = device.run(&[BUSYBOX, "sh", "-c", crash]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("panic"), "{text}");
    assert!(
        text.contains("sysrq"),
        "the console's tail is missing: {text}"
    );
    // What comes next is refused at once.
    assert!(device.run(&[BUSYBOX, "true"]).is_err());
}

/// The agent serves one request at a time: while it waits for a command that does not end, the guest is deaf.
#[test]
fn a_guest_that_hangs_hangs_nobody() {
    let lab = Lab::new().unwrap();
    let mut machine = lab.target.restore(0).unwrap();
    let busybox = Request::WriteFile {
        path: BUSYBOX.into(),
        mode: 0o755,
        contents: std::fs::read(lab.busybox().unwrap()).unwrap(),
    };
    assert_eq!(machine.request(&busybox, LIMIT).unwrap(), Reply::Done);
    let sleep = Request::Exec(ExecRequest {
        command: [BUSYBOX, "sleep", "3600"].map(str::to_owned).to_vec(),
        time_limit: 3600,
        ..ExecRequest::default()
    });
    let error = machine.request(&sleep, Duration::from_secs(2)).unwrap_err();
    assert!(matches!(error, VmError::TimedOut { .. }), "{error}");
    // It has been turned off, and says so.
    let error = machine.request(&Request::Hello, LIMIT).unwrap_err();
    assert!(matches!(error, VmError::Off), "{error}");
}

/// Restored machines share the snapshot's memory, and not what they change in it.
#[test]
fn machines_from_one_snapshot_are_apart() {
    let lab = Lab::new().unwrap();
    let mut machines = [0, 0, 1].map(|layout| lab.target.restore(layout).unwrap());
    let write = |contents: &str| Request::WriteFile {
        path: "/tmp/mine".into(),
        mode: 0o600,
        contents: contents.into(),
    };
    for (machine, contents) in machines.iter_mut().zip(["a", "b", "c"]) {
        assert_eq!(greet(machine), lab.target.facts().release);
        assert_eq!(
            machine.request(&write(contents), LIMIT).unwrap(),
            Reply::Done
        );
    }
    let read = Request::ReadFile {
        path: "/tmp/mine".into(),
    };
    for (machine, contents) in machines.iter_mut().zip(["a", "b", "c"]) {
        let found = machine.request(&read, LIMIT).unwrap();
        assert_eq!(found, Reply::File(contents.into()));
    }
}
