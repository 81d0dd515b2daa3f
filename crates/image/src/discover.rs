//! From two captures of one program to its image.
//!
//! Three witnesses say what an address is, and they must agree: the disassembly (this operand can
//! hold an address), the two boots (in both, the operand is the address of the same thing), and the
//! verified bytecode (an instruction loads that thing). Calls and jumps always go to addresses, so
//! that the bytecode is not asked about them.
//!
//! The image depends on nothing that differs between boots. The bytecode that is kept has no
//! addresses ([`bytecode::without_addresses`]). Tags, which are parts of names and nothing more, are
//! the kernel's own where both boots agree on them. The kernel computes them over bytecode that can
//! hold addresses of kernel variables; where it does, the boots disagree, and the tag is the
//! beginning of the SHA-256 of the kept bytecode and the function's number.

mod bytecode;
mod error;
mod function;
mod instructions;
mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;

use preverify_abi::image::{self as abi, Conclusions};
use preverify_abi::kinds::Architecture;
use preverify_abi::manifest::ARCH_ARM;
use sha2::{Digest, Sha256};

pub use self::error::{At, DiscoverError, Obstacles};

use self::bytecode::{Loads, OwnCalls, without_addresses};
use self::function::{Address, FunctionView};
use self::instructions::InstructionsView;
use self::places::Place;
use crate::Capture;
use crate::export::{self, Insn, Map};
use crate::image::{Function, Image, Machine, Reloc, Symbol, Target};
use crate::native::{Native, TailCalls, native};

/// Something as it is in each of the two boots.
type Pair = [u64; 2];

/// Makes a program's image from two captures, taken in two boots of one kernel with different
/// address layouts.
///
/// The order of the captures does not matter, nor which two boots they are from.
pub fn discover(a: Capture<'_>, b: Capture<'_>) -> Result<Image, DiscoverError> {
    let both = Both::new(a, b)?;
    let arch = a.export.arch;
    let machine = Machine::native(arch);
    let machine = machine.and_then(|machine| Some((machine, native(machine)?)));
    let (machine, native) = machine.ok_or_else(|| DiscoverError::Architecture {
        program: both.program(),
        arch: Architecture(arch),
    })?;
    let xlated = both.xlated()?;
    let drafts = both.each_function(|index| both.native_function(native, index, &xlated))?;
    let pokes = both.native_pokes(native.tail_calls())?;
    both.image(machine, drafts, pokes, xlated)
}

/// Makes the image of a program's verified bytecode, from two captures as for [`discover()`].
///
/// The bytecode is what the JIT compiled, not the cleaned copy that is kept beside it for people: in
/// that one, constants that look like addresses are zero.
pub fn discover_bytecode(a: Capture<'_>, b: Capture<'_>) -> Result<Image, DiscoverError> {
    let both = Both::new(a, b)?;
    let xlated = both.xlated()?;
    let drafts = both.each_function(|index| both.bytecode_function(index, &xlated))?;
    let pokes = both.pokes(|capture, poke| numbered_poke(capture, poke).map(Some))?;
    both.image(Machine::Bpf, drafts, pokes, xlated)
}

/// The two captures.
#[derive(Clone, Copy)]
struct Both<'a> {
    a: Capture<'a>,
    b: Capture<'a>,
    /// What the immediates of calls are relative to.
    call_bases: [Option<u64>; 2],
}

/// A function whose addresses are known, but not yet numbered.
struct Draft {
    function: Function,
    addresses: Vec<Address>,
}

impl<'a> Both<'a> {
    fn new(a: Capture<'a>, b: Capture<'a>) -> Result<Self, DiscoverError> {
        let both = Self {
            a,
            b,
            call_bases: [a, b].map(|capture| capture.symbols.address_of("__bpf_call_base")),
        };
        both.check()?;
        Ok(both)
    }

