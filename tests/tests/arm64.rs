#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! The whole way on emulated boards of arm64: machine code, bytecode, and boards that machine code is not for. There
//! it is refused, with the reason, and nothing of it stays; the same board takes bytecode.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use preverify_abi::image::IMAGE_NATIVE;
use preverify_bundle::Bundle;
use preverify_lab::{
    BUSYBOX, Device, LOADER, Lab, Subject, assert_reason, number, object, on_packet,
};
use preverify_probe::Case;
use preverify_target::DeviceOptions;

const TARGET: &str = "debian:6.12-cloud-arm64";
const BUNDLE: &str = "/tmp/b.pvb";
const PINS: &str = "/sys/fs/bpf/b";
const XDP_PASS: u32 = 2;
const ENOEXEC: i32 = 8;

/// A processor without atomic instructions, one with them, and one with everything that QEMU knows.
const SMALL: &str = "cortex-a57";
const LARGE: &str = "neoverse-n1";
const EVERYTHING: &str = "max";

/// Verified for the processor that targets have if nothing is said: a small one.
static FOR_SMALL: LazyLock<Code> = LazyLock::new(|| Code::verify(Lab::of(TARGET).unwrap()));
/// For the large one.
static FOR_LARGE: LazyLock<Code> = LazyLock::new(|| Code::new(LARGE, false));
/// And with the kernel at exception level 2.
static FOR_LARGE_AT_EL2: LazyLock<Code> = LazyLock::new(|| Code::new(LARGE, true));

#[test]
fn a_small_processor_takes_both_images() {
    let mut device = boot(&FOR_SMALL.lab, "cortex-a53", false);
    for kind in ["native", "bytecode"] {
        let said = load(&mut device, &FOR_SMALL.both.to_bytes(), &["--image", kind]);
        assert!(said.contains(kind), "{said}");
        run_and_unload(&mut device);
    }
    device.healthy_log().unwrap();
}

/// Atomics are other instructions there: machine code for small processors would work on large ones. The kernel part
/// does not tell this from the other case.
#[test]
fn code_without_atomic_instructions_where_they_are() {
    let mut device = boot(&FOR_SMALL.lab, LARGE, false);
    takes_only_bytecode(
        &mut device,
        &FOR_SMALL,
        "the machine has LSE atomics, and the code was made without it",
    );
}

#[test]
fn code_with_atomic_instructions_where_they_are_not() {
    let mut device = boot(&FOR_LARGE.lab, SMALL, false);
    takes_only_bytecode(
        &mut device,
        &FOR_LARGE,
        "the machine has no LSE atomics, and the code was made for it",
    );
}

#[test]
fn code_for_another_exception_level() {
    let mut device = boot(&FOR_LARGE.lab, LARGE, true);
    takes_only_bytecode(
        &mut device,
        &FOR_LARGE,
        "the machine has VHE (a kernel that runs at EL2), and the code was made without it",
    );
    let mut device = boot(&FOR_LARGE_AT_EL2.lab, LARGE, false);
    takes_only_bytecode(
        &mut device,
        &FOR_LARGE_AT_EL2,
        "the machine has no VHE (a kernel that runs at EL2), and the code was made for it",
    );
}

/// Nothing keeps this device's kernel from large addresses.
#[test]
fn code_for_other_addresses() {
    let mut device = boot(&FOR_LARGE.lab, EVERYTHING, false);
    takes_only_bytecode(
        &mut device,
        &FOR_LARGE,
        "the code is for machines with bits of a virtual address 48, this one has 52",
    );
}

