#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! What a device refuses: each refusal on a live device, which stays healthy, and nothing of it stays.
//!
//! Most cases are signed by the trusted signer: that a signature holds must not be the only line of defence.

use std::time::Duration;

use preverify_abi::image::{IMAGE_NATIVE, ImageHeader};
use preverify_bundle::{Algorithm, Bundle, Signer};
use preverify_lab::{
    BUSYBOX, Device, LOADER, Lab, PROBE, Subject, assert_reason, assert_refused, image, is_refused,
    object, on_packet, refusal,
};
use preverify_pipeline::Object;
use preverify_probe::{Answer, Case, Map, Refusal};
use preverify_target::DeviceOptions;
use zerocopy::FromBytes;

const EINVAL: i32 = 22;
const EPERM: i32 = 1;
const EBADMSG: i32 = 74;
const ENOKEY: i32 = 126;
const EKEYREJECTED: i32 = 129;

const CAP_NET_ADMIN: u8 = 12;
const CAP_SYS_ADMIN: u8 = 21;
const CAP_PERFMON: u8 = 38;
const CAP_BPF: u8 = 39;

/// The object that all questions are about.
fn subject() -> Subject {
    Subject::new(Lab::new().unwrap(), "refusals", IMAGE_NATIVE).unwrap()
}

#[test]
fn bundles_that_are_not_as_signed() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let honest = subject.honest("on_packet");
    let open_only = Case {
        load: None,
        ..honest.clone()
    };
    let flipped = |bytes: &[u8], index: usize| {
        let mut bytes = bytes.to_vec();
        bytes[index] ^= 1 << (index % 8);
        bytes
    };

    let mut cases = vec![honest.clone()];
    for index in 0..honest.manifest.len() {
        cases.push(Case {
            manifest: flipped(&honest.manifest, index),
            ..open_only.clone()
        });
    }
    // What stands around it in the CMS message is only partly read by the kernel, and covers nothing.
    const RSA_2048: usize = 256;
    for index in honest.signature.len() - RSA_2048..honest.signature.len() {
        cases.push(Case {
            signature: flipped(&honest.signature, index),
            ..open_only.clone()
        });
    }
    let load = honest.load.clone().unwrap();
    for index in 0..load.image.len() {
        let mut case = honest.clone();
        case.load.as_mut().unwrap().image = flipped(&load.image, index);
        cases.push(case);
    }
    for index in 0..load.symbols.len() {
        let mut case = honest.clone();
        case.load.as_mut().unwrap().symbols = flipped(&load.symbols, index);
        cases.push(case);
    }
    let stranger =
        Signer::generate(Algorithm::default(), "stranger", Duration::from_secs(3600)).unwrap();
    let unknown = cases.len();
    cases.push(Case {
        signature: stranger.sign(&honest.manifest).unwrap(),
        ..honest.clone()
    });
    cases.push(Case {
        signature: Vec::new(),
        ..honest.clone()
    });

    let answers = device.probe(&cases).unwrap();
    assert_eq!(answers[0], Answer::Done);
    for (index, answer) in answers.iter().enumerate().skip(1) {
        assert_refused(answer, &format!("case {index}"));
    }
    for answer in &answers[1..honest.manifest.len()] {
        let Refusal { errno, .. } = refusal(answer);
        assert!(
            [EKEYREJECTED, EBADMSG, EINVAL].contains(errno),
            "a flipped bit in the manifest gives errno {errno}"
        );
    }
    assert_eq!(refusal(&answers[unknown]).errno, ENOKEY);
    device.healthy_log().unwrap();
}

#[test]
fn an_ecdsa_signer_is_as_good() {
    let mut subject = subject();
    subject.lab.signer = Signer::generate(
        Algorithm::EcdsaP256,
        "laboratory P-256",
        Duration::from_secs(3600),
    )
    .unwrap();
    subject.bundle = subject.lab.bundle(&subject.verified).unwrap();
    let mut device = subject.boot().unwrap();
    let honest = subject.honest("on_packet");
    let mut damaged = honest.clone();
    *damaged.signature.last_mut().unwrap() ^= 1;
    let answers = device.probe(&[honest, damaged]).unwrap();
    assert_eq!(answers[0], Answer::Done);
    assert_refused(&answers[1], "a damaged signature");
    device.healthy_log().unwrap();
}

