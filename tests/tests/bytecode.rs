#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Verified bytecode on a device: compiled by its own kernel it does what machine code from the bundle does, also
//! where machine code does not fit; and damaged bytecode harms nothing, whoever signed it.

use preverify_abi::image::{IMAGE_BYTECODE, IMAGE_NATIVE, ImageHeader, Poke, Reloc};
use preverify_abi::ioctl::{OPEN_BYTECODE, OPEN_NATIVE};
use preverify_lab::{
    BUSYBOX, Device, LOADER, Lab, Subject, assert_reason, assert_refused, image, is_refused,
    object, pinned,
};
use preverify_probe::{Answer, Case};
use preverify_protocol::{TestRunReply, TestRunRequest};
use preverify_target::DeviceOptions;
use zerocopy::{FromBytes, IntoBytes};

const OLD: &str = "debian:6.1-cloud-amd64";
const BUNDLE: &str = "/tmp/bytecode.pvb";
const HARDEN: &str = "/proc/sys/net/core/bpf_jit_harden";

const EBADMSG: i32 = 74;
const EINVAL: i32 = 22;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EOPNOTSUPP: i32 = 95;

/// Programs of `bytecode.bpf.c` that take packets.
const ON_PACKETS: [&str; 9] = [
    "alone",
    "constants",
    "several",
    "callbacks",
    "landed",
    "landed_elsewhere",
    "jumps",
    "jumps_anywhere",
    "functions_jump",
];
/// Its other programs, and what they return.
const ON_NOTHING: [(&str, u32); 3] = [("reads", 1), ("functions_read", 1), ("symbols", 1)];

/// The same on 6.12 and 6.1.
#[test]
fn bytecode_does_what_machine_code_does() {
    for target in [preverify_lab::TARGET, OLD] {
        let lab = Lab::of(target).unwrap();
        let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
        put_bundle(&lab, &mut device, "bytecode");
        let native = load(&mut device, "native");
        let bytecode = load(&mut device, "bytecode");
        assert_eq!(native, bytecode, "{target}: sizes of machine code");
        // What programs do depends on what they left in their maps.
        load_as(&mut device, "native", "fresh");

        set_harden(&mut device, 2);
        let blinded = load_as(&mut device, "bytecode", "blinded");
        let larger = |name: &str| size(&blinded, name) > size(&bytecode, name);
        for name in ["alone", "constants", "several", "callbacks"] {
            assert!(larger(name), "{target}: {name} is not blinded");
        }
        compare(&mut device, &["native", "bytecode", "blinded"]);
        // Constants of those who are allowed everything are not blinded.
        set_harden(&mut device, 1);
        assert_eq!(load_as(&mut device, "bytecode", "again"), bytecode);
        compare(&mut device, &["fresh", "again"]);
        for pins in ["native", "bytecode", "blinded", "fresh", "again"] {
            unload(&mut device, pins);
        }
        device.healthy_log().unwrap();
    }
}

#[test]
fn faults_and_kernel_functions() {
    let lab = Lab::new().unwrap();
    let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
    put_bundle(&lab, &mut device, "bytecode_new");
    assert_eq!(load(&mut device, "native"), load(&mut device, "bytecode"));
    set_harden(&mut device, 2);
    load_as(&mut device, "bytecode", "blinded");
    for pins in ["native", "bytecode", "blinded"] {
        for (program, result) in [("faults", 40), ("functions_fault", 50), ("finds_init", 1)] {
            let reply = run(&mut device, pins, program, &[0; 64]);
            assert_eq!(reply.return_value, result, "{program} of {pins}");
        }
    }
    device.healthy_log().unwrap();
}

