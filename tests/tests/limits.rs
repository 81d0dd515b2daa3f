#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Programs that stock kernels refuse as too complex, verified by one whose limits are raised.

use std::env;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use preverify_lab::{Device, LOADER, Lab, is_running, machines_of, on_packet};
use preverify_pipeline::{BuildError, Object, Stage, Verified, Verifier};
use preverify_protocol::{GlobalValue, TestRunRequest};
use preverify_target::DeviceOptions;

/// The most that stock kernels process.
const STOCK: u32 = 1_000_000;
/// For machines that have other work, too.
const RAISED: &str = "insns=64M,jumps=1M,time=15min";

fn verify(lab: &Lab, object: &Object, limits: &str) -> Result<Verified, BuildError> {
    let limits = limits.parse().unwrap();
    Verifier::start(&lab.target, limits)?.verify(object, &mut |_| {})
}

/// Why an object is not verified.
fn refusal(lab: &Lab, object: &Object, limits: &str) -> BuildError {
    // What is verified is too large to be shown.
    verify(lab, object, limits).err().unwrap()
}

/// 20,000 instructions each round.
fn linear(lab: &Lab, rounds: u32) -> Object {
    let mut linear = lab.object("complex/linear").unwrap();
    let rounds = GlobalValue::Integer(rounds.into());
    linear.inputs.globals.insert("rounds".into(), rounds);
    linear
}

/// Of every kind of complexity: rounds, paths, instructions, calls, and a real program. A device whose own kernel has no
/// verifier runs them.
#[test]
fn what_is_too_complex_runs_on_devices() {
    let lab = Lab::of_device_kernel().unwrap();
    let mut verifier = Verifier::start(&lab.target, RAISED.parse().unwrap()).unwrap();
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    let models: [(&str, Model); 4] = [
        ("loop", looping),
        ("paths", |_| XDP_PASS),
        ("straight", |size| verdict(additions(size, 1_000_000))),
        ("calls", calling),
    ];
    for (name, model) in models {
        let object = lab.object(&format!("complex/{name}")).unwrap();
        let verified = verifier.verify(&object, &mut |_| {}).unwrap();
        assert_accepted(&verified);
        let pins = load(&lab, &mut device, &verified);
        assert_verdicts(&mut device, &format!("{pins}/{name}"), model);
    }
    // Each run has counted at the sum of its bits.
    let table = device.entries("/sys/fs/bpf/paths/maps/table").unwrap();
    for size in SIZES {
        let sum = (!size & 0x3ffff) as usize;
        assert_eq!(table[0].values[0][sum], 1, "{size}");
    }

    let object = lab.object("complex/pyperf").unwrap();
    let verified = verifier.verify(&object, &mut |_| {}).unwrap();
    assert_accepted(&verified);
    let pins = load(&lab, &mut device, &verified);
    // No process is one that it looks for.
    let run = TestRunRequest {
        context_in: Some(vec![0; 16]),
        data_in: None,
        data_out_size: 0,
        ..on_packet(&format!("{pins}/on_event"), &[], 0)
    };
    let run = device.test_run(run).unwrap();
    assert_eq!((run.errno, run.return_value), (0, 0));
    device.healthy_log().unwrap();
}

/// What a program answers to a packet of a size.
type Model = fn(u64) -> u32;

const SIZES: [u64; 2] = [64, 101];
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

fn verdict(hash: u64) -> u32 {
    match hash & 1 {
        0 => XDP_DROP,
        _ => XDP_PASS,
    }
}

fn mixed(hash: u64, rounds: u64) -> u64 {
    (0..rounds).fold(hash, |hash, round| {
        hash.wrapping_mul(31).wrapping_add(round)
    })
}

fn looping(size: u64) -> u32 {
    verdict(mixed(size, 250_000))
}

fn additions(sum: u64, times: u32) -> u64 {
    (0..times).fold(sum, |sum, _| (sum + 7) ^ 5)
}