#[test]
fn nothing_loads_before_the_keyring_is_sealed() {
    let subject = subject();
    let mut device = subject
        .lab
        .boot_untrusting(DeviceOptions::default())
        .unwrap();
    device
        .put("/tmp/bundle.pvb", 0o644, subject.bundle.to_bytes())
        .unwrap();
    let reply = device
        .try_run(&[LOADER, "load", "/tmp/bundle.pvb"])
        .unwrap();
    let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert_eq!(reply.status, 3, "{complaint}");
    assert!(complaint.contains("trust"), "{complaint}");
    device.healthy_log().unwrap();
}

#[test]
fn bundles_for_other_machines() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    // What the verifier's conclusions depend on.
    let unopened = [
        on(&subject, &|target| target.build_id[0] ^= 1),
        on(&subject, &|target| target.fingerprint.arch.set(183)),
        on(&subject, &|target| target.fingerprint.page_shift.set(14)),
        on(&subject, &|target| target.fingerprint.cpu_limit.set(1)),
        on(&subject, &|target| target.fingerprint.policy ^= 1),
        on(&subject, &|target| target.fingerprint.policy ^= 1 << 2),
    ];
    let answers = device.probe(&unopened).unwrap();
    for (index, answer) in answers.iter().enumerate() {
        assert!(
            matches!(answer, Answer::NotOpened(_)),
            "case {index}: {answer:?}"
        );
        assert_refused(answer, &format!("case {index}"));
    }
    assert!(refusal(&answers[0]).reason.contains("kernel"));

    // What machine code depends on: with bytecode, the bundle is some use.
    let unloaded = device.probe(&for_other_machine_code(&subject)).unwrap();
    for (index, answer) in unloaded.iter().enumerate() {
        assert!(
            matches!(answer, Answer::NotLoaded(_)),
            "case {index}: {answer:?}"
        );
        assert_refused(answer, &format!("case {index}"));
    }
    assert!(refusal(&unloaded[0]).reason.contains("BMI2"));

    // More CPUs than the device has: that is allowed.
    let more_cpus = on(&subject, &|target| target.fingerprint.cpu_limit.set(4096));
    assert_eq!(device.probe(&[more_cpus]).unwrap(), [Answer::Done]);

    let native = subject.without_bytecode().unwrap();
    let unopened = device.probe(&for_other_machine_code(&native)).unwrap();
    for (unopened, unloaded) in unopened.iter().zip(&unloaded) {
        assert!(matches!(unopened, Answer::NotOpened(_)), "{unopened:?}");
        assert_eq!(refusal(unopened), refusal(unloaded));
    }
    device.healthy_log().unwrap();
}

fn for_other_machine_code(subject: &Subject) -> [Case; 6] {
    [
        on(subject, &|target| target.fingerprint.jit_flags ^= 1),
        on(subject, &|target| target.fingerprint.jit_flags ^= 1 << 1),
        on(subject, &|target| target.fingerprint.va_bits.set(39)),
        on(subject, &|target| target.fingerprint.return_thunk.set(4096)),
        on(subject, &|target| target.fingerprint.jit_harden.set(1)),
        on(subject, &|target| target.fingerprint.cfi_mode.set(77)),
    ]
}

/// The honest case, for another machine.
fn on(subject: &Subject, change: &dyn Fn(&mut preverify_bundle::Target)) -> Case {
    subject.with_manifest("on_packet", |manifest| change(&mut manifest.targets[0]))
}

#[test]
fn malformed_bundles_with_good_signatures() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let honest = subject.honest("on_packet");
    let sign = |manifest: Vec<u8>| Case {
        signature: subject.lab.signer.sign(&manifest).unwrap(),
        manifest,
        ..honest.clone()
    };
    let mut cases = Vec::new();
    // Cut at every boundary of a field: with the size that the header had, and with the true one.
    for size in (0..honest.manifest.len()).step_by(4) {
        let mut cut = honest.manifest[..size].to_vec();
        cases.push(sign(cut.clone()));
        if size >= 16 {
            cut[12..16].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
            cases.push(sign(cut));
        }
    }
    let whole = image(&honest);
    for size in (0..whole.len()).step_by(4) {
        let mut cut = whole[..size].to_vec();
        cases.push(subject.with_image("on_packet", cut.clone()));
        if size >= 16 {
            cut[12..16].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
            cases.push(subject.with_image("on_packet", cut));
        }
    }
    let answers = device.probe(&cases).unwrap();
    for (index, answer) in answers.iter().enumerate() {
        let size = cases[index].load.as_ref().unwrap().image.len();
        let what = format!(
            "manifest of {} instead of {} bytes, image of {size} instead of {}",
            cases[index].manifest.len(),
            honest.manifest.len(),
            whole.len()
        );
        assert_refused(answer, &what);
    }
    device.healthy_log().unwrap();
}