    /// Whether these are two captures of one program, which an image can be made of.
    fn check(self) -> Result<(), DiscoverError> {
        let (a, b) = (self.a.export, self.b.export);
        let obstacles = a.obstacles | b.obstacles;
        if obstacles != 0 {
            return Err(DiscoverError::Obstacles {
                program: a.name.clone(),
                obstacles: Obstacles(obstacles),
            });
        }
        for capture in [self.a, self.b] {
            let (exported, symbols) = (capture.export.text_address, capture.symbols.text());
            if exported != symbols {
                return Err(DiscoverError::OtherBoot {
                    program: a.name.clone(),
                    exported,
                    symbols,
                });
            }
        }
        // Kernels for 32-bit arm lie at the same place wherever they run.
        if a.text_address == b.text_address && a.arch != ARCH_ARM {
            return Err(DiscoverError::SameLayout {
                text: a.text_address,
            });
        }
        self.equal("the architecture", &a.arch, &b.arch)?;
        self.equal("the bits of an address", &a.va_bits, &b.va_bits)?;
        let size = |capture: Capture<'_>| capture.symbols.end() - capture.symbols.text();
        self.equal("the kernel's size", &size(self.a), &size(self.b))?;
        self.equal("the program's name", &a.name, &b.name)?;
        self.equal("the program's type", &a.prog_type, &b.prog_type)?;
        self.equal(
            "the expected attach type",
            &a.expected_attach_type,
            &b.expected_attach_type,
        )?;
        self.equal(
            "the attach target's BTF id",
            &a.attach_btf_id,
            &b.attach_btf_id,
        )?;
        let conclusions = words(&a.conclusions).into_iter().zip(words(&b.conclusions));
        for ((what, a), (_, b)) in conclusions {
            self.equal(what, &a, &b)?;
        }
        self.equal("the number of maps", &a.maps.len(), &b.maps.len())?;
        for (index, (a, b)) in a.maps.iter().zip(&b.maps).enumerate() {
            self.equal(format!("map {index}"), &geometry(a), &geometry(b))?;
        }
        let (a, b) = (&a.functions, &b.functions);
        self.equal("the number of functions", &a.len(), &b.len())?;
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            let what = |part: &str| format!("{part} of function {index}");
            self.equal(what("the stack depth"), &a.stack_depth, &b.stack_depth)?;
            self.equal(what("the flags"), &a.flags, &b.flags)?;
        }
        Ok(())
    }

    fn equal<T: PartialEq + Debug>(
        self,
        what: impl Into<String>,
        a: &T,
        b: &T,
    ) -> Result<(), DiscoverError> {
        if a == b {
            return Ok(());
        }
        Err(DiscoverError::Differ {
            program: self.program(),
            what: what.into(),
            a: format!("{a:?}"),
            b: format!("{b:?}"),
        })
    }

    /// The program's bytecode as it is kept: without addresses.
    fn xlated(self) -> Result<Vec<Insn>, DiscoverError> {
        self.clean_bytecode(
            "the program's bytecode",
            &self.a.export.xlated,
            &self.b.export.xlated,
            OwnCalls::Numbered,
        )
    }

    fn each_function(
        self,
        draft: impl Fn(usize) -> Result<Draft, DiscoverError>,
    ) -> Result<Vec<Draft>, DiscoverError> {
        (0..self.a.export.functions.len()).map(draft).collect()
    }

    /// A function that both boots have, as each of them has it.
    fn function(self, index: usize) -> [&'a export::Function; 2] {
        [self.a, self.b].map(|capture| &capture.export.functions[index])
    }

    fn native_function(
        self,
        native: &dyn Native,
        index: usize,
        xlated: &[Insn],
    ) -> Result<Draft, DiscoverError> {
        let [a, b] = self.function(index);
        self.clean_bytecode(
            &format!("the bytecode of function {index}"),
            &a.insns,
            &b.insns,
            OwnCalls::Addressed,
        )?;
        self.instructions(index).check_for_hidden_pointers()?;
        let several = self.a.export.functions.len() > 1;
        let view = FunctionView {
            both: self,
            index,
            native,
            a,
            b,
            loads: Loads::of(&a.insns, &b.insns, several),
        };
        let addresses = view.addresses()?;
        let mut bytes = a.code.clone();
        for address in &addresses {
            let start = address.offset as usize;
            address
                .form
                .vacate(&mut bytes[start..start + address.form.size()]);
        }
        Ok(Draft {
            function: Function {
                tag: self.tag(xlated, index),
                code: bytes,
                relocs: Vec::new(),
                extable: a.extable.clone(),
                stack_depth: a.stack_depth,
                flags: a.flags,
            },
            addresses,
        })
    }

    fn bytecode_function(self, index: usize, xlated: &[Insn]) -> Result<Draft, DiscoverError> {
        let [function, _] = self.function(index);
        let view = self.instructions(index);
        let (code, addresses) = view.read()?;
        view.check_for_hidden_pointers()?;
        Ok(Draft {
            function: Function {
                tag: self.tag(xlated, index),
                code,
                relocs: Vec::new(),
                extable: Vec::new(),
                stack_depth: function.stack_depth,
                flags: function.flags,
            },
            addresses,
        })
    }

    fn instructions(self, index: usize) -> InstructionsView<'a> {
        let [a, b] = self.function(index);
        InstructionsView {
            both: self,
            index,
            a: &a.insns,
            b: &b.insns,
            kinds: self.a.export.functions.len() > 1,
        }
    }

    /// All that has these addresses, in either boot its own.
    fn common_places(self, [a, b]: Pair) -> Vec<Place> {
        let in_b = Place::all_at(b, self.b);
        let mut common = Place::all_at(a, self.a);
        common.retain(|place| in_b.contains(place));
        common
    }

    /// What the immediates of calls are relative to.
    fn call_bases(self) -> Result<Pair, DiscoverError> {
        match self.call_bases {
            [Some(a), Some(b)] => Ok([a, b]),
            _ => Err(DiscoverError::NoCallBase {
                program: self.program(),
            }),
        }
    }

    /// The tag of a function; the first one's is the program's.
    fn tag(self, xlated: &[Insn], index: usize) -> [u8; 8] {
        let [a, b] = [self.a, self.b].map(|capture| match index {
            0 => Some(capture.export.conclusions.tag),
            _ => capture.export.functions.get(index).map(|found| found.tag),
        });
        match a {
            Some(tag) if a == b => tag,
            _ => digest(xlated, index),
        }
    }

    /// The bytecode without addresses; whatever else differs is refused.
    fn clean_bytecode(
        self,
        what: &str,
        a: &[Insn],
        b: &[Insn],
        own_calls: OwnCalls,
    ) -> Result<Vec<Insn>, DiscoverError> {
        self.equal(format!("the length of {what}"), &a.len(), &b.len())?;
        let clean = |capture: Capture<'_>, base: Option<u64>, insns, other| {
            without_addresses(insns, other, own_calls, |distance| {
                let callee = base.map(|base| base.wrapping_add_signed(distance.into()));
                callee.is_none_or(|callee| capture.symbols.image_offset(callee).is_none())
            })
        };
        let [base_a, base_b] = self.call_bases;
        let clean_a = clean(self.a, base_a, a, b);
        let clean_b = clean(self.b, base_b, b, a);
        for (index, (a, b)) in clean_a.iter().zip(&clean_b).enumerate() {
            self.equal(format!("instruction {index} of {what}"), a, b)?;
        }
        Ok(clean_a)
    }

    fn native_pokes(self, tail_calls: TailCalls) -> Result<Vec<abi::Poke>, DiscoverError> {
        self.pokes(|capture, poke| match tail_calls {
            TailCalls::Patched(is_pristine) => relative_poke(capture, poke, is_pristine).map(Some),
            TailCalls::Unprepared => match [poke.target, poke.bypass, poke.bypass_target] {
                [0, 0, 0] => Ok(None),
                _ => Err("it has places to patch, which the JIT of this machine never has"),
            },
        })
    }

    fn pokes(
        self,
        record: impl Fn(Capture<'_>, &export::Poke) -> Result<Option<abi::Poke>, &'static str>,
    ) -> Result<Vec<abi::Poke>, DiscoverError> {
        let pokes = |capture: Capture<'_>| -> Result<Vec<abi::Poke>, DiscoverError> {
            let pokes = capture.export.pokes.iter().enumerate();
            let pokes = pokes.map(|(index, poke)| {
                record(capture, poke).map_err(|problem| DiscoverError::Poke {
                    program: self.program(),
                    index,
                    problem,
                })
            });
            pokes.filter_map(Result::transpose).collect()
        };
        let (a, b) = (pokes(self.a)?, pokes(self.b)?);
        self.equal("the tail calls", &a, &b)?;
        Ok(a)
    }

    fn image(
        self,
        machine: Machine,
        drafts: Vec<Draft>,
        pokes: Vec<abi::Poke>,
        xlated: Vec<Insn>,
    ) -> Result<Image, DiscoverError> {
        let conclusions = Conclusions {
            tag: self.tag(&xlated, 0),
            ..self.a.export.conclusions
        };
        let (functions, symbols) = link(self, drafts)?;
        Ok(Image {
            machine,
            conclusions,
            functions,
            pokes,
            xlated,
            symbols,
        })
    }

    fn program(self) -> String {
        self.a.export.name.clone()
    }
}