/// What a slot holds is patched into the code: what it held when the program was loaded, and what comes later.
#[test]
fn tail_calls_follow_their_slots() {
    const LANDED: u32 = 100;
    const STAYED: u32 = 1;
    let lab = Lab::new().unwrap();
    let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
    put_bundle(&lab, &mut device, "bytecode");
    // The prog array is pinned where the object wants it: the first load fills it after its programs are
    // compiled, the second one finds it filled.
    load(&mut device, "bytecode");
    load_as(&mut device, "bytecode", "later");
    let lands = |device: &mut Device, pins: &str| {
        let [jumps, functions] = ["jumps", "functions_jump"]
            .map(|program| run(device, pins, program, &[0; 64]).return_value);
        assert_eq!(functions, 1000 + elsewhere(0, 0) + 3 * LANDED);
        assert_eq!(jumps, LANDED);
    };
    for pins in ["bytecode", "later"] {
        lands(&mut device, pins);
    }
    // A prog array is emptied when no process and no pin has it any more: its programs go on without.
    device
        .run(&[BUSYBOX, "rm", "/sys/fs/bpf/landings"])
        .unwrap();
    for pins in ["bytecode", "later"] {
        let map = format!("/sys/fs/bpf/{pins}/maps/landings");
        device.run(&[BUSYBOX, "rm", &map]).unwrap();
    }
    device.run(&[BUSYBOX, "sleep", "1"]).unwrap();
    for pins in ["bytecode", "later"] {
        let reply = run(&mut device, pins, "jumps", &[0; 64]);
        assert_eq!(reply.return_value, STAYED, "{pins}");
        let reply = run(&mut device, pins, "functions_jump", &[0; 64]);
        assert_eq!(reply.return_value, 1000 + 3 + 3 * 4, "{pins}");
    }
    device.healthy_log().unwrap();
}

/// Machine code does not fit, and the device says why; bytecode does.
#[test]
fn other_processors_take_bytecode() {
    let lab = Lab::new().unwrap();
    let mut device = lab
        .boot_for_probes(DeviceOptions {
            cpu: Some("max,bmi2=off".into()),
            ..DeviceOptions::default()
        })
        .unwrap();
    put_bundle(&lab, &mut device, "bytecode");
    let command = [LOADER, "load", BUNDLE, "--pin", "/sys/fs/bpf/best"];
    let said = device.run(&command).unwrap();
    assert!(said.contains("BMI2"), "{said}");
    let pins = device.run(&[LOADER, "list", "/sys/fs/bpf/best"]).unwrap();
    assert!(
        pins.contains("bytecode") && !pins.contains("native"),
        "{pins}"
    );
    compare(&mut device, &["best"]);

    let subject = Subject::new(lab, "bytecode", IMAGE_BYTECODE).unwrap();
    let open = Case {
        load: None,
        ..subject.honest("alone")
    };
    let mut native = subject.honest("alone");
    native.load.as_mut().unwrap().kind = IMAGE_NATIVE;
    let mut device = subject
        .lab
        .boot_for_probes(DeviceOptions {
            cpu: Some("max,bmi2=off".into()),
            ..DeviceOptions::default()
        })
        .unwrap();
    let answers = device
        .probe(&[open, subject.honest("alone"), native])
        .unwrap();
    let Answer::Opened { fit, reason } = &answers[0] else {
        panic!("{answers:?}");
    };
    assert_eq!(*fit, OPEN_BYTECODE);
    assert!(reason.contains("BMI2"), "{reason}");
    assert_eq!(answers[1], Answer::Done);
    assert_reason(&answers[2], ENOEXEC, "BMI2");
    device.healthy_log().unwrap();
}

/// A device whose setting changes after the bundle was opened, or before.
#[test]
fn each_load_asks_again_what_fits() {
    let subject = subject("bytecode");
    let mut device = subject.boot().unwrap();
    let open = Case {
        load: None,
        ..subject.honest("alone")
    };
    let fit = |answer: &Answer| match answer {
        Answer::Opened { fit, reason } => (*fit, reason.clone()),
        other => panic!("{other:?}"),
    };
    let answers = device.probe(std::slice::from_ref(&open)).unwrap();
    assert_eq!(
        fit(&answers[0]),
        (OPEN_NATIVE | OPEN_BYTECODE, String::new())
    );
    set_harden(&mut device, 2);
    let answers = device.probe(&[open]).unwrap();
    let (images, reason) = fit(&answers[0]);
    assert_eq!(images, OPEN_BYTECODE);
    assert!(reason.contains("bpf_jit_harden 0"), "{reason}");
    device.healthy_log().unwrap();
}