#[test]
fn relocations_outside_the_image() {
    const OFFSET: usize = 0;
    const FORM: usize = 4;
    const KIND: usize = 6;
    const INDEX: usize = 8;
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let whole = image(&subject.honest("on_packet"));
    let header = ImageHeader::read_from_prefix(&whole).unwrap().0;
    let relocs = header.relocs.offset.get() as usize;
    let change = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        subject.with_image("on_packet", changed)
    };
    let cases = [
        change(relocs + OFFSET, &u32::MAX.to_le_bytes()),
        change(relocs + OFFSET, &0x7fff_ffff_u32.to_le_bytes()),
        change(relocs + OFFSET, &header.code.count.get().to_le_bytes()),
        change(relocs + FORM, &99_u16.to_le_bytes()),
        change(relocs + KIND, &99_u16.to_le_bytes()),
        change(relocs + INDEX, &u32::MAX.to_le_bytes()),
    ];
    for (index, answer) in device.probe(&cases).unwrap().iter().enumerate() {
        assert_refused(answer, &format!("relocation {index}"));
    }
    device.healthy_log().unwrap();
}

/// Images with random damage that the trusted signer has signed: whatever is not refused is loaded, and closed.
#[test]
fn damaged_images_with_good_signatures_harm_nothing() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let whole = image(&subject.honest("on_packet"));
    let header = ImageHeader::read_from_prefix(&whole).unwrap().0;
    let bytes = |table: preverify_abi::Table, record: u32| {
        let (offset, count) = (table.offset.get(), table.count.get());
        offset as usize..(offset + count * record) as usize
    };
    // Instructions are the signer's to answer for; everything around them is parsed.
    let (code, xlated) = (bytes(header.code, 1), bytes(header.xlated, 8));
    let cases: Vec<_> = (0..whole.len())
        .filter(|index| !code.contains(index) && !xlated.contains(index))
        .flat_map(|index| [0x01, 0x80, 0xff].map(|mask| (index, mask)))
        .map(|(index, mask)| {
            let mut damaged = whole.clone();
            damaged[index] ^= mask;
            subject.with_image("on_packet", damaged)
        })
        .collect();
    let answers = device.probe(&cases).unwrap();
    let refused = answers.iter().filter(|answer| is_refused(answer)).count();
    // Tags, numbers that are only shown, and addends are anybody's guess.
    println!("{refused} of {} damaged images are refused", answers.len());
    assert!(
        refused * 2 > answers.len(),
        "only {refused} of {}",
        answers.len()
    );
    device.healthy_log().unwrap();
}

