//! What there is to tell about a bundle: plain data, and its JSON.

use std::io::{self, Write};

use preverify_abi::ABI_VERSION;
use preverify_abi::kinds::{AttachType, MapType, ProgramType};
use preverify_bundle::{
    AttachTarget, Bundle, Fingerprint, KeyId, Map, MapUse, Program, SectionId, Signed, SlotContent,
    Target, VerifyError,
};
use preverify_image::image::{Form, Image, Machine, Symbol};
use preverify_image::{Relocation, disassemble};
use preverify_pipeline::ImageKind;
use preverify_target::fingerprint_words;
use serde::Serialize;
use serde_json::Value;

use crate::images::{self, ImageProblem};
use crate::words;

/// A bundle.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// The file, or what else it is called.
    pub file: String,
    /// Its size.
    pub bytes: usize,
    /// The version of the format.
    pub abi_version: u32,
    /// What can be said about the signature.
    pub signature: SignatureReport,
    /// The kernels that it is for, in the bundle's order.
    pub targets: Vec<TargetReport>,
    /// Its sections, in the bundle's order.
    pub sections: Vec<SectionReport>,
}

/// What can be said about the signature.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum SignatureReport {
    /// There is none.
    Unsigned,
    /// Nobody said whom to trust.
    Unchecked {
        /// The keys that it names, which anyone can write.
        claimed_key_ids: Vec<String>,
    },
    /// Trusted keys signed.
    Valid {
        /// Them.
        by: Vec<SignerReport>,
        /// Keys that it names beside.
        unknown_key_ids: Vec<String>,
    },
    /// No trusted key signed, or the signature is about something else.
    Invalid {
        /// What is wrong.
        problem: String,
    },
}

/// A trusted signer.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignerReport {
    /// The certificate's subject.
    pub subject: String,
    /// The kind of key.
    pub key: String,
    /// The key's identifier, in hexadecimal.
    pub key_id: String,
}

/// A kernel on a kind of machine.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TargetReport {
    /// `uname -r`.
    pub release: String,
    /// The kernel's GNU build id, in hexadecimal.
    pub build_id: String,
    /// What verification and code generation depended on.
    pub fingerprint: FingerprintReport,
    /// The same for people.
    #[serde(skip)]
    pub fingerprint_words: Vec<(&'static str, String)>,
    /// The evidence, as the bundle has it.
    pub evidence: Option<Value>,
    /// The programs.
    pub programs: Vec<ProgramReport>,
    /// The maps.
    pub maps: Vec<MapReport>,
    /// What arrays hold from the start.
    pub slots: Vec<SlotReport>,
    /// The section with the object's BTF.
    pub btf_section: Option<usize>,
    /// The section with the evidence.
    pub evidence_section: Option<usize>,
}

/// The numbers that a device compares with its own.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FingerprintReport {
    /// ELF machine number.
    pub arch: u32,
    /// The page size, as a power of two.
    pub page_shift: u32,
    /// Bits of an address.
    pub va_bits: u32,
    /// CPUs that the device may have.
    pub cpu_limit: u32,
    /// `JIT_*` bits: what the CPU has that the JIT compiler uses.
    pub jit_flags: u64,
    /// `POLICY_*` bits.
    pub policy: u64,
    /// What functions return through, as an offset from `_text`; zero if they return plainly.
    pub return_thunk: u64,
    /// `net.core.bpf_jit_harden`.
    pub jit_harden: u32,
    /// How indirect calls are checked.
    pub cfi_mode: u32,
}