/// Whatever the damage: what is not refused is compiled, and closed. Nothing of it runs.
#[test]
fn damaged_bytecode_with_good_signatures_harms_nothing() {
    for (target, programs) in [
        (
            preverify_lab::TARGET,
            &["callbacks", "functions_jump", "functions_read"][..],
        ),
        (OLD, &["functions_jump"]),
    ] {
        let subject = Subject::new(Lab::of(target).unwrap(), "bytecode", IMAGE_BYTECODE).unwrap();
        let mut device = subject.boot().unwrap();
        for harden in [0, 2] {
            set_harden(&mut device, harden);
            for program in programs {
                let whole = image(&subject.honest(program));
                let header = ImageHeader::read_from_prefix(&whole).unwrap().0;
                // What stands behind it is only shown.
                let shown = header.xlated.offset.get() as usize;
                let cases: Vec<_> = (0..shown)
                    .flat_map(|index| [0x01, 0x10, 0xff].map(|mask| (index, mask)))
                    .map(|(index, mask)| {
                        let mut damaged = whole.clone();
                        damaged[index] ^= mask;
                        subject.with_image(program, damaged)
                    })
                    .collect();
                let answers = device.probe(&cases).unwrap();
                let refused = answers.iter().filter(|answer| is_refused(answer)).count();
                for answer in answers.iter().filter(|answer| is_refused(answer)) {
                    assert_refused(answer, program);
                }
                println!(
                    "{target}, harden {harden}: {refused} of {} damaged images of {program} are refused",
                    answers.len()
                );
                // Constants and offsets of memory, tags and numbers that are only shown are anybody's guess.
                assert!(refused * 6 > answers.len(), "only {refused}");
            }
        }
        // The compiler may say what it does not know.
        device.healthy_log().unwrap();
    }
}

#[test]
fn bytecode_that_is_cut_off() {
    let subject = subject("bytecode");
    let mut device = subject.boot().unwrap();
    let whole = image(&subject.honest("functions_jump"));
    let mut cases = Vec::new();
    for size in (0..whole.len()).step_by(4) {
        let mut cut = whole[..size].to_vec();
        cases.push(subject.with_image("functions_jump", cut.clone()));
        if size >= 16 {
            cut[12..16].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
            cases.push(subject.with_image("functions_jump", cut));
        }
    }
    for (index, answer) in device.probe(&cases).unwrap().iter().enumerate() {
        assert_refused(answer, &format!("cut {index}"));
    }
    device.healthy_log().unwrap();
}

