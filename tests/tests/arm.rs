#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! The whole way on emulated boards of 32-bit arm: bytecode alone, since that is what there is. What the kernel's JIT
//! compiler there does not know is refused when a bundle is built; and BTF that the kernel lacks can be given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use preverify_lab::{Device, LOADER, Lab, number, on_packet};
use preverify_pipeline::{Limits, Object, Verifier};
use preverify_protocol::TestRunRequest;
use preverify_target::{AddRequest, DeviceOptions, Store, default_cache};

const TARGET: &str = "debian:6.1-armmp";
const LIMIT: Duration = Duration::from_secs(120);
const BUNDLE: &str = "/tmp/b.pvb";
const PINS: &str = "/sys/fs/bpf/b";

/// Programs of `arm.bpf.c` that are compiled there.
const COMPILED: [&str; 3] = ["counts", "computes", "jumps"];
/// Those that are not.
const NOT_COMPILED: [&str; 3] = ["calls_function", "adds_atomically", "divides_wide"];

#[test]
fn what_is_not_carried_is_named() {
    let lab = Lab::of(TARGET).unwrap();
    let mut verifier = Verifier::start(&lab.target, Limits::of_time(LIMIT)).unwrap();
    let mut refuse = |object: &Object, words: &[&str]| {
        let refused = verifier.verify(object, &mut |_| {});
        let error = refused.unwrap_err().to_string();
        for words in words {
            assert!(error.contains(words), "no {words:?} in {error}");
        }
        assert!(!error.contains("`counts`"), "{error}");
    };
    for program in NOT_COMPILED {
        let name = format!("`{program}`");
        let words = [&name, "JIT compiler does not compile it", "32-bit arm"];
        refuse(&only(&lab, &["counts", program]), &words);
    }
    let filled = lab.object("arm_slots").unwrap();
    refuse(&filled, &["the array `landings` holds programs or maps"]);
}

#[test]
fn bytecode_is_compiled_there() {
    let lab = Lab::of(TARGET).unwrap();
    let verified = lab.verify(&only(&lab, &COMPILED)).unwrap();
    for program in &verified.programs {
        assert!(program.native.is_none() && program.bytecode.is_some());
    }
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();

    let native = [LOADER, "load", BUNDLE, "--image", "native", "--pin", PINS];
    let refused = device.try_run(&native).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_ne!(refused.status, 0);
    assert!(
        said.contains("has no native image, only bytecode"),
        "{said}"
    );

    let said = device
        .run(&[LOADER, "load", BUNDLE, "--pin", PINS])
        .unwrap();
    assert!(said.contains("bytecode"), "{said}");
    let listed = device.run(&[LOADER, "list", PINS]).unwrap();
    for program in COMPILED {
        assert!(listed.contains(&format!("{PINS}/{program}")), "{listed}");
    }
    counts(&mut device);
    computes(&mut device);
    assert_eq!(run(&mut device, "jumps", &packet(1)), 77);
    device.run(&[LOADER, "unload", PINS]).unwrap();
    device.healthy_log().unwrap();
}