/// The conclusions that both boots must agree on, with their names.
fn words(conclusions: &Conclusions) -> [(&'static str, u64); 11] {
    let Conclusions {
        flags,
        max_ctx_offset,
        max_pkt_offset,
        max_tp_access,
        max_rdonly_access,
        max_rdwr_access,
        verified_insns,
        stack_depth,
        visible_functions,
        cgroup_storage: [shared, percpu],
        tag: _,
    } = *conclusions;
    [
        ("the program's flags", flags.get()),
        ("max_ctx_offset", max_ctx_offset.get().into()),
        ("max_pkt_offset", max_pkt_offset.get().into()),
        ("max_tp_access", max_tp_access.get().into()),
        ("max_rdonly_access", max_rdonly_access.get().into()),
        ("max_rdwr_access", max_rdwr_access.get().into()),
        ("verified_insns", verified_insns.get().into()),
        ("the stack depth", stack_depth.get().into()),
        (
            "the number of visible functions",
            visible_functions.get().into(),
        ),
        ("the shared cgroup storage", shared.get().into()),
        ("the per-CPU cgroup storage", percpu.get().into()),
    ]
}

/// What two captures of one map have in common.
fn geometry(map: &Map) -> impl PartialEq + Debug {
    let record = &map.record;
    (
        [
            record.map_type,
            record.key_size,
            record.value_size,
            record.max_entries,
            record.map_flags,
            record.flags,
        ],
        [
            record.inner_map_type,
            record.inner_key_size,
            record.inner_value_size,
            record.inner_max_entries,
            record.inner_map_flags,
        ],
        record.map_extra,
        map.values().map(|(_, span)| span),
        map.fields.clone(),
        map.inner_fields.clone(),
    )
}

/// Eight bytes that depend on the program and the function, and on no boot.
fn digest(xlated: &[Insn], index: usize) -> [u8; 8] {
    let mut digest = Sha256::new();
    for insn in xlated {
        digest.update(insn.to_bytes());
    }
    digest.update((index as u64).to_le_bytes());
    let digest = digest.finalize();
    std::array::from_fn(|byte| digest[byte])
}

/// A direct tail call, and the places that the kernel patches for it.
fn relative_poke(
    capture: Capture<'_>,
    poke: &export::Poke,
    is_pristine: fn(&[u8], u32, u32, u32) -> bool,
) -> Result<abi::Poke, &'static str> {
    let record = numbered_poke(capture, poke)?;
    let function = capture.export.functions.get(poke.function.unwrap_or(0));
    let function = function.ok_or("it belongs to no function")?;
    let offset = |address: u64| {
        let offset = address.wrapping_sub(function.address);
        u32::try_from(offset).map_err(|_| "it lies outside of its function")
    };
    let (target, bypass) = (offset(poke.target)?, offset(poke.bypass)?);
    let bypass_target = offset(poke.bypass_target)?;
    if !is_pristine(&function.code, target, bypass, bypass_target) {
        return Err("the places to patch hold other instructions");
    }
    Ok(abi::Poke {
        target: target.into(),
        bypass: bypass.into(),
        bypass_target: bypass_target.into(),
        ..record
    })
}

