//! The command as people use it, on a bundle that is made here.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use preverify_abi::image::{Conclusions, Extable, Poke};
use preverify_bundle::{
    Builder, Bundle, Field, Fingerprint, Map, MapUse, Program, SectionKind, Signer, Slot,
    SlotContent, Target,
};
use preverify_image::image::{Form, Function, Image, Machine, Reloc, Symbol, Target as Meant};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn keys_are_made_and_shown() {
    let folder = Folder::new();
    for algorithm in ["rsa-2048", "ecdsa-p256"] {
        let key = folder.path(&format!("{algorithm}.pem"));
        let made = folder.run(&[
            "key",
            "generate",
            "--out",
            &key,
            "--algorithm",
            algorithm,
            "--subject",
            "me",
        ]);
        let certificate = folder.path(&format!("{algorithm}.x509"));
        assert!(
            made.contains("CN=me") && made.contains(&certificate),
            "{made}"
        );
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let shown = folder.run(&["key", "show", &key]);
        assert_eq!(shown, folder.run(&["key", "show", &certificate]));
        let signer = Signer::open(key.as_ref()).unwrap();
        let key_id = signer.certificate().key_id().to_string();
        assert!(
            shown.contains(&key_id) && shown.contains("CN=me"),
            "{shown}"
        );
        assert!(!shown.contains('\x1b'), "colours without a terminal");

        let before = fs::read(&key).unwrap();
        let refused = folder.fail(&["key", "generate", "--out", &key]);
        assert!(refused.contains("is never overwritten"), "{refused}");
        fs::remove_file(&certificate).unwrap();
        let refused = folder.fail(&["key", "generate", "--out", &key]);
        assert!(refused.contains("is never overwritten"), "{refused}");
        assert_eq!(fs::read(&key).unwrap(), before);
        assert!(
            !PathBuf::from(&certificate).exists(),
            "a certificate without a key"
        );
    }
    let refused = folder.fail(&["key", "generate", "--out", &folder.path("some.x509")]);
    assert!(refused.contains("signer.pem"), "{refused}");
    let refused = folder.fail(&["key", "show", &folder.path("nothing")]);
    assert!(refused.contains("caused by: No such file"), "{refused}");
}

#[test]
fn bundles_are_verified() {
    let folder = Folder::new();
    let (bundle, certificate) = folder.signed_bundle();
    let stranger = folder.signer("stranger").1;

    let verified = folder.run(&["verify", &bundle, "--trust", &certificate]);
    assert!(verified.contains("signed by CN=signer"), "{verified}");
    assert!(
        verified.contains("6 sections, 4 images: sound"),
        "{verified}"
    );
    folder.run(&[
        "verify",
        &bundle,
        "--trust",
        &stranger,
        "--trust",
        &certificate,
    ]);

    let refused = folder.fail(&["verify", &bundle, "--trust", &certificate, "--stock-limits"]);
    assert!(
        refused.contains("program count: its verifier's limits were raised"),
        "{refused}"
    );

    let refused = folder.fail(&["verify", &bundle, "--trust", &stranger]);
    assert!(refused.contains("nobody trusted signed"), "{refused}");

    let unsigned = folder.write_bundle("unsigned.pvb", &some_bundle());
    let refused = folder.fail(&["verify", &unsigned, "--trust", &certificate]);
    assert!(refused.contains("is not signed"), "{refused}");

    let bytes = fs::read(&bundle).unwrap();
    let damaged = folder.path("damaged.pvb");
    for byte in 0..bytes.len() {
        if byte % 97 == 0 {
            let mut bytes = bytes.clone();
            bytes[byte] ^= 0x10;
            fs::write(&damaged, bytes).unwrap();
            folder.fail(&["verify", &damaged, "--trust", &certificate]);
        }
    }
}