/// A program.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgramReport {
    /// Its name in the kernel.
    pub name: String,
    /// Its function's name in the object.
    pub function: String,
    /// The ELF section that it came from.
    pub elf_section: String,
    /// Its type, as libbpf calls it.
    #[serde(rename = "type")]
    pub program_type: String,
    /// How it is to be attached, if its type leaves that open.
    pub expected_attach_type: Option<String>,
    /// What it attaches to, in the kernel's BTF.
    pub attach_btf_id: Option<u32>,
    /// What it attaches to, for kernels without BTF.
    pub attach_target: Option<AttachTargetReport>,
    /// `BPF_F_*` that it was loaded with.
    pub flags: Vec<String>,
    /// The names of its maps, in the verifier's order.
    pub maps: Vec<String>,
    /// Instructions that the verifier processed.
    pub processed_insns: u32,
    /// States that the verifier kept at its peak.
    pub peak_states: u32,
    /// Machine code.
    pub native: Option<ImageReport>,
    /// Verified bytecode.
    pub bytecode: Option<ImageReport>,
}

/// What a program attaches to, told to kernels without BTF.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachTargetReport {
    /// The function's or tracepoint's name.
    pub name: String,
    /// The function, as an offset from `_text`; zero if it is none.
    pub address: u64,
    /// How its arguments lie in registers.
    pub arguments: Vec<String>,
    /// How what it returns lies in registers.
    pub returns: Option<String>,
}

/// An image.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageReport {
    /// Its section.
    pub section: usize,
    /// The section with its symbols.
    pub symbols_section: Option<usize>,
    /// The program's tag, in hexadecimal.
    pub tag: String,
    /// Bytes of code.
    pub code_bytes: usize,
    /// Bytes of stack.
    pub stack_bytes: u32,
    /// Instructions of the program as `bpftool prog dump xlated` shows it.
    pub xlated_insns: usize,
    /// Its functions; the first is the program's entry.
    pub functions: Vec<FunctionReport>,
    /// The kernel's symbols that it needs.
    pub symbols: Vec<SymbolReport>,
    /// Addresses that are put into the code, by function and offset.
    pub relocations: Vec<RelocationReport>,
    /// Instructions whose faults are handled.
    pub faults: usize,
    /// Direct tail calls.
    pub tail_calls: Vec<TailCallReport>,
}

/// A function of an image.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FunctionReport {
    /// Its tag, in hexadecimal: part of its name in kallsyms.
    pub tag: String,
    /// Bytes of code.
    pub code_bytes: usize,
    /// Bytes of stack.
    pub stack_bytes: u32,
}

/// A symbol that an image needs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SymbolReport {
    /// Its name; of a module's, `module:symbol`.
    pub name: String,
    /// From `_text`, or from the module's symbol.
    pub offset: u64,
    /// Whether it is a module's.
    pub module: bool,
}

/// An address that is put into the code.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelocationReport {
    /// The function.
    pub function: usize,
    /// Bytes from its start to the field.
    pub offset: u32,
    /// How the address is written.
    pub form: &'static str,
    /// Whose address.
    pub target: String,
    /// The instruction that it is in.
    pub instruction: String,
}

/// A direct tail call.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TailCallReport {
    /// The function.
    pub function: u32,
    /// Where machine code is patched.
    pub offset: Option<u32>,
    /// The prog array.
    pub map: String,
    /// The entry.
    pub key: u32,
}

/// A map.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MapReport {
    /// Its name in the kernel.
    pub name: String,
    /// Its name in the object.
    pub full_name: String,
    /// Its type, as libbpf calls it.
    #[serde(rename = "type")]
    pub map_type: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries at most.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: Vec<String>,
    /// What depends on the type: the number of a bloom filter's hashes.
    pub map_extra: u64,
    /// What it is there for: `ordinary`, `constant` or `template`.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The template of a map of maps.
    pub inner: Option<String>,
    /// Where the object wants it pinned.
    pub pin_path: Option<String>,
    /// The key's type in the object's BTF.
    pub btf_key_type_id: u32,
    /// The value's type in the object's BTF.
    pub btf_value_type_id: u32,
    /// Fields of values that the kernel manages.
    pub fields: Vec<FieldReport>,
    /// The section with what it holds from the start.
    pub contents_section: Option<usize>,
}

