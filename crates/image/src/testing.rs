//! Programs as a JIT would write them, in boots as a kernel would lay them out.

pub(crate) mod aarch64;
mod x86_64;

use preverify_abi::export::{EXPORT_MAGIC, ExportFunction, ExportHeader, ExportMap, ExportPoke};
use preverify_abi::image::{Conclusions, Extable};
use preverify_abi::{ABI_VERSION, NONE, Range, Table};
use zerocopy::{Immutable, IntoBytes};

use crate::Capture;
use crate::export::{Export, Function, Insn, Map, Poke};
use crate::image::Machine;
use crate::symbols::KernelSymbols;

/// Where `__bpf_call_base` is, from `_text`.
pub(crate) const CALL_BASE: u64 = 0x30_0000;
/// A helper.
pub(crate) const HELPER: u64 = 0x31_2340;
/// A variable of the kernel.
pub(crate) const JIFFIES: u64 = 0x180_4000;
/// The thunk that functions return through.
pub(crate) const RETURN_THUNK: u64 = 0xc0_0100;
/// The machines whose code is written here.
pub(crate) const MACHINES: [Machine; 2] = [Machine::X86_64, Machine::Arm64];
/// The size of the kernel image.
const IMAGE_SIZE: u64 = 0x280_0000;
/// The bytes that a map's values span.
pub(crate) const SPAN: u64 = 0x100;

/// A piece of a function.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Instructions without addresses, and what they are compiled from.
    Plain(&'static [u8], Vec<Insn>),
    /// A call of a helper, by its offset from `_text`.
    Helper(u64),
    /// A call of a function of the program.
    Call(usize),
    /// A call of `testmod:function`.
    ModuleCall,
    /// A jump to a thunk, by its offset from `_text`; on x86_64.
    Thunk(u64),
    /// A register is set to a map.
    Map(usize),
    /// A register is set to a byte of a map's values.
    Value(usize, u64),
    /// A register is set to a place in the kernel image, by its offset from `_text`.
    Symbol(u64),
    /// A register is set to a function of the program.
    Callback(usize),
    /// A register is set to the program's `aux`.
    Aux,
    /// A register is set to a pointer that nobody knows.
    Stray,
    /// A register is set to a constant, by a 64-bit load.
    Constant(u64),
    /// A register is set to a constant, by a move of 32 bits.
    Move(i32),
    /// The depth of calls is counted, in a per-CPU variable; on x86_64.
    CallDepth(u32),
    /// A direct tail call through a map.
    TailCall(usize),
}

/// The addresses of one boot.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) machine: Machine,
    pub(crate) text: u64,
    pub(crate) functions: Vec<u64>,
    pub(crate) maps: Vec<u64>,
    pub(crate) values: Vec<u64>,
    pub(crate) aux: u64,
    pub(crate) module: u64,
    pub(crate) stray: u64,
}

impl Layout {
    /// The layout of a boot with this number, on x86_64; no two of them share an address.
    pub(crate) fn new(boot: u32) -> Self {
        Self::on(Machine::X86_64, boot)
    }

    /// The same, on any machine.
    pub(crate) fn on(machine: Machine, boot: u32) -> Self {
        let boot = u64::from(boot);
        let (text, linear, vmalloc, programs, modules) = match machine {
            Machine::Arm64 => (
                0xffff_b000_0000_0000 + (boot << 21),
                0xffff_0a00_1234_0100 + (boot << 30),
                0xffff_8000_8123_0000 + (boot << 30),
                0xffff_8000_7a12_0000 + (boot << 16),
                0xffff_afff_c000_6000 + (boot << 21),
            ),
            Machine::X86_64 | Machine::Bpf => (
                0xffff_ffff_8000_0000 + (boot << 21),
                0xffff_8880_0000_0000 + (boot << 30),
                0xffff_c900_0000_0000 + (boot << 30),
                0xffff_ffff_c000_8000 + (boot << 16),
                0xffff_ffff_c000_6000 + (boot << 16),
            ),
        };
        Self {
            machine,
            text,
            // Not in the order of their numbers, and at unequal distances.
            functions: (0..8)
                .map(|i| programs + (i ^ 5) * 0x1240 + boot * 64 * i)
                .collect(),
            maps: (0..8).map(|i| linear + (i ^ 3) * 0x8_0400).collect(),
            values: (0..8).map(|i| vmalloc + (i ^ 6) * SPAN).collect(),
            aux: linear + 0x7777_7000,
            module: modules,
            stray: linear + 0x3333_3300,
        }
    }