#[test]
fn code_with_constants_that_are_to_be_blinded() {
    let mut device = boot(&FOR_LARGE.lab, LARGE, false);
    set_harden(&mut device, 2);
    takes_only_bytecode(
        &mut device,
        &FOR_LARGE,
        "the code is for machines with net.core.bpf_jit_harden 0, this one has 2",
    );
    let mut size = |harden| {
        set_harden(&mut device, harden);
        load(
            &mut device,
            &FOR_LARGE.both.to_bytes(),
            &["--image", "bytecode"],
        );
        let size = compiled_size(&mut device);
        run_and_unload(&mut device);
        size
    };
    let (plain, blinded) = (size(0), size(2));
    assert!(
        blinded > plain,
        "{blinded} bytes blinded, {plain} bytes plain"
    );
    device.healthy_log().unwrap();
}

/// What is each CPU's own is found through a register that is another one at exception level 2. On the first CPU, the
/// wrong one may well be right: so the second one is asked first.
#[test]
fn each_cpu_is_the_same_machine_and_finds_its_own_data() {
    let lab = &FOR_LARGE_AT_EL2.lab;
    let verified = lab.verify(&lab.object("percpu").unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap().to_bytes();
    let mut device = boot(lab, LARGE, true);
    let fingerprints = [0, 1].map(|cpu| {
        let command = [BUSYBOX, "taskset", &mask(cpu), LOADER, "fingerprint"];
        device.run(&command).unwrap()
    });
    assert_eq!(fingerprints[0], fingerprints[1]);
    assert!(fingerprints[0].contains("VHE"), "{}", fingerprints[0]);

    for kind in ["native", "bytecode"] {
        load(&mut device, &bundle, &["--image", kind]);
        for cpu in [1, 0] {
            // The agent is the first process, and the one that runs programs.
            device
                .run(&[BUSYBOX, "taskset", "-p", &mask(cpu), "1"])
                .unwrap();
            assert_eq!(run(&mut device, "where"), cpu * 10101, "{kind}");
        }
        for map in ["visits", "visitors"] {
            let entries = device.entries(&format!("{PINS}/maps/{map}")).unwrap();
            let visits = entries[0].values.iter().map(|value| number(value));
            let expected = [RUNS, RUNS, 0, 0, 0, 0, 0, 0];
            assert_eq!(visits.collect::<Vec<_>>(), expected, "{kind}: {map}");
        }
        device.run(&[LOADER, "unload", PINS]).unwrap();
    }
    device.healthy_log().unwrap();
}

/// There are so many maps that some of them lie where fewer instructions could say it. On small processors none does:
/// with fewer bits of a physical address, the kernel has room to put its memory at random addresses.
#[test]
fn maps_may_lie_anywhere() {
    let lab = &FOR_LARGE.lab;
    let verified = lab.verify(&lab.object("placed").unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap().to_bytes();
    let mut device = boot(lab, LARGE, false);
    device.put(BUNDLE, 0o644, bundle).unwrap();
    let folders: Vec<String> = (0..32).map(|number| format!("{PINS}{number}")).collect();
    for folder in &folders {
        let load = [LOADER, "load", BUNDLE, "--image", "native", "--pin", folder];
        device.run(&load).unwrap();
    }
    for folder in &folders {
        assert_eq!(u64::from(run_in(&mut device, folder, "count")), RUNS);
    }
    device.healthy_log().unwrap();
}

/// Two architectures, one signature. Each device takes its own part, and neither reads nor misses the other one's.
#[test]
fn one_bundle_for_two_architectures() {
    let (pc, mut board) = (Lab::new().unwrap(), Lab::of(TARGET).unwrap());
    let object = object("refusals").unwrap();
    let verified = [&pc, &board].map(|lab| lab.verify(&object).unwrap());
    let [for_pc, for_board] =
        [(&pc, &verified[0]), (&board, &verified[1])].map(|(lab, verified)| {
            let mut bundle = preverify_pipeline::bundle(&[(&lab.target, verified)]).unwrap();
            bundle.sign(&pc.signer).unwrap();
            bundle
        });
    let both = [(&pc.target, &verified[0]), (&board.target, &verified[1])];
    let mut both = preverify_pipeline::bundle(&both).unwrap();
    both.sign(&pc.signer).unwrap();

    let [in_pc, in_board, in_both] = [&for_pc, &for_board, &both].map(sections);
    assert_eq!(in_both, &in_pc | &in_board);
    assert_eq!(both.manifest().sections.len(), in_both.len());
    let shared = in_pc.intersection(&in_board).count();
    println!("{} sections, {shared} of them for both", in_both.len());
    assert!(shared > 0);

    let mut device = pc.boot(DeviceOptions::default()).unwrap();
    takes_its_own(&mut device, &both, &in_pc, &in_board);
    is_for_another_kernel(&mut device, &for_board, "arm64", "x86_64");
    // Both devices trust the same signer.
    board.signer = pc.signer;
    let mut device = board.boot(DeviceOptions::default()).unwrap();
    takes_its_own(&mut device, &both, &in_board, &in_pc);
    is_for_another_kernel(&mut device, &for_pc, "x86_64", "arm64");
}

/// A verified object, and bundles of it.
struct Code {
    lab: Lab,
    /// With machine code and bytecode.
    both: Bundle,
    /// With machine code alone.
    native: Bundle,
    /// Questions to load machine code, from either bundle.
    loads: [Case; 2],
}

impl Code {
    fn new(cpu: &str, el2: bool) -> Self {
        Self::verify(Lab::of_processor(TARGET, cpu, el2).unwrap())
    }

    fn verify(lab: Lab) -> Self {
        let subject = Subject::new(lab, "refusals", IMAGE_NATIVE).unwrap();
        let (both, load) = (subject.bundle.clone(), subject.honest("on_packet"));
        let native = subject.without_bytecode().unwrap();
        Self {
            both,
            loads: [load, native.honest("on_packet")],
            native: native.bundle,
            lab: native.lab,
        }
    }
}

/// A device with two CPUs.
fn boot(lab: &Lab, cpu: &str, el2: bool) -> Device {
    let options = DeviceOptions {
        cpu: Some(cpu.into()),
        cpus: Some(2),
        el2: Some(el2),
        ..DeviceOptions::default()
    };
    lab.boot_for_probes(options).unwrap()
}

/// Machine code is refused for this reason, whoever asks, and nothing of it is there afterwards. With bytecode in the
/// bundle, the device loads and runs that.
fn takes_only_bytecode(device: &mut Device, code: &Code, reason: &str) {
    for answer in &device.probe(&code.loads).unwrap() {
        assert_reason(answer, ENOEXEC, reason);
    }
    let said = refused(device, &code.native, &[]);
    assert!(said.contains("ENOEXEC") && said.contains(reason), "{said}");
    let said = refused(device, &code.both, &["--image", "native"]);
    assert!(said.contains("its bytecode image fits"), "{said}");

    let said = load(device, &code.both.to_bytes(), &[]);
    assert!(said.contains("bytecode") && said.contains(reason), "{said}");
    run_and_unload(device);
    device.healthy_log().unwrap();
}

/// The device is none of the bundle's.
fn is_for_another_kernel(device: &mut Device, bundle: &Bundle, its: &str, ours: &str) {
    let said = refused(device, bundle, &[]);
    assert!(said.contains("ENOEXEC"), "{said}");
    assert!(
        said.contains("another kernel build than the running one"),
        "{said}"
    );
    let (bundle_for, here) = said.split_once(", here runs ").unwrap();
    assert!(bundle_for.contains(&format!("({its}, build")), "{said}");
    assert!(here.contains(&format!("({ours}, build")), "{said}");
    device.healthy_log().unwrap();
}

/// The device's own sections are enough, and needed.
fn takes_its_own(
    device: &mut Device,
    bundle: &Bundle,
    own: &BTreeSet<Digest>,
    others: &BTreeSet<Digest>,
) {
    for kind in ["native", "bytecode"] {
        let said = load(device, &keeping(bundle, own), &["--image", kind]);
        assert!(said.contains(kind), "{said}");
        run_and_unload(device);
    }
    device.put(BUNDLE, 0o644, keeping(bundle, others)).unwrap();
    let reply = device.try_run(&LOAD).unwrap();
    assert_ne!(reply.status, 0);
    let said = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert!(said.contains("the bundle is damaged"), "{said}");
    is_empty(device);
}

type Digest = [u8; 32];

fn sections(bundle: &Bundle) -> BTreeSet<Digest> {
    let sections = bundle.manifest().sections.iter();
    sections.map(|section| section.digest).collect()
}

/// The bundle's file, in which all sections but those are destroyed. They lie at its end, in their order.
fn keeping(bundle: &Bundle, kept: &BTreeSet<Digest>) -> Vec<u8> {
    let mut bytes = bundle.to_bytes();
    let mut end = bytes.len();
    for section in bundle.manifest().sections.iter().rev() {
        let size = section.size as usize;
        let start = end - size.next_multiple_of(8);
        if !kept.contains(&section.digest) {
            bytes[start..start + size].fill(0xa5);
        }
        end = start;
    }
    bytes
}

const LOAD: [&str; 5] = [LOADER, "load", BUNDLE, "--pin", PINS];

/// Loads a bundle; returns what the loader said.
fn load(device: &mut Device, bundle: &[u8], options: &[&str]) -> String {
    device.put(BUNDLE, 0o644, bundle.to_vec()).unwrap();
    let said = device.run(&[&LOAD, options].concat()).unwrap();
    // What shows here is what must not, of what was refused.
    assert!(device.run(&[LOADER, "list"]).unwrap().contains(PINS));
    said
}

/// Does not load a bundle, and leaves nothing of it; returns what the loader said.
fn refused(device: &mut Device, bundle: &Bundle, options: &[&str]) -> String {
    const REFUSED: i32 = 3;
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
    let reply = device.try_run(&[&LOAD, options].concat()).unwrap();
    let said = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert_eq!(reply.status, REFUSED, "{said}");
    is_empty(device);
    said
}

/// Nothing is pinned.
fn is_empty(device: &mut Device) {
    let pins = device.run(&[LOADER, "list"]).unwrap();
    assert_eq!(pins, "");
}

fn run_and_unload(device: &mut Device) {
    assert_eq!(run(device, "on_packet"), XDP_PASS);
    device.run(&[LOADER, "unload", PINS]).unwrap();
}

/// How often programs run.
const RUNS: u64 = 100;

/// Has a program run; returns what it returned.
fn run(device: &mut Device, program: &str) -> u32 {
    run_in(device, PINS, program)
}

fn run_in(device: &mut Device, folder: &str, program: &str) -> u32 {
    let times = u32::try_from(RUNS).unwrap();
    let request = on_packet(&format!("{folder}/{program}"), &[0; 64], times);
    let reply = device.test_run(request).unwrap();
    assert_eq!(reply.errno, 0, "{program}");
    reply.return_value
}

fn compiled_size(device: &mut Device) -> u64 {
    let text = device.run(&[LOADER, "list", PINS, "--json"]).unwrap();
    let pins: serde_json::Value = serde_json::from_str(&text).unwrap();
    let is_it = |pin: &&serde_json::Value| pin["path"] == format!("{PINS}/on_packet");
    let pin = pins.as_array().unwrap().iter().find(is_it).unwrap();
    pin["jited_size"].as_u64().unwrap()
}

fn set_harden(device: &mut Device, value: u32) {
    let command = format!("echo {value} > /proc/sys/net/core/bpf_jit_harden");
    device.run(&[BUSYBOX, "sh", "-c", &command]).unwrap();
}

/// One CPU, as taskset takes it.
fn mask(cpu: u32) -> String {
    format!("{:x}", 1 << cpu)
}
