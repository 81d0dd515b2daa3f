//! The symbols of images, looked up by name in the kernel of devices.

use std::collections::BTreeSet;

use preverify_image::export::Insn;
use preverify_image::image::{Image, Sections, Symbol};
use preverify_image::symbols::KernelSymbols;
use preverify_target::{DeviceSymbols, Place};

/// A symbol that is not there, or not for certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// No such symbol.
    #[error("it needs the kernel's `{0}`, which the kernel of devices does not have")]
    Missing(String),
    /// Several symbols of that name.
    #[error(
        "it needs the kernel's `{0}`, and several symbols of the kernel of devices, or of the one that verifies, have \
         that name or lie there"
    )]
    NotUnique(String),
    /// A place behind the symbol's end.
    #[error(
        "it needs the kernel's `{name}`, and byte {offset:#x} of that lies outside it in the kernel of devices, where it \
         has {size} bytes"
    )]
    Beyond {
        /// The symbol.
        name: String,
        /// How far behind its start.
        offset: u64,
        /// Its bytes.
        size: u64,
    },
    /// Something of a module.
    #[error("it needs `{0}` of a module: that is not carried to another build of the kernel")]
    Module(String),
    /// The image cannot be read again.
    #[error("its image cannot be read: {0}")]
    Image(String),
}

/// Where symbols are looked up.
#[derive(Clone, Copy)]
pub(super) struct Kernels<'a> {
    /// The kernel that verifies.
    pub verifier: &'a KernelSymbols,
    /// The kernel of devices.
    pub device: &'a DeviceSymbols,
    /// The symbols that the object asks for by name.
    pub named: &'a BTreeSet<String>,
}

/// What the immediates of calls are relative to.
const CALL_BASE: &str = "__bpf_call_base";