    pub(crate) fn symbols(&self) -> KernelSymbols {
        let at = |offset: u64| self.text + offset;
        let text = format!(
            "0000000000000000 A __per_cpu_start\n\
             {:016x} T _text\n\
             {:016x} T __bpf_call_base\n\
             {:016x} T bpf_helper\n\
             {:016x} T __x86_return_thunk\n\
             {:016x} D jiffies\n\
             {:016x} D jiffies_64\n\
             {:016x} B _end\n\
             {:016x} t function\t[testmod]\n\
             {:016x} t bpf_prog_0011223344556677_other\t[bpf]\n",
            self.text,
            at(CALL_BASE),
            at(HELPER),
            at(RETURN_THUNK),
            at(JIFFIES),
            at(JIFFIES),
            at(IMAGE_SIZE),
            self.module,
            self.module + 0x200,
        );
        KernelSymbols::parse(text).unwrap()
    }
}

/// A program, and its symbols, as one boot holds it.
pub(crate) struct Boot {
    pub(crate) export: Export,
    pub(crate) symbols: KernelSymbols,
}

impl Boot {
    pub(crate) fn new(functions: &[Vec<Piece>], layout: &Layout) -> Self {
        Self {
            export: export(functions, layout),
            symbols: layout.symbols(),
        }
    }

    pub(crate) fn capture(&self) -> Capture<'_> {
        Capture {
            export: &self.export,
            symbols: &self.symbols,
        }
    }
}

/// The same program in two boots of x86_64.
pub(crate) fn two_boots(functions: &[Vec<Piece>]) -> [Boot; 2] {
    two_boots_on(Machine::X86_64, functions)
}

/// The same, on any machine.
pub(crate) fn two_boots_on(machine: Machine, functions: &[Vec<Piece>]) -> [Boot; 2] {
    [3, 17].map(|boot| Boot::new(functions, &Layout::on(machine, boot)))
}

/// How a kernel's JIT writes a function.
trait Jit {
    /// What functions start with, an instruction included that may fault.
    fn start(&self, code: &mut Vec<u8>);
    /// What they end with.
    fn end(&self, code: &mut Vec<u8>);
    /// The entry for the instruction that may fault.
    fn exception(&self) -> Extable;
    /// A call. The function's first byte is at `start`, here and below.
    fn call(&self, code: &mut Vec<u8>, start: u64, target: u64);
    /// A jump to a thunk.
    fn thunk(&self, code: &mut Vec<u8>, start: u64, target: u64);
    /// A register is set by a 64-bit load, to anything but the address of one of the program's
    /// functions.
    fn load(&self, code: &mut Vec<u8>, value: u64);
    /// A register is set by a 64-bit load to the address of one of the program's functions.
    fn load_function(&self, code: &mut Vec<u8>, address: u64);
    /// A register is set by a move of 32 bits.
    fn set(&self, code: &mut Vec<u8>, value: i32);
    /// The depth of calls is counted.
    fn call_depth(&self, code: &mut Vec<u8>, start: u64, variable: u32);
    /// A direct tail call; gives what is patched, the jump around it, and where that one goes.
    fn tail_call(&self, code: &mut Vec<u8>, start: u64) -> [u64; 3];
}