/// A signature does not make an image sound: what a broken signer signed is refused as well.
#[test]
fn images_are_checked_behind_the_signature() {
    let folder = Folder::new();
    let (signer, certificate) = folder.signer("signer");
    let refusal = |change: fn(&mut Image)| {
        let mut image = some_image();
        change(&mut image);
        let mut bundle = bundle_of(&image, &some_bytecode());
        bundle.sign(&signer).unwrap();
        let path = folder.write_bundle("some.pvb", &bundle);
        folder.fail(&["verify", &path, "--trust", &certificate])
    };
    let refused = refusal(|image| image.functions[0].relocs[1].target = Meant::Map(7));
    assert!(
        refused.contains("refers to map 7, but the program has 2"),
        "{refused}"
    );
    let refused = refusal(|image| image.pokes[0].map = 2.into());
    assert!(
        refused.contains("refers to map 2, but the program has 2"),
        "{refused}"
    );
    let refused = refusal(|image| image.conclusions.cgroup_storage[1] = 9.into());
    assert!(refused.contains("refers to map 9"), "{refused}");
    let refused = refusal(|image| image.functions[0].code[6] = 1);
    assert!(refused.contains("is not zero"), "{refused}");
    let refused = refusal(|image| image.machine = Machine::Arm64);
    assert!(
        refused.contains("the machine code of program count"),
        "{refused}"
    );
    let refused = refusal(|image| *image = some_bytecode());
    assert!(
        refused.contains("expected machine code, found an image of bytecode"),
        "{refused}"
    );
}

/// Bytecode is checked as machine code is, and held against what bytecode can have.
#[test]
fn bytecode_is_checked_behind_the_signature() {
    let folder = Folder::new();
    let (signer, certificate) = folder.signer("signer");
    let refusal = |change: fn(&mut Image)| {
        let mut image = some_bytecode();
        change(&mut image);
        let mut bundle = bundle_of(&some_image(), &image);
        bundle.sign(&signer).unwrap();
        let path = folder.write_bundle("some.pvb", &bundle);
        folder.fail(&["verify", &path, "--trust", &certificate])
    };
    type Change = fn(&mut Image);
    let changes: [(&str, Change); 7] = [
        ("refers to map 7", |image| {
            image.functions[0].relocs[0].target = Meant::Map(7);
        }),
        ("is not zero", |image| image.functions[0].code[4] = 1),
        ("half a wide load", |image| image.functions[0].code[8] = 1),
        ("function that the program does not have", |image| {
            image.functions[0].code[34] = 9;
        }),
        ("address of one of the program's functions", |image| {
            image.functions[0].code[36] = 9;
        }),
        ("does not lie within function 0", |image| {
            image.pokes[0].target = 8.into();
        }),
        (
            "expected an image of bytecode, found one of machine code",
            |image| {
                *image = some_image();
            },
        ),
    ];
    for (what, change) in changes {
        let refused = refusal(change);
        assert!(refused.contains(what), "{what}: {refused}");
        assert!(
            refused.contains("the bytecode of program count"),
            "{refused}"
        );
    }
}

#[test]
fn a_bundle_is_shown() {
    let folder = Folder::new();
    let (bundle, certificate) = folder.signed_bundle();
    let shown = folder.run(&["inspect", &bundle]);
    for expected in [
        "unchecked, names key ",
        "target 0: 6.12.0-test",
        "build id        0102030405",
        "object          count.bpf.o",
        "set before load module nf_conntrack",
        "with limits     64000000 instructions processed, 8192 branches waiting",
        "count: xdp, SEC(\"xdp\\u{1b}[2J\")",
        "attaches to     xdp_devmap",
        "maps            counters, jumps",
        "flags           sleepable",
        "verification    1234 instructions, at most 56 states at a time",
        "machine code    46 bytes in 2 functions",
        "3 relocations: bpf_ktime_get_ns, map \"counters\" (2)",
        "1 instruction whose faults are handled",
        "tail call of jumps[3]",
        "bytecode        72 bytes in 2 functions",
        "2 relocations: bpf_ktime_get_ns, map \"counters\"",
        "proof           46 bytes of machine code, with the 3 addresses of another boot, equal",
        "proof           72 bytes of bytecode, with the 2 addresses of another boot, equal",
        "counters: percpu_array, 16 entries of 4 + 24 bytes",
        "in a value      bpf_timer at 8",
        "use             constants: frozen",
        "jumps[3] = program count",
        "shared by   target 0, machine code of program count; target 1, machine code of program count",
    ] {
        assert!(shown.contains(expected), "{expected:?} in\n{shown}");
    }
    assert!(
        !shown.contains('\x1b'),
        "a stranger's escape sequences, or colours"
    );
    let longest = shown
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap();
    assert!(longest <= 100, "{longest} columns:\n{shown}");

    let shown = folder.run(&["inspect", &bundle, "--trust", &certificate]);
    assert!(shown.contains("valid, by CN=signer"), "{shown}");
}