fn calling(size: u64) -> u32 {
    let row = |hash| {
        (0..60u64).fold(hash, |hash, column| {
            mixed(hash, column.min(50)).wrapping_add(mixed(hash, (60 - column).min(50)))
        })
    };
    verdict((0..60).fold(size, |hash, _| row(hash)))
}

/// Loads an object's programs and maps; says where they are pinned.
fn load(lab: &Lab, device: &mut Device, verified: &Verified) -> String {
    let bundle = lab.bundle(verified).unwrap();
    let program = &verified.loaded.programs[0].function;
    let pins = format!("/sys/fs/bpf/{program}");
    device.put("/tmp/b.pvb", 0o644, bundle.to_bytes()).unwrap();
    device
        .run(&[LOADER, "load", "/tmp/b.pvb", "--pin", &pins])
        .unwrap();
    pins
}

fn assert_verdicts(device: &mut Device, pinned: &str, model: Model) {
    for size in SIZES {
        let packet = vec![0; usize::try_from(size).unwrap()];
        let run = device.test_run(on_packet(pinned, &packet, 1)).unwrap();
        assert_eq!(
            (run.errno, run.return_value),
            (0, model(size)),
            "{pinned}, {size} bytes"
        );
    }
}

/// Each refusal names the limit that comes next.
#[test]
fn branches_that_wait_need_jumps_and_memory() {
    let lab = Lab::of_device_kernel().unwrap();
    let branches = lab.object("complex/branches").unwrap();
    let refused = refusal(&lab, &branches, "insns=64M,time=15min").to_string();
    assert!(refused.contains("8193 jumps is too complex"), "{refused}");
    assert!(refused.contains("--limits jumps="), "{refused}");

    let refused = refusal(&lab, &branches, RAISED);
    let text = refused.to_string();
    assert!(matches!(refused, BuildError::OutOfMemory { .. }), "{text}");
    assert!(text.contains("--limits memory="), "{text}");

    let limits = format!("{RAISED},memory=4G");
    let verified = verify(&lab, &branches, &limits).unwrap();
    assert_accepted(&verified);
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    let pins = load(&lab, &mut device, &verified);
    assert_verdicts(&mut device, &format!("{pins}/branches"), |_| XDP_PASS);
}

fn assert_accepted(verified: &Verified) {
    let statistics = &verified.loaded.programs[0].statistics;
    assert!(statistics.total_insns > STOCK, "{statistics:?}");
    assert!(verified.loaded.limits.exceed_stock());
    assert!(verified.programs[0].native.is_some());
    assert!(verified.programs[0].bytecode.is_some());
}

/// A device runs it; one that demands stock limits does not.
#[test]
fn devices_can_demand_stock_limits() {
    let lab = Lab::of_verifier_kernel().unwrap();
    let mut told = Vec::new();
    let limits = RAISED.parse().unwrap();
    let verified = Verifier::start(&lab.target, limits)
        .unwrap()
        .verify(&linear(&lab, 100), &mut |stage| {
            if let Stage::Processed(insns) = stage {
                told.push(insns);
            }
        })
        .unwrap();
    // Two million take seconds: that was told meanwhile.
    assert!(told.iter().any(|&insns| insns > 0), "{told:?}");
    assert!(told.is_sorted(), "{told:?}");

    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    device.put("/tmp/b.pvb", 0o644, bundle.to_bytes()).unwrap();
    let pins = "/sys/fs/bpf/linear";
    let load = [LOADER, "load", "/tmp/b.pvb", "--pin", pins];
    let refused = device
        .try_run(&[&load[..], &["--stock-limits"]].concat())
        .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_ne!(refused.status, 0);
    assert!(
        words.contains("program linear: its verifier's limits were raised"),
        "{words}"
    );
    device.run(&load).unwrap();
    assert_verdicts(&mut device, &format!("{pins}/linear"), |size| {
        verdict(additions(size, 100 * 10_000))
    });
}