/// CO-RE goes by it, and finds fields where they really are.
#[test]
fn btf_is_given_to_a_kernel_without() {
    let lab = Lab::of(TARGET).unwrap();
    let object = lab.object("given_btf").unwrap();
    let error = lab.verify(&object).unwrap_err().to_string();
    assert!(error.contains("failed to find valid kernel BTF"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let lab = with_btf(lab, folder.path());
    let bundle = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
    device
        .run(&[LOADER, "load", BUNDLE, "--pin", PINS])
        .unwrap();
    let request = TestRunRequest {
        data_in: None,
        ..request("finds_itself", &[])
    };
    let reply = device.test_run(request).unwrap();
    assert_eq!((reply.errno, reply.return_value), (0, 1));
    device.healthy_log().unwrap();
}

/// The object with these programs alone.
fn only(lab: &Lab, programs: &[&str]) -> Object {
    let mut object = lab.object("arm").unwrap();
    for program in COMPILED.into_iter().chain(NOT_COMPILED) {
        let inputs = object.inputs.programs.entry(program.into());
        inputs.or_default().autoload = Some(programs.contains(&program));
    }
    object
}

/// What the programs leave in maps of several kinds, and in variables.
fn counts(device: &mut Device) {
    const SEED: u64 = 0x1_0000_0007;
    const FACTOR: u64 = 3;
    let mut sum = 0_u64;
    for first in [5, 6, 5] {
        let packet = packet(first);
        sum = sum.wrapping_add(SEED * FACTOR + (u64::from(packet[2]) << 40));
        assert_eq!(run(device, "counts", &packet), folded(sum));
    }
    assert_eq!(numbers(device, "sums"), [0, sum, 0, 0]);
    assert_eq!(numbers(device, "percpu"), [0, u64::from(packet(5)[1])]);
    let seen = device.entries(&map("seen")).unwrap();
    let mut seen: Vec<_> = seen
        .iter()
        .map(|entry| (entry.index(), entry.sum()))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [(5, 2), (6, 1)]);
    assert_eq!(numbers(device, "arm_bss"), [3]);
    assert_eq!(numbers(device, "arm_data"), [SEED]);
}

fn computes(device: &mut Device) {
    for first in [0, 1, 0x7f, 0x80, 0xff] {
        let packet = packet(first);
        let mut value = number(&packet);
        value ^= 0x1122_3344_5566_7788_u64.wrapping_mul(value | 1);
        value = value.wrapping_sub((value.cast_signed() >> 13).cast_unsigned());
        value ^= ((value & 0xffff_ffff) / 1_000_003) << 31;
        value = value.wrapping_add(value.swap_bytes());
        if value.cast_signed() < 0 {
            value = !value;
        }
        assert_eq!(run(device, "computes", &packet), folded(value), "{first}");
    }
}

/// Both halves of what a program returns.
fn folded(number: u64) -> u32 {
    let folded = (number ^ number >> 32) & u64::from(u32::MAX);
    folded.try_into().unwrap()
}

fn packet(first: u8) -> Vec<u8> {
    (0..64_u8)
        .map(|index| first.wrapping_add(index.wrapping_mul(37)))
        .collect()
}

fn run(device: &mut Device, program: &str, packet: &[u8]) -> u32 {
    let reply = device.test_run(request(program, packet)).unwrap();
    assert_eq!(reply.errno, 0, "{program}");
    reply.return_value
}

fn request(program: &str, packet: &[u8]) -> TestRunRequest {
    on_packet(&format!("{PINS}/{program}"), packet, 1)
}

fn map(name: &str) -> String {
    format!("{PINS}/maps/{name}")
}

fn numbers(device: &mut Device, name: &str) -> Vec<u64> {
    device.numbers(&map(name)).unwrap()
}

/// The same kernel with BTF of its types.
fn with_btf(mut lab: Lab, folder: &Path) -> Lab {
    const NAME: &str = "debian-6.1-armmp-btf";
    let store = Store::open(&default_cache().unwrap()).unwrap();
    lab.target = store.get(NAME).unwrap_or_else(|_| {
        let release = &lab.target.facts().release;
        let kernel = format!("debian:{release}").parse().unwrap();
        let request = AddRequest {
            btf: Some(btf(&lab.target.headers(), folder)),
            device: None,
            ..AddRequest::debian(kernel, Some(NAME.into()))
        };
        store.add(&request, &mut |_| {}).unwrap().target
    });
    lab
}

/// BTF of what a kernel's headers say, as the compiler of its modules sees it.
fn btf(headers: &Path, folder: &Path) -> PathBuf {
    let (source, makefile) = (
        "#include <linux/sched.h>\nstruct task_struct *task;\n",
        "obj-m := types.o\n",
    );
    fs::write(folder.join("types.c"), source).unwrap();
    fs::write(folder.join("Makefile"), makefile).unwrap();
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("--directory")
        .arg(headers)
        .arg(format!("M={}", folder.display()))
        .args([
            "ARCH=arm",
            "CROSS_COMPILE=arm-linux-gnueabihf-",
            "KCFLAGS=-g0 -gbtf",
            "types.o",
        ]);
    assert!(make.status().unwrap().success());
    let btf = folder.join("kernel.btf");
    let mut copy = Command::new("arm-linux-gnueabihf-objcopy");
    copy.arg("--dump-section")
        .arg(format!(".BTF={}", btf.display()))
        .arg(folder.join("types.o"));
    assert!(copy.status().unwrap().success());
    btf
}
