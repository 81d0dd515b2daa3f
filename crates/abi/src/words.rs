//! A fingerprint in words: the same on a device and where bundles are made, so that both can be laid side by side.

use core::fmt;

use crate::kinds::{Architecture, Bits};
use crate::manifest::Fingerprint;

/// One fact of a fingerprint; its `Display` is the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// What it is about.
    pub name: &'static str,
    /// Who depends on it.
    pub matters: Matters,
    value: Value<'a>,
}

/// Who depends on a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matters {
    /// The verifier: it must fit for every image.
    Always,
    /// The JIT: it must be equal for native images, while bytecode is compiled on the device.
    ForNativeCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Architecture(Architecture),
    PageSize(u32),
    Number(u32),
    Bits(Bits),
    Returns(u64, Option<&'a str>),
    Cfi(u32),
}

/// The facts of a fingerprint: first what matters always. `return_thunk` is the name of the symbol that functions
/// return through, where that is known.
pub fn facts<'a>(
    fingerprint: &Fingerprint,
    return_thunk: Option<&'a str>,
) -> impl Iterator<Item = Fact<'a>> + use<'a> {
    let architecture = Architecture(fingerprint.arch.get());
    let jit = Bits::jit(architecture, fingerprint.jit_flags.get());
    let policy = Bits::policy(fingerprint.policy.get());
    let returns = fingerprint.return_thunk.get();
    let cfi = fingerprint.cfi_mode.get();
    // Other architectures have neither.
    let is_x86 = architecture == Architecture::X86_64;

    let always = [
        ("architecture", Value::Architecture(architecture)),
        ("page size", Value::PageSize(fingerprint.page_shift.get())),
        ("CPUs at most", Value::Number(fingerprint.cpu_limit.get())),
        ("verifier", Value::Bits(policy)),
    ];
    let for_native_code = [
        Some(("address bits", Value::Number(fingerprint.va_bits.get()))),
        Some(("JIT", Value::Bits(jit))),
        (is_x86 || returns != 0).then_some(("returns", Value::Returns(returns, return_thunk))),
        Some(("JIT hardening", Value::Number(fingerprint.jit_harden.get()))),
        (is_x86 || cfi != 0).then_some(("CFI", Value::Cfi(cfi))),
    ];
    let fact = |matters| {
        move |(name, value)| Fact {
            name,
            matters,
            value,
        }
    };
    let always = always.into_iter().map(fact(Matters::Always));
    let for_native_code = for_native_code.into_iter().flatten();
    always.chain(for_native_code.map(fact(Matters::ForNativeCode)))
}

impl fmt::Display for Fact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Architecture(architecture) => architecture.fmt(f),
            Value::PageSize(shift @ 10..20) => write!(f, "{} KiB", 1 << (shift - 10)),
            Value::PageSize(shift) => write!(f, "2^{shift}"),
            Value::Number(number) => number.fmt(f),
            Value::Bits(bits) => bits.fmt(f),
            Value::Returns(0, _) => f.write_str("plain"),
            Value::Returns(_, Some(symbol)) => write!(f, "through {symbol}"),
            Value::Returns(offset, None) => write!(f, "through _text+{offset:#x}"),
            Value::Cfi(0) => f.write_str("none"),
            Value::Cfi(mode) => write!(f, "mode {mode}"),
        }
    }
}