/// Trust is never claimed: the state says what was checked, and a check that fails fails the
/// command.
#[test]
fn what_is_shown_of_a_signature_was_checked() {
    let folder = Folder::new();
    let (bundle, certificate) = folder.signed_bundle();
    let stranger = folder.signer("stranger").1;
    let unsigned = folder.write_bundle("unsigned.pvb", &some_bundle());
    let mut nonsense = some_bundle();
    nonsense.set_signature(Some(b"nonsense".to_vec()));
    let nonsense = folder.write_bundle("nonsense.pvb", &nonsense);

    for (bundle, trust, state, succeeds) in [
        (&bundle, None, "unchecked", true),
        (&bundle, Some(&certificate), "valid", true),
        (&bundle, Some(&stranger), "invalid", false),
        (&unsigned, None, "unsigned", true),
        (&unsigned, Some(&certificate), "unsigned", false),
        (&nonsense, None, "invalid", true),
        (&nonsense, Some(&certificate), "invalid", false),
    ] {
        let mut arguments = vec!["inspect", bundle, "--json"];
        arguments.extend(trust.iter().flat_map(|trust| ["--trust", trust]));
        let output = folder.output(&arguments);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["signature"]["state"], state, "{bundle} {trust:?}");
        assert_eq!(output.status.success(), succeeds, "{bundle} {trust:?}");
    }
}