/// One instruction, relocation or number that is wrong.
#[test]
fn what_a_compiler_would_trust() {
    let subject = subject("bytecode");
    let mut device = subject.boot().unwrap();
    let mut cases = Vec::new();
    let mut add = |what: &str, program: &str, change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(image(&subject.honest(program)));
        change(&mut draft);
        cases.push((what.to_owned(), subject.with_image(program, draft.bytes)));
    };

    add("the kind of the image", "alone", &|draft| {
        draft.bytes[20] = 1
    });
    add("an ELF machine", "alone", &|draft| draft.bytes[16] = 62);
    for (what, register) in [("a register of the compiler's", 12), ("no register", 15)] {
        add(what, "alone", &|draft| {
            let at = draft.find(|insn| insn.code == MOV64);
            draft.insn(at, |insn| insn.registers = register);
        });
        add(what, "alone", &|draft| {
            let at = draft.find(|insn| insn.code == MOV64);
            draft.insn(at, |insn| insn.registers = register << 4);
        });
    }
    for offset in [i16::MAX, i16::MIN, 3000, -3000] {
        add("a jump out of the function", "alone", &|draft| {
            let at = draft.find(|insn| insn.code & 7 == JMP && insn.off > 0);
            draft.insn(at, |insn| insn.off = offset);
        });
        add("a tail call that jumps", "jumps", &|draft| {
            let at = draft.find(|insn| insn.code == TAIL_CALL);
            draft.insn(at, |insn| insn.off = offset);
        });
    }
    add("a jump into a wide load", "alone", &|draft| {
        let wide = draft.find(|insn| insn.code == WIDE);
        let at = draft.find(|insn| insn.code & 7 == JMP && insn.off > 0);
        draft.insn(at, |insn| {
            insn.off = i16::try_from(wide).unwrap() - i16::try_from(at).unwrap();
        });
    });
    for (what, code) in [
        ("an unknown opcode", 0xff),
        ("a load from a packet as of old", 0x20),
        ("a second half alone", 0x00),
        ("a load from an arena", 0xa1),
        ("an unknown jump", 0x8e),
    ] {
        add(what, "alone", &|draft| {
            let at = draft.find(|insn| insn.code == MOV64);
            draft.insn(at, |insn| insn.code = code);
        });
    }
    add("half a wide load at the end", "alone", &|draft| {
        let last = draft.count() - 1;
        draft.insn(last, |insn| insn.code = WIDE);
    });
    add("an end that runs on", "alone", &|draft| {
        let last = draft.count() - 1;
        draft.insn(last, |insn| insn.code = MOV64);
    });
    add("a second half with a register", "alone", &|draft| {
        let at = draft.find(|insn| insn.code == WIDE);
        draft.insn(at + 1, |insn| insn.registers = 1);
    });
    for function in [0, -1, 5, 257, i16::MAX] {
        add("a call of no function", "several", &|draft| {
            let at = draft.find(|insn| insn.code == CALL && insn.registers >> 4 == 1);
            draft.insn(at, |insn| insn.off = function);
        });
        add("the address of no function", "callbacks", &|draft| {
            let at = draft.find(|insn| insn.code == WIDE && insn.registers >> 4 == 4);
            draft.insn(at, |insn| insn.off = function);
        });
    }
    add("a call with an address", "several", &|draft| {
        let at = draft.find(|insn| insn.code == CALL && insn.registers >> 4 == 1);
        draft.insn(at, |insn| insn.imm = 4096);
    });
    add("a function's address", "callbacks", &|draft| {
        let at = draft.find(|insn| insn.code == WIDE && insn.registers >> 4 == 4);
        draft.insn(at + 1, |insn| insn.imm = -1);
    });
    add(
        "a call within a program of one function",
        "alone",
        &|draft| {
            let at = draft.find(|insn| insn.code == CALL);
            draft.insn(at, |insn| {
                insn.registers = 1 << 4;
                insn.off = 0;
            });
        },
    );
    add("a kernel function's address", "alone", &|draft| {
        let at = draft.find(|insn| insn.code == CALL);
        draft.insn(at, |insn| insn.imm = 4096);
    });
    add("a call of an unknown kind", "alone", &|draft| {
        let at = draft.find(|insn| insn.code == CALL);
        draft.insn(at, |insn| insn.registers = 3 << 4);
    });
    for number in [3, -1, i32::MAX, i32::MIN, 2] {
        add("a tail call of another's number", "jumps", &|draft| {
            let at = draft.find(|insn| insn.code == TAIL_CALL && insn.imm == 1);
            draft.insn(at, |insn| insn.imm = number);
        });
    }
    add("a tail call that nobody makes", "jumps", &|draft| {
        let at = draft.find(|insn| insn.code == TAIL_CALL && insn.imm == 2);
        draft.insn(at, |insn| insn.imm = 0);
    });
    for (what, change) in POKES {
        add(what, "functions_jump", &|draft| {
            draft.record::<Poke>(draft.header().pokes, 0, change);
        });
    }
    for (what, change) in RELOCS {
        add(what, "alone", &|draft| {
            draft.record::<Reloc>(draft.header().relocs, 0, change);
        });
    }
    add("an address in a call's place", "alone", &|draft| {
        let relocs = draft.header().relocs;
        let count = relocs.count.get();
        let calls = (0..count).filter(|&at| draft.read::<Reloc>(relocs, at).form == FORM_CALL);
        let call = calls.max().unwrap();
        draft.record::<Reloc>(relocs, call, |reloc| reloc.form.set(FORM_WIDE));
    });
    add("a stack that is too deep", "several", &|draft| {
        let at = draft.header().functions.offset.get() as usize + 32;
        draft.bytes[at..at + 4].copy_from_slice(&1025_u32.to_le_bytes());
    });

    let (what, cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for (what, answer) in what.iter().zip(device.probe(&cases).unwrap()) {
        assert!(matches!(answer, Answer::NotLoaded(_)), "{what}: {answer:?}");
        assert_refused(&answer, what);
    }
    device.healthy_log().unwrap();
}