/// An image, for the kernel of devices: with that one's symbols.
pub(super) fn sections(
    sections: &Sections,
    kernels: Kernels<'_>,
) -> Result<Sections, Vec<SymbolError>> {
    let unreadable = |error: &dyn std::error::Error| vec![SymbolError::Image(error.to_string())];
    let mut image =
        Image::parse(&sections.image, &sections.symbols).map_err(|error| unreadable(&error))?;
    let mut errors = Vec::new();
    for symbol in &mut image.symbols {
        let translated = match symbol {
            Symbol::Text { name, offset } => place(name, *offset, kernels),
            Symbol::Module { name, .. } => Err(SymbolError::Module(name.clone())),
        };
        match translated {
            Ok(there) => {
                *symbol = Symbol::Text {
                    name: symbol.name().to_owned(),
                    offset: there,
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        for insn in &mut image.xlated {
            insn.imm = shown_immediate(*insn, kernels);
        }
        image.to_sections().map_err(|error| unreadable(&error))
    } else {
        Err(errors)
    }
}

/// What an instruction's immediate is where the kernel of devices shows the program: calls of its functions are distances.
fn shown_immediate(insn: Insn, kernels: Kernels<'_>) -> i32 {
    let Kernels {
        verifier, device, ..
    } = kernels;
    if insn.code != Insn::CALL || insn.is_own_call() {
        return insn.imm;
    }
    let called = verifier
        .address_of(CALL_BASE)
        .map(|base| base.wrapping_add_signed(insn.imm.into()))
        .filter(|address| verifier.names_at(*address).next().is_some());
    let Some(called) = called else {
        // The number of a function, or of a tail call.
        return insn.imm;
    };
    let distance = || {
        let shown = verifier.describe(called)?;
        let there = place(&shown, called - verifier.text(), kernels).ok()?;
        let base = device.get(CALL_BASE)?.offset;
        i32::try_from(there.cast_signed() - base.cast_signed()).ok()
    };
    // A function that only this kernel has was compiled into the program. Zero is what kernels show where they do not tell.
    distance().unwrap_or(0)
}

/// A function that has one place in the kernel of devices.
pub(super) fn function(name: &str, device: &DeviceSymbols) -> Result<u64, SymbolError> {
    match device.all(name) {
        [] => Err(SymbolError::Missing(name.to_owned())),
        [place] => Ok(place.offset),
        _ => Err(SymbolError::NotUnique(name.to_owned())),
    }
}

/// Where the kernel of devices has what lies at an offset from `_text` in the one that verifies. `shown` is what people
/// call it.
fn place(shown: &str, offset: u64, kernels: Kernels<'_>) -> Result<u64, SymbolError> {
    let Kernels {
        verifier,
        device,
        named,
    } = kernels;
    let missing = || SymbolError::Missing(shown.to_owned());
    let (names, behind) = verifier
        .nearest(verifier.text() + offset)
        .ok_or_else(missing)?;
    let names: Vec<&str> = names.collect();
    let unique = |name: &&&str| verifier.address_of(name).is_some();
    let found: Vec<(&str, Place)> = names
        .iter()
        .filter(unique)
        .filter_map(|name| Some((*name, device.get(name)?)))
        .collect();
    if found.is_empty() {
        let is_there = names.iter().any(|name| !device.all(name).is_empty());
        return Err(match is_there {
            true => SymbolError::NotUnique(shown.to_owned()),
            false => missing(),
        });
    }
    let holds = |place: &Place| behind < place.size;
    let marks = |place: &Place| behind == 0 && place.size == 0;
    // A section's first symbol has the same place as the name that marks the section: what has a size is meant.
    let mut places: BTreeSet<u64> = of(&found, holds);
    if places.is_empty() {
        places = of(&found, marks);
    }
    // Unless the program asks for the name: another one's end may be this one's start, but not in every kernel.
    let asked_for = found
        .iter()
        .filter(|(name, place)| marks(place) && named.contains(*name));
    places.extend(asked_for.map(|(_, place)| place.offset));
    match (places.first(), places.len()) {
        (Some(place), 1) => Ok(place + behind),
        (None, _) => {
            let (name, place) = found[0];
            Err(SymbolError::Beyond {
                name: name.to_owned(),
                offset: behind,
                size: place.size,
            })
        }
        _ => Err(SymbolError::NotUnique(shown.to_owned())),
    }
}

fn of(found: &[(&str, Place)], fits: impl Fn(&Place) -> bool) -> BTreeSet<u64> {
    let fitting = found.iter().filter(|(_, place)| fits(place));
    fitting.map(|(_, place)| place.offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
        ffffffff81000000 T _text\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000040 T __section_start\n\
        ffffffff81000040 t first\n\
        ffffffff81000080 t twice\n\
        ffffffff810000c0 t twice\n\
        ffffffff81000100 T thunk\n\
        ffffffff81000140 D table\n\
        ffffffff81000180 D table_end\n\
        ffffffff810001c0 D only_here\n\
        ffffffff81000200 T alias_a\n\
        ffffffff81000200 T alias_b\n\
        ffffffff81000300 T __bpf_call_base\n\
        ffffffff81000340 T behind\n\
        ffffffff81002000 B _end\n";

    /// Objects ask for these names.
    fn with_kernels<T>(named: &[&str], work: impl FnOnce(Kernels<'_>) -> T) -> T {
        let verifier = KernelSymbols::parse(KALLSYMS).unwrap();
        let mut device = DeviceSymbols::default();
        for (name, offset, size) in [
            ("_text", 0, 0),
            ("__section_start", 0x800, 0),
            ("first", 0x900, 16),
            ("twice", 0xa00, 16),
            ("thunk", 0xb00, 0),
            ("table", 0xc00, 32),
            ("alias_a", 0xd00, 8),
            ("alias_b", 0xe00, 8),
            ("__bpf_call_base", 0xf00, 16),
            ("behind", 0x1000, 16),
        ] {
            device.add(name, Place { offset, size });
        }
        work(Kernels {
            verifier: &verifier,
            device: &device,
            named: &named.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    fn there(offset: u64) -> Result<u64, SymbolError> {
        there_if_asked_for(&[], offset)
    }

    fn there_if_asked_for(named: &[&str], offset: u64) -> Result<u64, SymbolError> {
        with_kernels(named, |kernels| {
            let text = kernels.verifier.text();
            let shown = kernels.verifier.describe(text + offset).unwrap();
            place(&shown, offset, kernels)
        })
    }

    #[test]
    fn symbols_are_found_by_name() {
        assert_eq!(there(0x40), Ok(0x900));
        assert_eq!(there(0x48), Ok(0x908));
        assert_eq!(there(0x100), Ok(0xb00));
        assert_eq!(there(0x140), Ok(0xc00));
        assert_eq!(there(0x15f), Ok(0xc1f));
    }

    #[test]
    fn calls_are_shown_by_the_distance_that_they_have_there() {
        let shown = |code, source: u8, imm| {
            let insn = Insn {
                code,
                registers: source << 4,
                off: 0,
                imm,
            };
            with_kernels(&[], |kernels| shown_immediate(insn, kernels))
        };
        // Functions that come before and behind what calls are relative to; kernel functions, too.
        assert_eq!(shown(Insn::CALL, 0, 0x40 - 0x300), 0x900 - 0xf00);
        assert_eq!(shown(Insn::CALL, 2, 0x40 - 0x300), 0x900 - 0xf00);
        assert_eq!(shown(Insn::CALL, 0, 0x340 - 0x300), 0x1000 - 0xf00);
        // One that is not there.
        assert_eq!(shown(Insn::CALL, 0, 0x1c0 - 0x300), 0);
        // The program's own function, the number of the helper for tail calls, and something else.
        assert_eq!(shown(Insn::CALL, 1, 0x40), 0x40);
        assert_eq!(shown(Insn::CALL, 0, 12), 12);
        assert_eq!(shown(0xb7, 0, 0x40 - 0x300), 0x40 - 0x300);
    }

    /// `__section_start` and `first` lie together in the kernel that verifies alone.
    #[test]
    fn names_that_the_object_asks_for_count() {
        let both = Err(SymbolError::NotUnique("__section_start".to_owned()));
        assert_eq!(there_if_asked_for(&["__section_start"], 0x40), both);
        assert_eq!(there_if_asked_for(&["__section_start"], 0x48), Ok(0x908));
        assert_eq!(there_if_asked_for(&["first", "thunk"], 0x40), Ok(0x900));
        assert_eq!(there_if_asked_for(&["thunk"], 0x100), Ok(0xb00));
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let missing = |name: &str| Err(SymbolError::Missing(name.to_owned()));
        let not_unique = |name: &str| Err(SymbolError::NotUnique(name.to_owned()));
        assert_eq!(there(0x80), not_unique("twice"));
        assert_eq!(there(0x200), not_unique("alias_a"));
        assert_eq!(there(0x1c0), missing("only_here"));
        let beyond = |name: &str, offset, size| {
            Err(SymbolError::Beyond {
                name: name.to_owned(),
                offset,
                size,
            })
        };
        assert_eq!(there(0x160), beyond("table", 0x20, 32));
        assert_eq!(there(0x104), beyond("thunk", 4, 0));
    }
}