#[test]
fn json_has_everything() {
    let folder = Folder::new();
    let (bundle, certificate) = folder.signed_bundle();
    let report = folder.run(&["inspect", &bundle, "--json", "--trust", &certificate]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["signature"]["by"][0]["subject"], "CN=signer");
    let target = &report["targets"][0];
    assert_eq!(target["fingerprint"]["arch"], 62);
    assert_eq!(target["evidence"]["object"], "count.bpf.o");
    let program = &target["programs"][0];
    assert_eq!(program["type"], "xdp");
    assert_eq!(program["elf_section"], "xdp\u{1b}[2J");
    let native = &program["native"];
    assert_eq!(native["symbols"][0]["offset"], 0x1000);
    assert_eq!(native["relocations"][1]["target"], "bpf_ktime_get_ns");
    assert_eq!(native["relocations"][1]["form"], "rel32");
    assert_eq!(native["tail_calls"][0]["key"], 3);
    assert_eq!(native["tail_calls"][0]["offset"], 0x25);
    let bytecode = &program["bytecode"];
    assert_eq!(bytecode["relocations"][0]["form"], "bpf_imm64");
    assert_eq!(
        bytecode["relocations"][0]["instruction"],
        "r1 = map \"counters\""
    );
    assert_eq!(bytecode["relocations"][1]["form"], "bpf_call");
    assert_eq!(bytecode["tail_calls"][0]["offset"], Value::Null);
    assert_eq!(target["maps"][0]["fields"][0]["kind"], "bpf_timer");
    assert_eq!(target["slots"][0]["program"], "count");
    let section = native["section"].as_u64().unwrap();
    let section = &report["sections"][usize::try_from(section).unwrap()];
    assert_eq!(section["kind"], "image");
    assert_eq!(section["users"].as_array().unwrap().len(), 2);
    assert_eq!(section["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn code_is_disassembled() {
    let folder = Folder::new();
    let (bundle, _) = folder.signed_bundle();
    let all = folder.run(&["inspect", &bundle, "--disassemble"]);
    for expected in [
        "count for 6.12.0-test: machine code, 2 functions",
        "function 1, 2 bytes, tag 0000000000000000",
        "     0  f3 0f 1e fa                    endbr64",
        "     e  e8 00 00 00 00                 call bpf_ktime_get_ns",
        "; faults are handled",
        "; patched: tail call 0, key 3",
        "; patched: around tail call 0",
    ] {
        assert!(all.contains(expected), "{expected:?} in\n{all}");
    }
    assert_eq!(
        folder.run(&["inspect", &bundle, "--disassemble=count"]),
        all
    );
    assert_eq!(
        folder.run(&["inspect", &bundle, "--disassemble", "--image", "native"]),
        all
    );
    let bytecode = folder.run(&["inspect", &bundle, "--disassemble", "--image=bytecode"]);
    for expected in [
        "count for 6.12.0-test: bytecode, 2 functions",
        "     0  18 11 00 00 00 00 00 00 00 ..  r1 = map \"counters\"",
        "     2  85 00 00 00 00 00 00 00        call bpf_ktime_get_ns",
        "     3  39 12 08 00 00 00 00 00        r2 = *(u64 *)(r1 +8)  ; faults are handled",
        "     4  85 10 01 00 00 00 00 00        call function 1",
        "call bpf_tail_call, map \"jumps\"[3]",
        "goto pc-2",
    ] {
        assert!(bytecode.contains(expected), "{expected:?} in\n{bytecode}");
    }
    let refused = folder.fail(&["inspect", &bundle, "--disassemble=other"]);
    assert!(
        refused.contains("expected one of the programs count, found \"other\""),
        "{refused}"
    );
}

#[test]
fn what_is_no_bundle_is_refused() {
    let folder = Folder::new();
    let path = folder.path("object.bpf.o");
    fs::write(&path, [&b"\x7fELF"[..], &[0; 100]].concat()).unwrap();
    let refused = folder.fail(&["inspect", &path]);
    assert!(refused.starts_with("error: "), "{refused}");
    assert!(refused.contains("this is something else"), "{refused}");
    let refused = folder.fail(&["inspect", &folder.path("nowhere")]);
    assert!(refused.contains("caused by: No such file"), "{refused}");
}

#[test]
fn help_has_examples_and_wrong_usage_another_exit_code() {
    let folder = Folder::new();
    for command in [&["key", "generate"][..], &["inspect"], &["verify"]] {
        let help = folder.run(&[command, &["--help"]].concat());
        assert!(help.contains("Examples:\n  preverify "), "{help}");
    }
    assert_eq!(
        folder.run(&["--version"]),
        concat!("preverify ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(
        folder.output(&["verify", "some.pvb"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_service_that_has_lost_its_key_does_not_make_another() {
    let folder = Folder::new();
    folder.run(&["key", "generate", "--out", "other.pem"]);
    fs::create_dir(folder.path("state")).unwrap();
    fs::write(folder.path("state/state.db"), "").unwrap();
    let complaint = folder.fail(&["serve", "--state", "state"]);
    assert!(complaint.contains("put back the key"), "{complaint}");
    assert!(!fs::exists(folder.path("state/signer.pem")).unwrap());
    let complaint = folder.fail(&["service", "backup", "--state", "nowhere", "--out", "x.tar"]);
    assert!(complaint.contains("nowhere has no state.db"), "{complaint}");
    let complaint = folder.fail(&["service", "restore", "other.pem", "--state", "new"]);
    assert!(complaint.contains("other.pem is no backup"), "{complaint}");
}

#[test]
fn a_collector_that_cannot_be_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_preverify"))
        .args(["serve", "--state", "unused"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a place")
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("OTEL_EXPORTER_OTLP_"), "{complaint}");
}

fn some_bundle() -> Bundle {
    bundle_of(&some_image(), &some_bytecode())
}

/// A bundle for two targets with the same code.
fn bundle_of(native: &Image, bytecode: &Image) -> Bundle {
    let mut builder = Builder::new();
    for release in ["6.12.0-test", "6.12.1-test"] {
        let target = target(&mut builder, release, native, bytecode);
        builder.target(target);
    }
    builder.finish().unwrap()
}

fn target(builder: &mut Builder, release: &str, native: &Image, bytecode: &Image) -> Target {
    let mut section = |kind, bytes| builder.section(kind, bytes).unwrap();
    let [native, bytecode] = [native, bytecode].map(|image| {
        let sections = image.to_sections().unwrap();
        preverify_bundle::Image {
            image: section(SectionKind::Image, sections.image),
            symbols: Some(section(SectionKind::Symbols, sections.symbols)),
        }
    });
    let evidence = serde_json::json!({
        "object": "count.bpf.o",
        "object_sha256": "00".repeat(32),
        "inputs": { "modules": ["nf_conntrack"] },
        "kernel": {
            "release": release,
            "version": "#1 SMP PREEMPT_DYNAMIC Debian 6.12.0-1 (2025-01-01)",
            "command_line": "console=ttyS0 panic=-1 net.ifnames=0 rdinit=/preverify-agent mitigations=auto",
            "cpu": "max",
        },
        "versions": { "libbpf": "1.5.0", "preverify": "0.1.0" },
        "limits": { "insns": 64_000_000, "jumps": 8192, "length": 16_777_216 },
        "programs": [{
            "function": "count",
            "total_insns": 1234,
            "total_states": 99,
            "peak_states": 56,
            "max_states_per_insn": 3,
            "mark_read": 7,
            "native": { "code_bytes": 46, "relocations": 3 },
            "bytecode": { "code_bytes": 72, "relocations": 2 },
        }],
    });
    Target {
        build_id: vec![1, 2, 3, 4, 5],
        fingerprint: Fingerprint {
            arch: 62.into(),
            page_shift: 12.into(),
            cpu_limit: 4.into(),
            ..Fingerprint::default()
        },
        release: release.to_owned(),
        programs: vec![Program {
            name: "count".to_owned(),
            prog_type: 6,
            expected_attach_type: 33,
            prog_flags: 1 << 4,
            function: "count".to_owned(),
            elf_section: "xdp\u{1b}[2J".to_owned(),
            maps: vec![0, 1],
            native: Some(native),
            bytecode: Some(bytecode),
            processed_insns: 1234,
            peak_states: 56,
            raised_limits: true,
            ..Program::default()
        }],
        maps: vec![
            Map {
                name: "counters".to_owned(),
                full_name: "counters".to_owned(),
                map_type: 6,
                key_size: 4,
                value_size: 24,
                max_entries: 16,
                fields: vec![Field {
                    offset: 8.into(),
                    size: 16.into(),
                    kind: 2.into(),
                    ..Field::default()
                }],
                ..Map::default()
            },
            Map {
                name: "jumps".to_owned(),
                full_name: "jumps".to_owned(),
                map_type: 3,
                key_size: 4,
                value_size: 4,
                max_entries: 8,
                ..Map::default()
            },
            Map {
                name: "count.rodata".to_owned(),
                full_name: ".rodata".to_owned(),
                map_type: 2,
                key_size: 4,
                value_size: 5,
                max_entries: 1,
                map_flags: 0x480,
                usage: MapUse::Constant,
                contents: Some(section(SectionKind::Contents, b"12345".to_vec())),
                ..Map::default()
            },
        ],
        slots: vec![Slot {
            map: 1,
            key: 3,
            content: SlotContent::Program(0),
        }],
        btf: None,
        evidence: Some(section(
            SectionKind::Evidence,
            evidence.to_string().into_bytes(),
        )),
    }
}

/// Something of everything.
fn some_image() -> Image {
    let code = [
        &[0xf3, 0x0f, 0x1e, 0xfa][..],         // 0x00 endbr64
        &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0], // 0x04 mov rax, map
        &[0xe8, 0, 0, 0, 0],                   // 0x0e call
        &[0x48, 0xbe, 0, 0, 0, 0, 0, 0, 0, 0], // 0x13 mov rsi, map
        &[0x48, 0x8b, 0x00],                   // 0x1d mov rax, [rax]
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],       // 0x20 nop, patched
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],       // 0x25 nop, patched
        &[0xc3, 0xcc],                         // 0x2a ret
    ]
    .concat();
    let reloc = |offset, form, target, addend| Reloc {
        offset,
        form,
        target,
        addend,
    };
    let function = |code, relocs, extable| Function {
        tag: [0; 8],
        code,
        relocs,
        extable,
        stack_depth: 8,
        flags: 0,
    };
    Image {
        machine: Machine::X86_64,
        conclusions: Conclusions {
            stack_depth: 8.into(),
            cgroup_storage: [u32::MAX.into(); 2],
            ..Conclusions::default()
        },
        functions: vec![
            function(
                code,
                vec![
                    reloc(6, Form::Abs64, Meant::Map(0), 0),
                    reloc(15, Form::Rel32, Meant::Symbol(0), -4),
                    reloc(21, Form::Abs64, Meant::Map(0), 0),
                ],
                vec![Extable {
                    offset: 0x1d.into(),
                    ..Extable::default()
                }],
            ),
            function(vec![0xc3, 0xcc], Vec::new(), Vec::new()),
        ],
        pokes: vec![Poke {
            bypass: 0x20.into(),
            target: 0x25.into(),
            bypass_target: 0x2a.into(),
            map: 1.into(),
            key: 3.into(),
            ..Poke::default()
        }],
        xlated: Vec::new(),
        symbols: vec![Symbol::Text {
            name: "bpf_ktime_get_ns".to_owned(),
            offset: 0x1000,
        }],
    }
}

/// The same as bytecode.
fn some_bytecode() -> Image {
    let native = some_image();
    let code = [
        [0x18, 0x11, 0, 0, 0, 0, 0, 0], // 0: r1 = map
        [0; 8],
        [0x85, 0, 0, 0, 0, 0, 0, 0],    // 2: call a helper
        [0x39, 0x12, 8, 0, 0, 0, 0, 0], // 3: r2 = *(u64 *)(r1 +8), guarded
        [0x85, 0x10, 1, 0, 0, 0, 0, 0], // 4: call function 1
        [0xf5, 0, 0, 0, 1, 0, 0, 0],    // 5: tail call
        [0x05, 0, 0xfe, 0xff, 0, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let reloc = |offset, form, target| Reloc {
        offset,
        form,
        target,
        addend: 0,
    };
    let mut functions = native.functions;
    functions[0].code = code.concat();
    functions[0].relocs = vec![
        reloc(0, Form::BpfImm64, Meant::Map(0)),
        reloc(16, Form::BpfCall, Meant::Symbol(0)),
    ];
    functions[0].extable.clear();
    functions[1].code = vec![0x95, 0, 0, 0, 0, 0, 0, 0];
    Image {
        machine: Machine::Bpf,
        functions,
        pokes: vec![Poke {
            map: 1.into(),
            key: 3.into(),
            ..Poke::default()
        }],
        ..native
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write_bundle(&self, name: &str, bundle: &Bundle) -> String {
        let path = self.path(name);
        bundle.write(path.as_ref()).unwrap();
        path
    }

    /// A signer, and the file of its certificate.
    fn signer(&self, name: &str) -> (Signer, String) {
        let key = self.path(&format!("{name}.pem"));
        self.run(&[
            "key",
            "generate",
            "--out",
            &key,
            "--subject",
            name,
            "--algorithm",
            "ecdsa-p256",
        ]);
        let certificate = self.path(&format!("{name}.x509"));
        (Signer::open(key.as_ref()).unwrap(), certificate)
    }

    /// The files of a signed bundle and its signer's certificate.
    fn signed_bundle(&self) -> (String, String) {
        let (signer, certificate) = self.signer("signer");
        let mut bundle = some_bundle();
        bundle.sign(&signer).unwrap();
        (self.write_bundle("signed.pvb", &bundle), certificate)
    }

    /// What the command prints, if it succeeds.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the command complains about, if it fails.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_preverify"))
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap()
    }
}