#[test]
fn kinds_of_images_are_not_mixed_up() {
    let subject = subject("bytecode");
    let mut device = subject.boot().unwrap();
    let mut unknown = subject.honest("alone");
    unknown.load.as_mut().unwrap().kind = 3;
    let mut other_section = subject.honest("alone");
    other_section.load.as_mut().unwrap().kind = IMAGE_NATIVE;
    let mut draft = Draft::new(image(&subject.honest("alone")));
    draft.bytes[20] = 1;
    let mixed_up = subject.with_image("alone", draft.bytes);
    let honest = subject.honest("alone");
    let without = subject.without_bytecode().unwrap().honest("alone");
    let missing = Case {
        load: honest.load.clone(),
        ..without
    };
    let answers = device
        .probe(&[honest, unknown, other_section, mixed_up, missing])
        .unwrap();
    assert_eq!(answers[0], Answer::Done);
    assert_reason(&answers[1], EINVAL, "kind 3");
    assert_reason(&answers[2], EBADMSG, "bytes");
    assert_reason(&answers[3], EBADMSG, "kind 1, not 2");
    assert_reason(&answers[4], ENOENT, "no bytecode");
    device.healthy_log().unwrap();
}

#[test]
fn nothing_of_bytecode_leaks() {
    let subject = subject("bytecode");
    let mut device = subject.boot().unwrap();
    let times = |times: u32, case: Case| Case { times, ..case };
    let programs = ["alone", "callbacks", "functions_jump", "functions_read"];
    // The compiler refuses the last function, when it has compiled the others.
    let unknown_to_the_compiler = |program: &str| {
        let mut draft = Draft::new(image(&subject.honest(program)));
        let moves = (0..draft.count()).filter(|&index| draft.get(index).code == MOV64);
        let last = moves.max().unwrap();
        draft.insn(last, |insn| *insn = Insn::MAY_GOTO);
        subject.with_image(program, draft.bytes)
    };
    let refused = device
        .probe(&programs.map(unknown_to_the_compiler))
        .unwrap();
    for answer in &refused {
        assert_reason(answer, EOPNOTSUPP, "does not compile function");
    }
    for harden in [0, 2] {
        set_harden(&mut device, harden);
        let loads = |count: u32| programs.map(|program| times(count, subject.honest(program)));
        let failures =
            |count: u32| programs.map(|program| times(count, unknown_to_the_compiler(program)));
        device.probe(&loads(150)).unwrap();
        device.probe(&failures(150)).unwrap();
        for (what, cases) in [("loads", loads(500)), ("failures", failures(500))] {
            let before = device.settled_memory().unwrap();
            device.probe(&cases).unwrap();
            let after = device.settled_memory().unwrap();
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                println!("harden {harden}, 2,000 {what}: {name} {before} kB, then {after} kB");
                // A leak of one page in ten loads is 800 kB; what breathes in a kernel is less.
                assert!(*after < before + 600, "{what}: {name} grew");
            }
        }
    }
    device.healthy_log().unwrap();
}

// The rest is how the questions are put.

fn subject(name: &str) -> Subject {
    Subject::new(Lab::new().unwrap(), name, IMAGE_BYTECODE).unwrap()
}