/// A field of a value that the kernel manages.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldReport {
    /// What it is.
    pub kind: &'static str,
    /// Bytes from the value's start.
    pub offset: u32,
    /// Its bytes.
    pub size: u32,
}

/// What an array holds from the start.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotReport {
    /// The array.
    pub map: String,
    /// The entry.
    pub key: u32,
    /// What it holds.
    #[serde(flatten)]
    pub content: SlotContentReport,
}

/// A program or a map, by name.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SlotContentReport {
    /// A program.
    Program(String),
    /// A map.
    Map(String),
}

/// A section.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SectionReport {
    /// What it is.
    pub kind: String,
    /// Its size.
    pub bytes: u32,
    /// Its digest, in hexadecimal.
    pub sha256: String,
    /// Who refers to it.
    pub users: Vec<String>,
}

impl Report {
    /// `signature` is the outcome of checking it, if that was asked for.
    pub fn new(
        file: String,
        bundle: &Bundle,
        signature: Option<&Result<Signed<'_>, VerifyError>>,
    ) -> Result<Self, ImageProblem> {
        let manifest = bundle.manifest();
        let targets: Result<_, _> = manifest
            .targets
            .iter()
            .map(|target| target_report(bundle, target))
            .collect();
        let mut sections: Vec<_> = manifest
            .sections
            .iter()
            .map(|section| SectionReport {
                kind: section.kind.to_string(),
                bytes: section.size,
                sha256: hex::encode(section.digest),
                users: Vec::new(),
            })
            .collect();
        for (number, target) in manifest.targets.iter().enumerate() {
            let prefix = match manifest.targets.len() {
                1 => String::new(),
                _ => format!("target {number}, "),
            };
            for (section, user) in users(target) {
                if let Some(section) = sections.get_mut(section.index()) {
                    section.users.push(format!("{prefix}{user}"));
                }
            }
        }
        Ok(Self {
            file,
            bytes: bundle.to_bytes().len(),
            abi_version: ABI_VERSION,
            signature: signature_report(bundle, signature),
            targets: targets?,
            sections,
        })
    }

