//! What an address means in one boot, in words that hold in all boots.

use crate::Capture;
use crate::image::{Symbol, Target};

/// Something that has an address. Sorted: symbols come in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the kernel image, so many bytes behind `_text`.
    Text(u64),
    /// In a module.
    Module {
        /// `module:symbol`.
        name: String,
    },
    /// The `struct bpf_map` of a map.
    Map(u32),
    /// A byte of a map's values.
    MapValue { map: u32, offset: u64 },
    /// The first byte of a function.
    Function(u32),
    /// The program's `struct bpf_prog_aux`.
    ProgAux,
}

impl Place {
    /// Everything that has exactly this address.
    pub(super) fn all_at(address: u64, capture: Capture<'_>) -> Vec<Self> {
        let mut places = Vec::new();
        let Capture { export, symbols } = capture;
        places.extend(symbols.image_offset(address).map(Self::Text));
        if let Some(name) = symbols.module_symbol(address) {
            places.push(Self::Module {
                name: name.to_owned(),
            });
        }
        for (index, map) in (0..).zip(&export.maps) {
            if map.address() == address {
                places.push(Self::Map(index));
            }
            if let Some((start, span)) = map.values() {
                // The verifier allows no pointer to the first byte behind.
                let offset = address.wrapping_sub(start);
                if offset < span {
                    places.push(Self::MapValue { map: index, offset });
                }
            }
        }
        for (index, function) in (0..).zip(&export.functions) {
            if function.address == address {
                places.push(Self::Function(index));
            }
        }
        if export.aux_address == address {
            places.push(Self::ProgAux);
        }
        places
    }

    /// Whether loads of it always have a kind: the verifier itself loads kernel symbols and `aux`
    /// without one, but never maps and functions.
    pub(super) fn is_always_named(&self) -> bool {
        matches!(
            self,
            Self::Map(_) | Self::MapValue { .. } | Self::Function(_)
        )
    }

    /// What people call it.
    pub(super) fn describe(&self, capture: Capture<'_>) -> String {
        match self {
            Self::Map(map) => format!("map {map}"),
            Self::MapValue { map, offset } => {
                format!("byte {offset:#x} of the values of map {map}")
            }
            Self::Function(function) => format!("function {function}"),
            Self::ProgAux => "the program's aux".to_owned(),
            Self::Text(_) | Self::Module { .. } => match self.symbol(capture) {
                Some(symbol) => format!("the kernel symbol `{symbol}`"),
                None => "a kernel symbol".to_owned(),
            },
        }
    }

    /// The symbol that names this place, if it is one that symbols name.
    pub(super) fn symbol(&self, capture: Capture<'_>) -> Option<Symbol> {
        match self {
            Self::Text(offset) => {
                let symbols = capture.symbols;
                let address = symbols.text().wrapping_add(*offset);
                Some(Symbol::Text {
                    name: symbols.describe(address).unwrap_or_default(),
                    offset: *offset,
                })
            }
            Self::Module { name } => Some(Symbol::Module {
                name: name.clone(),
                offset: 0,
            }),
            _ => None,
        }
    }

    /// The target of a relocation, and what is added to it; none for what symbols name.
    pub(super) fn target(&self) -> Option<(Target, i64)> {
        Some(match *self {
            Self::Text(_) | Self::Module { .. } => return None,
            Self::Map(map) => (Target::Map(map), 0),
            Self::MapValue { map, offset } => (Target::MapValue(map), offset.cast_signed()),
            Self::Function(function) => (Target::Function(function), 0),
            Self::ProgAux => (Target::ProgAux, 0),
        })
    }
}