#[test]
fn maps_that_differ_from_the_verified_ones() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let honest = subject.honest("on_packet");
    let names: Vec<_> = {
        let target = &subject.bundle.manifest().targets[0];
        let maps = &target.programs[subject.program("on_packet")].maps;
        let maps = maps.iter();
        maps.map(|&map| target.maps[map as usize].full_name.clone())
            .collect()
    };
    let at = |name: &str| names.iter().position(|found| found.contains(name)).unwrap();
    let (counts, sums, seen, rodata) = (at("counts"), at("sums"), at("seen"), at("rodata"));
    let change = |index: usize, change: &dyn Fn(&mut Map)| {
        let mut case = honest.clone();
        change(&mut case.load.as_mut().unwrap().maps[index]);
        case
    };
    const LRU_HASH: u32 = 9;
    const NO_PREALLOC: u32 = 1;
    const RDONLY_PROG: u32 = 1 << 7;
    let cases = [
        ("type", change(counts, &|map| map.map_type = LRU_HASH)),
        ("key size", change(counts, &|map| map.key_size = 8)),
        ("value size", change(counts, &|map| map.value_size = 16)),
        ("more entries", change(counts, &|map| map.max_entries += 1)),
        ("fewer entries", change(sums, &|map| map.max_entries -= 1)),
        ("flags", change(counts, &|map| map.map_flags |= NO_PREALLOC)),
        (
            "array's value size",
            change(sums, &|map| map.value_size = 4),
        ),
        (
            "read-only to programs",
            change(sums, &|map| map.map_flags |= RDONLY_PROG),
        ),
        ("extra attribute", change(seen, &|map| map.map_extra = 4)),
        ("unfrozen", change(rodata, &|map| map.frozen = false)),
        (
            "writable",
            change(rodata, &|map| map.map_flags &= !RDONLY_PROG),
        ),
        (
            "altered contents",
            change(rodata, &|map| {
                map.contents.as_mut().unwrap()[0] ^= 1;
            }),
        ),
        ("no contents", change(rodata, &|map| map.contents = None)),
    ];
    let (what, cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for (what, answer) in what.iter().zip(device.probe(&cases).unwrap()) {
        assert!(matches!(answer, Answer::NotLoaded(_)), "{what}: {answer:?}");
        assert_refused(&answer, what);
    }

    let reorder = |change: &dyn Fn(&mut Vec<Map>)| {
        let mut case = honest.clone();
        change(&mut case.load.as_mut().unwrap().maps);
        case
    };
    let cases = [
        reorder(&|maps| maps.swap(counts, sums)),
        reorder(&|maps| maps.truncate(maps.len() - 1)),
        reorder(&|maps| maps.push(maps[0].clone())),
        reorder(&Vec::clear),
    ];
    for answer in device.probe(&cases).unwrap() {
        assert_refused(&answer, "order or number");
    }
    device.healthy_log().unwrap();
}

#[test]
fn callers_without_the_capabilities() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let without = |function: &str, capabilities: &[u8]| Case {
        without: capabilities.to_vec(),
        ..subject.honest(function)
    };
    let cases = [
        without("on_packet", &[CAP_BPF, CAP_SYS_ADMIN]),
        without("on_packet", &[CAP_NET_ADMIN, CAP_SYS_ADMIN]),
        without("on_sleep", &[CAP_PERFMON, CAP_SYS_ADMIN]),
        without("on_sleep", &[CAP_NET_ADMIN, CAP_SYS_ADMIN]),
        // CAP_SYS_ADMIN stands for the others, as it does for BPF_PROG_LOAD.
        without("on_packet", &[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]),
    ];
    let answers = device.probe(&cases).unwrap();
    for answer in &answers[..3] {
        assert_reason(answer, EPERM, "CAP_");
    }
    assert_eq!(answers[3..], [Answer::Done, Answer::Done]);
    device.healthy_log().unwrap();
}

#[test]
fn nothing_leaks() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let times = |times: u32, case: Case| Case { times, ..case };
    let mut failing = subject.honest("on_packet");
    failing.load.as_mut().unwrap().maps.reverse();
    let damaged = {
        let whole = image(&subject.honest("on_packet"));
        let header = ImageHeader::read_from_prefix(&whole).unwrap().0;
        let last =
            header.relocs.offset.get() as usize + 24 * (header.relocs.count.get() as usize - 1);
        let mut damaged = whole;
        // The last relocation's symbol: everything before it was done by then.
        damaged[last + 8..last + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        subject.with_image("on_packet", damaged)
    };
    let mut unsigned = failing.clone();
    unsigned.signature[40] ^= 1;
    let warm_up = [
        times(300, subject.honest("on_packet")),
        times(300, subject.honest("on_sleep")),
        times(300, failing.clone()),
        times(300, damaged.clone()),
        times(300, unsigned.clone()),
    ];
    let failures = [
        times(700, failing),
        times(700, damaged),
        times(700, unsigned),
    ];
    let cycles = [
        times(5_000, subject.honest("on_packet")),
        times(5_000, subject.honest("on_sleep")),
    ];
    device.probe(&warm_up).unwrap();
    for (what, cases) in [
        ("2,100 failed loads", &failures[..]),
        ("10,000 cycles", &cycles),
    ] {
        let before = device.settled_memory().unwrap();
        device.probe(cases).unwrap();
        let after = device.settled_memory().unwrap();
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            // A leak of one page in ten loads is 840 kB; what breathes in a kernel is less.
            assert!(
                *after < before + 600,
                "{what}: {name} grew from {before} to {after} kB"
            );
            println!("{what}: {name} {before} kB before, {after} kB after");
        }
    }
    device.healthy_log().unwrap();
}