/// A direct tail call as the verifier leaves it to the JIT.
fn numbered_poke(capture: Capture<'_>, poke: &export::Poke) -> Result<abi::Poke, &'static str> {
    let export = capture.export;
    let map = export.maps.iter().position(|map| map.address() == poke.map);
    let number = |index: Option<usize>| index.and_then(|index| u32::try_from(index).ok());
    Ok(abi::Poke {
        // The main program's `aux` stands for its first function.
        function: number(Some(poke.function.unwrap_or(0)))
            .ok_or("its function has no number")?
            .into(),
        map: number(map)
            .ok_or("its prog array is none of the program's maps")?
            .into(),
        key: poke.key.into(),
        insn_idx: poke.insn_idx.into(),
        adjust: poke.adjust.into(),
        ..abi::Poke::default()
    })
}

/// Numbers the symbols, and makes relocations of addresses.
fn link(both: Both<'_>, drafts: Vec<Draft>) -> Result<(Vec<Function>, Vec<Symbol>), DiscoverError> {
    let mut symbols = BTreeMap::new();
    for address in drafts.iter().flat_map(|draft| &draft.addresses) {
        let Some(place) = &address.place else {
            continue;
        };
        if let Some(symbol) = place.symbol(both.a) {
            both.equal("a symbol", &Some(&symbol), &place.symbol(both.b).as_ref())?;
            symbols.insert(place.clone(), (0, symbol));
        }
    }
    for (number, (index, _)) in (0..).zip(symbols.values_mut()) {
        *index = number;
    }
    let reloc = |address: &Address| {
        let (target, addend) = match &address.place {
            None => (Target::Absolute, address.value.cast_signed()),
            Some(place) => match (place.target(), symbols.get(place)) {
                (Some(target), _) => target,
                (None, symbol) => (Target::Symbol(symbol.map_or(u32::MAX, |found| found.0)), 0),
            },
        };
        Reloc {
            offset: address.offset,
            form: address.form,
            target,
            addend: addend.wrapping_sub(address.bias),
        }
    };
    let functions = drafts
        .into_iter()
        .map(|draft| Function {
            relocs: draft.addresses.iter().map(reloc).collect(),
            ..draft.function
        })
        .collect();
    Ok((
        functions,
        symbols.into_values().map(|found| found.1).collect(),
    ))
}