    /// Writes it as JSON.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

fn signature_report(
    bundle: &Bundle,
    signature: Option<&Result<Signed<'_>, VerifyError>>,
) -> SignatureReport {
    let strings = |ids: &[KeyId]| ids.iter().map(KeyId::to_string).collect();
    let invalid = |error: &VerifyError| SignatureReport::Invalid {
        problem: error.to_string(),
    };
    match (signature, bundle.claimed_signers()) {
        (_, Err(VerifyError::Unsigned)) => SignatureReport::Unsigned,
        (Some(Ok(signed)), _) => SignatureReport::Valid {
            by: signed
                .by
                .iter()
                .map(|certificate| SignerReport {
                    subject: certificate.subject().to_owned(),
                    key: certificate.key_kind(),
                    key_id: certificate.key_id().to_string(),
                })
                .collect(),
            unknown_key_ids: strings(&signed.unknown),
        },
        (Some(Err(error)), _) => invalid(error),
        (None, Err(error)) => invalid(&error),
        (None, Ok(claimed)) => SignatureReport::Unchecked {
            claimed_key_ids: strings(&claimed),
        },
    }
}

fn target_report(bundle: &Bundle, target: &Target) -> Result<TargetReport, ImageProblem> {
    let map_names: Vec<&str> = target.maps.iter().map(|map| &*map.full_name).collect();
    let mut return_thunk = None;
    let mut programs = Vec::new();
    for program in &target.programs {
        let mut report = program_report(program, &map_names);
        for (kind, sections) in images::of(program) {
            let image = images::parse(bundle, target, program, kind, sections)?;
            let offset = target.fingerprint.return_thunk.get();
            return_thunk = return_thunk.or_else(|| symbol_at(&image, offset));
            let shown = image_report(&image, &report.maps, sections);
            match kind {
                ImageKind::Native => report.native = Some(shown),
                ImageKind::Bytecode => report.bytecode = Some(shown),
            }
        }
        programs.push(report);
    }
    let evidence = target.evidence.and_then(|id| bundle.section(id));
    let fingerprint_words = fingerprint_words(&target.fingerprint, return_thunk.as_deref());
    Ok(TargetReport {
        release: target.release.clone(),
        build_id: hex::encode(&target.build_id),
        fingerprint: fingerprint_report(&target.fingerprint),
        fingerprint_words,
        // What is not JSON is shown as the text that it is.
        evidence: evidence.map(|bytes| {
            serde_json::from_slice(bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
        }),
        programs,
        maps: target
            .maps
            .iter()
            .map(|map| map_report(map, &map_names))
            .collect(),
        slots: target
            .slots
            .iter()
            .map(|slot| SlotReport {
                map: name(&map_names, slot.map),
                key: slot.key,
                content: match slot.content {
                    SlotContent::Program(index) => {
                        let functions: Vec<_> = target
                            .programs
                            .iter()
                            .map(|program| &*program.function)
                            .collect();
                        SlotContentReport::Program(name(&functions, index))
                    }
                    SlotContent::Map(index) => SlotContentReport::Map(name(&map_names, index)),
                },
            })
            .collect(),
        btf_section: target.btf.map(SectionId::index),
        evidence_section: target.evidence.map(SectionId::index),
    })
}

fn fingerprint_report(fingerprint: &Fingerprint) -> FingerprintReport {
    FingerprintReport {
        arch: fingerprint.arch.get(),
        page_shift: fingerprint.page_shift.get(),
        va_bits: fingerprint.va_bits.get(),
        cpu_limit: fingerprint.cpu_limit.get(),
        jit_flags: fingerprint.jit_flags.get(),
        policy: fingerprint.policy.get(),
        return_thunk: fingerprint.return_thunk.get(),
        jit_harden: fingerprint.jit_harden.get(),
        cfi_mode: fingerprint.cfi_mode.get(),
    }
}

/// The kernel's symbol at an offset from `_text`, if the image happens to name it.
fn symbol_at(image: &Image, wanted: u64) -> Option<String> {
    image.symbols.iter().find_map(|symbol| match symbol {
        Symbol::Text { name, offset } if *offset == wanted => Some(name.clone()),
        _ => None,
    })
}

fn program_report(program: &Program, map_names: &[&str]) -> ProgramReport {
    let program_type = ProgramType(program.prog_type);
    // Zero is a cgroup's hook, and means nothing for other types.
    let attach = Some(program.expected_attach_type)
        .filter(|&attach| attach != 0 || program_type.is_cgroup());
    ProgramReport {
        name: program.name.clone(),
        function: program.function.clone(),
        elf_section: program.elf_section.clone(),
        program_type: program_type.to_string(),
        expected_attach_type: attach.map(|attach| AttachType(attach).to_string()),
        attach_btf_id: Some(program.attach_btf_id).filter(|&id| id != 0),
        attach_target: program.attach_target.as_ref().map(attach_target_report),
        flags: words::program_flags(program.prog_flags),
        maps: program
            .maps
            .iter()
            .map(|&map| name(map_names, map))
            .collect(),
        processed_insns: program.processed_insns,
        peak_states: program.peak_states,
        native: None,
        bytecode: None,
    }
}

fn attach_target_report(target: &AttachTarget) -> AttachTargetReport {
    AttachTargetReport {
        name: target.name.clone(),
        address: target.address,
        arguments: target.arguments.iter().map(words::value).collect(),
        returns: target.returns.as_ref().map(words::value),
    }
}

fn image_report(
    image: &Image,
    map_names: &[String],
    sections: preverify_bundle::Image,
) -> ImageReport {
    let map_names: Vec<_> = map_names.iter().map(String::as_str).collect();
    let relocations = disassemble(image, &map_names)
        .into_iter()
        .filter_map(|line| {
            let Relocation { reloc, name } = line.relocation?;
            Some(RelocationReport {
                function: line.function,
                offset: reloc.offset,
                form: match reloc.form {
                    Form::Rel32 => "rel32",
                    Form::Abs32S => "abs32s",
                    Form::Abs64 => "abs64",
                    Form::BpfImm64 => "bpf_imm64",
                    Form::BpfCall => "bpf_call",
                    Form::A64Call26 => "a64_call26",
                    Form::A64Addr48 => "a64_addr48",
                    Form::A64Mov64 => "a64_mov64",
                },
                target: name,
                instruction: line.text,
            })
        });
    let functions = &image.functions;
    ImageReport {
        section: sections.image.index(),
        symbols_section: sections.symbols.map(SectionId::index),
        tag: hex::encode(image.conclusions.tag),
        code_bytes: functions.iter().map(|function| function.code.len()).sum(),
        stack_bytes: image.conclusions.stack_depth.get(),
        xlated_insns: image.xlated.len(),
        functions: functions
            .iter()
            .map(|function| FunctionReport {
                tag: hex::encode(function.tag),
                code_bytes: function.code.len(),
                stack_bytes: function.stack_depth,
            })
            .collect(),
        symbols: image
            .symbols
            .iter()
            .map(|symbol| {
                let (&offset, module) = match symbol {
                    Symbol::Text { offset, .. } => (offset, false),
                    Symbol::Module { offset, .. } => (offset, true),
                };
                SymbolReport {
                    name: symbol.name().to_owned(),
                    offset,
                    module,
                }
            })
            .collect(),
        relocations: relocations.collect(),
        faults: functions
            .iter()
            .map(|function| function.extable.len())
            .sum(),
        tail_calls: image
            .pokes
            .iter()
            .map(|poke| TailCallReport {
                function: poke.function.get(),
                offset: (image.machine != Machine::Bpf).then_some(poke.target.get()),
                map: name(&map_names, poke.map.get()),
                key: poke.key.get(),
            })
            .collect(),
    }
}

fn map_report(map: &Map, map_names: &[&str]) -> MapReport {
    MapReport {
        name: map.name.clone(),
        full_name: map.full_name.clone(),
        map_type: MapType(map.map_type).to_string(),
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: words::map_flags(map.map_flags),
        map_extra: map.map_extra,
        usage: match map.usage {
            MapUse::Ordinary => "ordinary",
            MapUse::Constant => "constant",
            MapUse::Template => "template",
        },
        inner: map.inner.map(|inner| name(map_names, inner)),
        pin_path: Some(map.pin_path.clone()).filter(|path| !path.is_empty()),
        btf_key_type_id: map.btf_key_type_id,
        btf_value_type_id: map.btf_value_type_id,
        fields: map
            .fields
            .iter()
            .map(|field| FieldReport {
                kind: words::field_kind(field.kind.get()),
                offset: field.offset.get(),
                size: field.size.get(),
            })
            .collect(),
        contents_section: map.contents.map(SectionId::index),
    }
}

/// Every reference of a target to a section.
fn users(target: &Target) -> impl Iterator<Item = (SectionId, String)> {
    let own = [(target.btf, "btf"), (target.evidence, "evidence")];
    let own = own.into_iter().map(|(id, user)| (id, user.to_owned()));
    let programs = target.programs.iter().flat_map(|program| {
        images::of(program).flat_map(|(kind, sections)| {
            let user = format!("{kind} of program {}", program.function);
            [
                (Some(sections.image), user.clone()),
                (sections.symbols, user),
            ]
        })
    });
    let maps = target
        .maps
        .iter()
        .map(|map| (map.contents, format!("map {}", map.full_name)));
    own.chain(programs)
        .chain(maps)
        .filter_map(|(id, user)| Some((id?, user)))
}

/// The name at an index that the manifest's rules keep in range.
fn name(names: &[&str], index: u32) -> String {
    names
        .get(index as usize)
        .map_or_else(|| index.to_string(), |name| (*name).to_owned())
}