/// Two million instructions are no obstacle for a device, in neither form.
#[test]
fn long_programs_are_loaded() {
    let lab = Lab::of_verifier_kernel().unwrap();
    let verified = verify(&lab, &lab.object("complex/straight").unwrap(), RAISED).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    device.put("/tmp/b.pvb", 0o644, bundle.to_bytes()).unwrap();
    for image in ["native", "bytecode"] {
        let pins = format!("/sys/fs/bpf/{image}");
        let load = [
            LOADER,
            "load",
            "/tmp/b.pvb",
            "--pin",
            &pins,
            "--image",
            image,
        ];
        device.run(&load).unwrap();
        let run = device
            .test_run(on_packet(&format!("{pins}/straight"), &[0; 64], 1))
            .unwrap();
        assert_eq!(run.errno, 0, "{image}");
    }
    device.healthy_log().unwrap();
}

/// What was raised for one object is not for the next.
#[test]
fn limits_do_not_linger() {
    let lab = Lab::of_verifier_kernel().unwrap();
    let verified = verify(&lab, &linear(&lab, 10), RAISED).unwrap();
    assert!(verified.loaded.limits.exceed_stock());
    let verified = verify(&lab, &linear(&lab, 10), "time=15min").unwrap();
    assert!(!verified.loaded.limits.exceed_stock());
    let refused = refusal(&lab, &linear(&lab, 10), "insns=100k,time=15min");
    assert!(
        refused.to_string().contains("Processed 100001 insn"),
        "{refused}"
    );
}

/// A kernel whose limits are constants says so.
#[test]
fn stock_kernels_have_fixed_limits() {
    let lab = Lab::new().unwrap();
    let refusals = lab.object("refusals").unwrap();
    let refused = refusal(&lab, &refusals, "jumps=1M").to_string();
    assert!(refused.contains("8192 branches"), "{refused}");
    assert!(refused.contains("cargo xtask kernel verifier"), "{refused}");
    // To want what is there is no mistake.
    verify(&lab, &refusals, "insns=1M,jumps=8192").unwrap();
}

/// What ends a verification before its verdict says how far it was, and what would help; and the machines go on.
#[test]
fn what_takes_too_long_says_how_far_it_was() {
    let lab = Lab::of_verifier_kernel().unwrap();
    let limits = "insns=4G,time=20s".parse().unwrap();
    let mut verifier = Verifier::start(&lab.target, limits).unwrap();
    let endless = linear(&lab, u32::MAX);
    let refused = verifier.verify(&endless, &mut |_| {}).err().unwrap();
    let text = refused.to_string();
    assert!(
        matches!(refused, BuildError::TimedOut { processed: Some(insns), .. } if insns > 0),
        "{text}"
    );
    assert!(text.contains("--limits time="), "{text}");
    verifier.verify(&linear(&lab, 10), &mut |_| {}).unwrap();
}

/// Says to this executable that it is the process to be killed.
const VICTIM: &str = "PREVERIFY_TEST_VICTIM";

/// A process that ends with the test, however that does.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Verifies without end, in a process that another test kills.
#[test]
fn a_killed_verification_leaves_no_machine() {
    if env::var_os(VICTIM).is_some() {
        let lab = Lab::of_verifier_kernel().unwrap();
        let error = refusal(&lab, &linear(&lab, u32::MAX), "insns=4G,time=24h");
        panic!("this process should have been killed: {error}");
    }
    // The target is there when its machines are counted.
    Lab::of_verifier_kernel()
        .unwrap()
        .target
        .prepare(&mut |_| {})
        .unwrap();
    let victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_killed_verification_leaves_no_machine"])
        .env(VICTIM, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let victim = Victim(victim);
    let machines = wait_for(|| {
        let machines = machines_of(victim.0.id());
        (machines.len() == 2).then_some(machines)
    });
    // They verify by now, or will in a moment.
    sleep(Duration::from_secs(5));
    assert_eq!(machines_of(victim.0.id()), machines);
    drop(victim);
    wait_for(|| {
        machines
            .iter()
            .all(|&machine| !is_running(machine))
            .then_some(())
    });
}

fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long");
        sleep(Duration::from_millis(100));
    }
}