fn export(functions: &[Vec<Piece>], layout: &Layout) -> Export {
    let jit: &dyn Jit = match layout.machine {
        Machine::Arm64 => &aarch64::Aarch64,
        Machine::X86_64 | Machine::Bpf => &x86_64::X86,
    };
    let mut pokes = Vec::new();
    let several = functions.len() > 1;
    let built: Vec<Function> = functions
        .iter()
        .enumerate()
        .map(|(index, pieces)| {
            let mut writer = Writer {
                jit,
                layout,
                index,
                code: Vec::new(),
                insns: Vec::new(),
                pokes: &mut pokes,
            };
            jit.start(&mut writer.code);
            pieces.iter().for_each(|piece| writer.piece(piece));
            jit.end(&mut writer.code);
            writer.insns.push(Insn {
                code: 0x95,
                ..Insn::default()
            });
            let Writer {
                code, mut insns, ..
            } = writer;
            if !several {
                wipe_kinds(&mut insns);
            }
            Function {
                address: layout.functions[index],
                tag: layout.text.to_le_bytes(),
                code,
                insns,
                extable: vec![jit.exception()],
                stack_depth: 16,
                flags: 0,
            }
        })
        .collect();
    let xlated = built.iter().flat_map(|function| function.insns.clone());
    let mut xlated: Vec<Insn> = xlated.collect();
    wipe_kinds(&mut xlated);
    for insn in xlated.iter_mut().filter(|insn| insn.is_own_call()) {
        insn.imm = insn.off.into();
    }
    Export {
        name: "program".to_owned(),
        prog_type: 6,
        expected_attach_type: 37,
        attach_btf_id: 0,
        obstacles: 0,
        arch: layout.machine.number(),
        va_bits: 48,
        conclusions: Conclusions {
            verified_insns: 123.into(),
            visible_functions: u32::try_from(functions.len()).unwrap().into(),
            tag: *b"program!",
            ..Conclusions::default()
        },
        aux_address: layout.aux,
        text_address: layout.text,
        functions: built,
        pokes,
        xlated,
        maps: layout.maps.iter().zip(&layout.values).map(map).collect(),
    }
}

fn map((&address, &values): (&u64, &u64)) -> Map {
    Map {
        record: ExportMap {
            address: address.into(),
            value_address: values.into(),
            value_span: SPAN.into(),
            id: u32::try_from(address >> 8 & 0xffff).unwrap().into(),
            map_type: 2.into(),
            key_size: 4.into(),
            value_size: 256.into(),
            max_entries: 1.into(),
            ..ExportMap::default()
        },
        fields: Vec::new(),
        inner_fields: Vec::new(),
    }
}

fn wipe_kinds(insns: &mut [Insn]) {
    for insn in insns.iter_mut().filter(|insn| insn.code == Insn::LD_IMM64) {
        insn.registers &= 0x0f;
    }
}

struct Writer<'a> {
    jit: &'a dyn Jit,
    layout: &'a Layout,
    index: usize,
    code: Vec<u8>,
    insns: Vec<Insn>,
    pokes: &'a mut Vec<Poke>,
}

impl Writer<'_> {
    fn piece(&mut self, piece: &Piece) {
        let layout = self.layout;
        let start = layout.functions[self.index];
        match *piece {
            Piece::Plain(bytes, ref insns) => {
                self.code.extend(bytes);
                self.insns.extend(insns);
            }
            Piece::Helper(offset) => self.call(0, 0, layout.text + offset),
            Piece::Call(function) => self.call(1, function, layout.functions[function]),
            Piece::ModuleCall => self.call(2, 0, layout.module),
            Piece::Thunk(offset) => self.jit.thunk(&mut self.code, start, layout.text + offset),
            Piece::Map(map) => self.load(1, layout.maps[map]),
            Piece::Value(map, offset) => self.load(2, layout.values[map] + offset),
            Piece::Symbol(offset) => self.load(3, layout.text + offset),
            Piece::Callback(function) => {
                let first = self.insns.len();
                self.load_insns(4, layout.functions[function]);
                self.insns[first].off = i16::try_from(function).unwrap();
                self.jit
                    .load_function(&mut self.code, layout.functions[function]);
            }
            Piece::Aux => self.load(0, layout.aux),
            Piece::Stray => self.load(0, layout.stray),
            Piece::Constant(value) => self.load(0, value),
            Piece::Move(value) => {
                self.insns.push(Insn {
                    code: 0xb7,
                    registers: 1,
                    off: 0,
                    imm: value,
                });
                self.jit.set(&mut self.code, value);
            }
            Piece::CallDepth(variable) => self.jit.call_depth(&mut self.code, start, variable),
            Piece::TailCall(map) => self.tail_call(map),
        }
    }

    fn call(&mut self, kind: u8, number: usize, target: u64) {
        let base = self.layout.text + CALL_BASE;
        let [low, _] = halves(target.wrapping_sub(base));
        self.insns.push(Insn {
            code: Insn::CALL,
            registers: kind << 4,
            off: i16::try_from(number).unwrap(),
            imm: low,
        });
        let start = self.layout.functions[self.index];
        self.jit.call(&mut self.code, start, target);
    }

    fn load(&mut self, kind: u8, value: u64) {
        self.load_insns(kind, value);
        self.jit.load(&mut self.code, value);
    }

    fn load_insns(&mut self, kind: u8, value: u64) {
        let [low, high] = halves(value);
        self.insns.push(Insn {
            code: Insn::LD_IMM64,
            registers: kind << 4 | 1,
            off: 0,
            imm: low,
        });
        self.insns.push(Insn {
            imm: high,
            ..Insn::default()
        });
    }

    fn tail_call(&mut self, map: usize) {
        let start = self.layout.functions[self.index];
        let [target, bypass, bypass_target] = self.jit.tail_call(&mut self.code, start);
        self.insns.push(Insn {
            code: 0xf5,
            registers: 0,
            off: 0,
            imm: i32::try_from(self.pokes.len()).unwrap() + 1,
        });
        self.pokes.push(Poke {
            target,
            bypass,
            bypass_target,
            map: self.layout.maps[map],
            key: 2,
            function: (self.index > 0).then_some(self.index),
            insn_idx: 7,
            adjust: 12,
        });
    }
}