#[test]
fn programs_outlive_the_module() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    device
        .put("/tmp/bundle.pvb", 0o644, subject.bundle.to_bytes())
        .unwrap();
    let pins = "/sys/fs/bpf/refusals";
    device
        .run(&[LOADER, "load", "/tmp/bundle.pvb", "--pin", pins])
        .unwrap();
    device.run(&[BUSYBOX, "rmmod", "bpf_preverified"]).unwrap();
    let run =
        |device: &mut Device| device.test_run(on_packet(&format!("{pins}/on_packet"), &[0; 64], 1));
    for _ in 0..100 {
        let reply = run(&mut device).unwrap();
        const XDP_PASS: u32 = 2;
        assert_eq!((reply.errno, reply.return_value), (0, XDP_PASS));
    }
    device.run(&[LOADER, "unload", pins]).unwrap();
    device.run(&[BUSYBOX, "sleep", "1"]).unwrap();
    device.healthy_log().unwrap();
}

/// Loads a bundle on a device that is no match for its machine code; returns the complaint.
fn complaint(device: &mut Device, bundle: &Bundle) -> String {
    const PINS: &str = "/sys/fs/bpf/x";
    device
        .put("/tmp/bundle.pvb", 0o644, bundle.to_bytes())
        .unwrap();
    let reply = device
        .try_run(&[
            LOADER,
            "load",
            "/tmp/bundle.pvb",
            "--pin",
            PINS,
            "--image",
            "native",
        ])
        .unwrap();
    let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert_eq!(reply.status, 3, "{complaint}");
    let pins = device.run(&[LOADER, "list"]).unwrap();
    assert!(!pins.contains("on_packet"), "{pins}");
    device.healthy_log().unwrap();
    complaint
}

#[test]
fn other_processors_mitigations_and_kernels() {
    let subject = subject();
    let lab = &subject.lab;
    let boot = |options: DeviceOptions| lab.boot(options).unwrap();

    let mut device = boot(DeviceOptions {
        cpu: Some("max,bmi2=off".into()),
        ..DeviceOptions::default()
    });
    let words = complaint(&mut device, &subject.bundle);
    assert!(words.contains("BMI2"), "{words}");

    let mut device = boot(DeviceOptions {
        command_line: Some("mitigations=off".into()),
        ..DeviceOptions::default()
    });
    let words = complaint(&mut device, &subject.bundle);
    assert!(
        words.contains("mitigations") || words.contains("Spectre") || words.contains("etpoline"),
        "{words}"
    );

    let mut device = boot(DeviceOptions {
        max_cpus: Some(16),
        ..DeviceOptions::default()
    });
    let words = complaint(&mut device, &subject.bundle);
    assert!(words.contains("CPU"), "{words}");

    let other = Lab::of("debian:6.1-cloud-amd64").unwrap();
    let mut device = other.boot(DeviceOptions::default()).unwrap();
    let mut resigned = subject.bundle.clone();
    resigned.sign(&other.signer).unwrap();
    let words = complaint(&mut device, &resigned);
    assert!(words.contains("kernel"), "{words}");
}

/// The probe tells the truth: what is honest loads.
#[test]
fn honest_questions_are_answered() {
    let subject = subject();
    let mut device = subject.boot().unwrap();
    let cases = [subject.honest("on_packet"), subject.honest("on_sleep")];
    assert_eq!(device.probe(&cases).unwrap(), [Answer::Done, Answer::Done]);
    assert!(device.run(&[PROBE]).is_err());
    device.healthy_log().unwrap();
}

/// An object with nothing in it that a device could refuse.
#[test]
fn the_subject_has_what_is_checked() {
    let subject = subject();
    let Object { elf, .. } = object("refusals").unwrap();
    assert!(!elf.is_empty());
    let programs = &subject.verified.programs;
    let relocations: usize = programs
        .iter()
        .filter_map(|program| program.native.as_ref())
        .map(|native| native.proof.relocations)
        .sum();
    assert!(relocations > 5);
}