fn put_bundle(lab: &Lab, device: &mut Device, name: &str) {
    let verified = lab.verify(&object(name).unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
}

/// Loads all programs from images of this kind, and pins them in a folder of that name; returns the sizes of
/// their machine code.
fn load(device: &mut Device, kind: &str) -> Vec<(String, u64)> {
    load_as(device, kind, kind)
}

fn load_as(device: &mut Device, kind: &str, name: &str) -> Vec<(String, u64)> {
    let pins = format!("/sys/fs/bpf/{name}");
    device
        .run(&[LOADER, "load", BUNDLE, "--pin", &pins, "--image", kind])
        .unwrap();
    let text = device.run(&[LOADER, "list", &pins, "--json"]).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let programs = found.as_array().unwrap().iter();
    let programs = programs.filter(|pin| pin["kind"] == "program");
    let mut sizes: Vec<_> = programs
        .map(|program| {
            assert_eq!(program["image"], kind, "{text}");
            let path = program["path"].as_str().unwrap();
            let name = path[pins.len() + 1..].to_owned();
            (name, program["jited_size"].as_u64().unwrap())
        })
        .collect();
    sizes.sort();
    sizes
}

fn unload(device: &mut Device, name: &str) {
    device
        .run(&[LOADER, "unload", &format!("/sys/fs/bpf/{name}")])
        .unwrap();
}

fn size(sizes: &[(String, u64)], name: &str) -> u64 {
    sizes.iter().find(|(found, _)| found == name).unwrap().1
}

fn set_harden(device: &mut Device, value: u32) {
    let command = format!("echo {value} > {HARDEN}");
    device.run(&[BUSYBOX, "sh", "-c", &command]).unwrap();
}

/// All programs on the same packets: they return the same, and leave the same in them.
fn compare(device: &mut Device, pins: &[&str]) {
    let packets: [[u8; 64]; 3] = [
        [0; 64],
        std::array::from_fn(|byte| u8::try_from(byte * 37 % 251).unwrap()),
        std::array::from_fn(|byte| [0x81, 3, 0xff, 7, 0x40, 9, 1, 2][byte % 8]),
    ];
    for packet in packets {
        for program in ON_PACKETS {
            let results: Vec<_> = pins
                .iter()
                .map(|pins| {
                    let reply = run(device, pins, program, &packet);
                    (reply.return_value, reply.data_out)
                })
                .collect();
            for (pins, result) in pins.iter().zip(&results) {
                assert_eq!(*result, results[0], "{program} of {pins}");
            }
            if program == "landed_elsewhere" {
                let expected = elsewhere(packet[0], packet[1]);
                assert_eq!(results[0].0, expected);
            }
        }
    }
    for pins in pins {
        for (program, result) in ON_NOTHING {
            let reply = run(device, pins, program, &[]);
            assert_eq!(reply.return_value, result, "{program} of {pins}");
        }
    }
}

/// What `landed_elsewhere` returns.
fn elsewhere(first: u8, second: u8) -> u32 {
    200 + ((u32::from(first) ^ 0x5555) * 31 + u32::from(second)) % 50
}

fn run(device: &mut Device, pins: &str, program: &str, packet: &[u8]) -> TestRunReply {
    let reply = device
        .test_run(TestRunRequest {
            program: pinned(&format!("/sys/fs/bpf/{pins}/{program}")),
            data_in: (!packet.is_empty()).then(|| packet.to_vec()),
            context_in: None,
            repeat: 0,
            flags: 0,
            data_out_size: u32::try_from(packet.len()).unwrap(),
        })
        .unwrap();
    assert_eq!(reply.errno, 0, "{program} of {pins}");
    reply
}

const JMP: u8 = 0x05;
const CALL: u8 = 0x85;
const TAIL_CALL: u8 = 0xf5;
const WIDE: u8 = 0x18;
const MOV64: u8 = 0xbf;
const FORM_WIDE: u16 = preverify_abi::image::FORM_BPF_IMM64;
const FORM_CALL: u16 = preverify_abi::image::FORM_BPF_CALL;

/// `struct bpf_insn`.
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    registers: u8,
    off: i16,
    imm: i32,
}