/// The lower and the upper half of a value.
fn halves(value: u64) -> [i32; 2] {
    let bytes = value.to_le_bytes();
    [0, 4].map(|index: usize| i32::from_le_bytes(*bytes[index..].first_chunk().unwrap()))
}

/// An export as the kernel part writes it. Only the maps' own fields are written, not those of
/// inner maps.
pub(crate) fn export_bytes(export: &Export) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<ExportHeader>()];
    let mut functions = Vec::new();
    let (mut code, mut insns, mut extable) = (Vec::new(), Vec::new(), Vec::new());
    for function in &export.functions {
        functions.push(ExportFunction {
            address: function.address.into(),
            tag: function.tag,
            code: range(code.len(), function.code.len()),
            insns: range(insns.len(), function.insns.len()),
            extable: range(extable.len(), function.extable.len()),
            stack_depth: function.stack_depth.into(),
            flags: function.flags.into(),
        });
        code.extend_from_slice(&function.code);
        insns.extend(function.insns.iter().map(|insn| insn.to_bytes()));
        extable.extend_from_slice(&function.extable);
    }
    let poke = |poke: &Poke| ExportPoke {
        target: poke.target.into(),
        bypass: poke.bypass.into(),
        bypass_target: poke.bypass_target.into(),
        map: poke.map.into(),
        key: poke.key.into(),
        function: poke.function.map_or(NONE, number).into(),
        insn_idx: poke.insn_idx.into(),
        adjust: poke.adjust.into(),
    };
    let pokes: Vec<ExportPoke> = export.pokes.iter().map(poke).collect();
    let xlated: Vec<[u8; 8]> = export.xlated.iter().map(|insn| insn.to_bytes()).collect();
    let maps: Vec<ExportMap> = export.maps.iter().map(|map| map.record).collect();
    let fields: Vec<_> = export
        .maps
        .iter()
        .flat_map(|map| map.fields.clone())
        .collect();
    let mut name = [0; 16];
    name[..export.name.len()].copy_from_slice(export.name.as_bytes());
    let header = ExportHeader {
        magic: EXPORT_MAGIC,
        version: ABI_VERSION.into(),
        name,
        prog_type: export.prog_type.into(),
        expected_attach_type: export.expected_attach_type.into(),
        attach_btf_id: export.attach_btf_id.into(),
        obstacles: export.obstacles.into(),
        arch: export.arch.into(),
        va_bits: export.va_bits.into(),
        conclusions: export.conclusions,
        aux_address: export.aux_address.into(),
        text_address: export.text_address.into(),
        functions: table(&mut bytes, &functions),
        code: table(&mut bytes, &code),
        insns: table(&mut bytes, &insns),
        extable: table(&mut bytes, &extable),
        pokes: table(&mut bytes, &pokes),
        xlated: table(&mut bytes, &xlated),
        maps: table(&mut bytes, &maps),
        fields: table(&mut bytes, &fields),
        size: number(bytes.len()).into(),
    };
    bytes[..size_of::<ExportHeader>()].copy_from_slice(header.as_bytes());
    bytes
}

fn table<T: IntoBytes + Immutable>(bytes: &mut Vec<u8>, records: &[T]) -> Table {
    let offset = number(bytes.len()).into();
    bytes.extend_from_slice(records.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Table {
        offset,
        count: number(records.len()).into(),
    }
}

fn range(first: usize, count: usize) -> Range {
    Range {
        first: number(first).into(),
        count: number(count).into(),
    }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}