impl Insn {
    /// The verifier replaces it; the kernel's table of instructions has it.
    const MAY_GOTO: Self = Self {
        code: 0xe5,
        registers: 0,
        off: 0,
        imm: 0,
    };
}

/// An image that is being changed.
struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    fn header(&self) -> ImageHeader {
        ImageHeader::read_from_prefix(&self.bytes).unwrap().0
    }

    /// The number of instructions.
    fn count(&self) -> usize {
        self.header().code.count.get() as usize / 8
    }

    fn at(&self, index: usize) -> std::ops::Range<usize> {
        let start = self.header().code.offset.get() as usize + 8 * index;
        start..start + 8
    }

    fn get(&self, index: usize) -> Insn {
        let [code, registers, o0, o1, i0, i1, i2, i3] =
            self.bytes[self.at(index)].try_into().unwrap();
        Insn {
            code,
            registers,
            off: i16::from_le_bytes([o0, o1]),
            imm: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    fn insn(&mut self, index: usize, change: impl FnOnce(&mut Insn)) {
        let mut insn = self.get(index);
        change(&mut insn);
        let [o0, o1] = insn.off.to_le_bytes();
        let [i0, i1, i2, i3] = insn.imm.to_le_bytes();
        let at = self.at(index);
        self.bytes[at].copy_from_slice(&[insn.code, insn.registers, o0, o1, i0, i1, i2, i3]);
    }

    /// The first such instruction.
    fn find(&self, is_wanted: impl Fn(Insn) -> bool) -> usize {
        (0..self.count())
            .find(|&index| is_wanted(self.get(index)))
            .expect("the program has such an instruction")
    }

    fn read<T: FromBytes>(&self, table: preverify_abi::Table, index: u32) -> T {
        let start = table.offset.get() as usize + size_of::<T>() * index as usize;
        T::read_from_prefix(&self.bytes[start..]).ok().unwrap().0
    }

    fn record<T: FromBytes + IntoBytes + zerocopy::Immutable>(
        &mut self,
        table: preverify_abi::Table,
        index: u32,
        change: impl Fn(&mut T),
    ) {
        let mut record: T = self.read(table, index);
        change(&mut record);
        let start = table.offset.get() as usize + size_of::<T>() * index as usize;
        self.bytes[start..start + size_of::<T>()].copy_from_slice(record.as_bytes());
    }
}

type Change<T> = (&'static str, fn(&mut T));

const POKES: [Change<Poke>; 8] = [
    ("a tail call of another function", |poke| {
        poke.function.set(0);
    }),
    ("a tail call of no function", |poke| poke.function.set(77)),
    ("a place to patch", |poke| poke.target.set(5)),
    ("a place around it", |poke| poke.bypass.set(5)),
    ("a place behind it", |poke| poke.bypass_target.set(5)),
    ("a tail call through no map", |poke| poke.map.set(77)),
    ("a tail call through another map", |poke| {
        poke.map.set(u32::MAX)
    }),
    ("a tail call beyond the slots", |poke| poke.key.set(8)),
];

const RELOCS: [Change<Reloc>; 10] = [
    ("an address within an instruction", |reloc| {
        reloc.offset.set(reloc.offset.get() + 4);
    }),
    ("an address in another instruction", |reloc| {
        reloc.offset.set(reloc.offset.get() + 8);
    }),
    ("an address outside the code", |reloc| {
        reloc.offset.set(u32::MAX - 7);
    }),
    ("a form of machine code", |reloc| reloc.form.set(3)),
    ("an unknown form", |reloc| reloc.form.set(99)),
    ("an address of nothing", |reloc| reloc.kind.set(1)),
    ("a function's address", |reloc| {
        reloc.kind.set(5);
        reloc.index.set(0);
    }),
    ("an unknown kind of address", |reloc| reloc.kind.set(99)),
    ("no such symbol or map", |reloc| reloc.index.set(u32::MAX)),
    ("something that is reserved", |reloc| reloc.reserved.set(1)),
];
