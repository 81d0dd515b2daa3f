//! What the authors of the kernel's selftests expect of single programs: annotations that their
//! macros (`__success`, `__failure`, `__retval`, ...) leave as declaration tags in BTF.
//!
//! Each expectation is for its program alone: the selftests load it, and the object's auxiliary
//! programs, and none of the others.

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader as _};
use serde::{Deserialize, Serialize};

/// What is expected of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The program's function.
    pub program: String,
    /// What the authors call the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the verifier should say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the program should return from a test run on 64 zeroes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retval: Option<Retval>,
    /// Program flags (`BPF_F_*`) that the program needs beside its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// Not a test of its own: loaded with each of the object's tests.
    #[serde(default, skip_serializing_if = "is_false")]
    pub auxiliary: bool,
}

/// What the verifier says of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It loads.
    Accepted,
    /// It does not.
    Rejected,
}

/// What a program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retval {
    /// Something that is another value each time.
    Any,
    /// This value.
    Is(i32),
}

/// The expectations in an object, by the program's place in BTF. An object without BTF, or with
/// BTF that cannot be read, has none.
pub(super) fn of_object(object: &[u8]) -> Vec<Expectation> {
    btf_section(object)
        .and_then(Btf::parse)
        .map_or_else(Vec::new, |btf| of_btf(&btf))
}

fn of_btf(btf: &Btf<'_>) -> Vec<Expectation> {
    let tags: Vec<_> = btf
        .types
        .iter()
        .filter(|tag| tag.kind == KIND_DECL_TAG)
        .filter_map(|tag| Some((tag.target, tag.name.strip_prefix("comment:")?)))
        .collect();
    let functions = btf
        .types
        .iter()
        .enumerate()
        .filter(|(_, kind)| kind.kind == KIND_FUNC);
    functions
        .filter_map(|(id, function)| {
            let of_function =
                |(target, tag): &(u32, _)| (usize::try_from(*target) == Ok(id)).then_some(*tag);
            let tags: Vec<&str> = tags.iter().filter_map(of_function).collect();
            of_tags(function.name, &tags)
        })
        .collect()
}

/// Reads the tags of one program. They say nothing to us if they are for other architectures, for
/// callers without rights, or for another BTF than the kernel's.
fn of_tags(program: &str, tags: &[&str]) -> Option<Expectation> {
    let mut expectation = Expectation {
        program: program.into(),
        ..Expectation::default()
    };
    let mut architectures = tags
        .iter()
        .filter_map(|tag| tag.strip_prefix("test_arch="))
        .peekable();
    if architectures.peek().is_some() && !architectures.any(|name| name == "X86_64") {
        return None;
    }
    for tag in tags {
        match tag.split_once('=').unwrap_or((tag, "")) {
            ("test_expect_success", _) => expectation.verdict = Some(Verdict::Accepted),
            ("test_expect_failure", _) => expectation.verdict = Some(Verdict::Rejected),
            ("test_auxiliary", _) => expectation.auxiliary = true,
            ("test_description", text) => expectation.description = Some(text.into()),
            ("test_retval", text) => expectation.retval = Some(parse_retval(text)?),
            // The selftests' own loader sets flags that a test can switch off: not ours.
            ("test_prog_flags", text) if text.starts_with('!') => {}
            ("test_prog_flags", text) => expectation.flags |= parse_flag(text)?,
            ("test_btf_path", _) => return None,
            _ => {}
        }
    }
    let says_something =
        expectation.verdict.is_some() || expectation.retval.is_some() || expectation.auxiliary;
    says_something.then_some(expectation)
}

fn parse_retval(text: &str) -> Option<Retval> {
    match text {
        "INT_MIN" => Some(Retval::Is(i32::MIN)),
        "POINTER_VALUE" => Some(Retval::Any),
        "TEST_DATA_LEN" => Some(Retval::Is(64)),
        _ => parse_integer(text).map(Retval::Is),
    }
}

fn parse_flag(text: &str) -> Option<u32> {
    Some(match text {
        "BPF_F_STRICT_ALIGNMENT" => 1 << 0,
        "BPF_F_ANY_ALIGNMENT" => 1 << 1,
        "BPF_F_TEST_RND_HI32" => 1 << 2,
        "BPF_F_TEST_STATE_FREQ" => 1 << 3,
        "BPF_F_SLEEPABLE" => 1 << 4,
        "BPF_F_XDP_HAS_FRAGS" => 1 << 5,
        "BPF_F_TEST_REG_INVARIANTS" => 1 << 7,
        _ => parse_integer(text)?.cast_unsigned(),
    })
}

/// A C integer, decimal or hexadecimal, as an `int` holds it.
fn parse_integer(text: &str) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    }
    .ok()?;
    let value = if negative { -value } else { value };
    i32::try_from(value)
        .ok()
        .or_else(|| Some(u32::try_from(value).ok()?.cast_signed()))
}

fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn btf_section(object: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<LittleEndian>::parse(object).ok()?;
    let sections = header.sections(LittleEndian, object).ok()?;
    let (_, section) = sections.section_by_name(LittleEndian, b".BTF")?;
    section.data(LittleEndian, object).ok()
}

const KIND_FUNC: u32 = 12;
const KIND_DECL_TAG: u32 = 17;

/// The types of an object, as far as they are of interest here; the index is the id.
struct Btf<'a> {
    types: Vec<Type<'a>>,
}

struct Type<'a> {
    kind: u32,
    name: &'a str,
    /// What a tag is for.
    target: u32,
}

impl<'a> Btf<'a> {
    fn parse(section: &'a [u8]) -> Option<Self> {
        let magic = u16::from_le_bytes(section.get(..2)?.try_into().ok()?);
        if magic != 0xeb9f {
            return None;
        }
        let body = section.get(word(section, 4)?..)?;
        let part = |at: usize| {
            body.get(word(section, at)?..)?
                .get(..word(section, at + 4)?)
        };
        let (mut records, strings) = (part(8)?, part(16)?);
        // Id 0 is `void`, which has no record.
        let mut types = vec![Type {
            kind: 0,
            name: "",
            target: 0,
        }];
        while !records.is_empty() {
            let name = string(strings, word(records, 0)?)?;
            let info = u32::from_le_bytes(records.get(4..8)?.try_into().ok()?);
            let target = u32::from_le_bytes(records.get(8..12)?.try_into().ok()?);
            let kind = info >> 24 & 0x1f;
            types.push(Type { kind, name, target });
            records = records.get(12 + trailer(kind, (info & 0xffff) as usize)?..)?;
        }
        Some(Self { types })
    }
}

/// Bytes behind the record of a type of this kind with so many members.
fn trailer(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
        2 | 7..=11 | KIND_FUNC | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | KIND_DECL_TAG => 4,
        // Arrays.
        3 => 12,
        // Enumerations, prototypes of functions.
        6 | 13 => 8 * members,
        // Structures, unions, sections, 64-bit enumerations.
        4 | 5 | 15 | 19 => 12 * members,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    usize::try_from(word).ok()
}

fn string(strings: &[u8], at: usize) -> Option<&str> {
    let text = strings.get(at..)?;
    str::from_utf8(&text[..text.iter().position(|&byte| byte == 0)?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_an_expectation() {
        let tags = [
            "test_description=adds = and more",
            "test_expect_success",
            "test_expect_failure_unpriv",
            "test_expect_msg=3=R0 = 1",
            "test_retval=0xffffffff",
            "test_prog_flags=BPF_F_STRICT_ALIGNMENT",
            "test_prog_flags=!BPF_F_TEST_RND_HI32",
        ];
        let expected = Expectation {
            program: "add".into(),
            description: Some("adds = and more".into()),
            verdict: Some(Verdict::Accepted),
            retval: Some(Retval::Is(-1)),
            flags: 1,
            auxiliary: false,
        };
        assert_eq!(of_tags("add", &tags), Some(expected));
    }

    #[test]
    fn what_is_not_for_us_says_nothing() {
        assert_eq!(of_tags("p", &["test_expect_success_unpriv"]), None);
        assert_eq!(
            of_tags("p", &["test_expect_success", "test_arch=ARM64"]),
            None
        );
        assert_eq!(
            of_tags("p", &["test_expect_success", "test_btf_path=/x"]),
            None
        );
        assert_eq!(of_tags("p", &["test_retval=words"]), None);
        let both = ["test_expect_success", "test_arch=ARM64", "test_arch=X86_64"];
        assert!(of_tags("p", &both).is_some());
    }

    #[test]
    fn return_values_are_those_of_an_int() {
        for (text, value) in [
            ("0", 0),
            ("-22", -22),
            ("0x80000000", i32::MIN),
            ("INT_MIN", i32::MIN),
            ("4294967295", -1),
            ("TEST_DATA_LEN", 64),
        ] {
            assert_eq!(parse_retval(text), Some(Retval::Is(value)), "{text}");
        }
        assert_eq!(parse_retval("POINTER_VALUE"), Some(Retval::Any));
        assert_eq!(parse_retval("0x100000000"), None);
    }

    /// BTF with an integer, a structure of one member, a function and a tag on it.
    fn btf() -> Vec<u8> {
        let strings = b"\0int\0s\0main\0comment:test_expect_failure\0";
        let types: [u32; 20] = [
            1,
            1 << 24,
            4,
            32, // int
            5,
            4 << 24 | 1,
            4,
            1,
            1,
            0, // struct s { int; }
            0,
            13 << 24,
            1, // int (*)(void)
            7,
            KIND_FUNC << 24,
            3, // main
            12,
            KIND_DECL_TAG << 24,
            4,
            u32::MAX, // on main
        ];
        let mut section = vec![0x9f, 0xeb, 1, 0];
        let sizes = [24, 0, 80, 80, u32::try_from(strings.len()).expect("small")];
        section.extend(sizes.iter().flat_map(|size: &u32| size.to_le_bytes()));
        section.extend(types.iter().flat_map(|word| word.to_le_bytes()));
        section.extend(strings);
        section
    }

    #[test]
    fn tags_are_found_in_btf() {
        let section = btf();
        let found = of_btf(&Btf::parse(&section).expect("well-formed"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].program, "main");
        assert_eq!(found[0].verdict, Some(Verdict::Rejected));
    }

    #[test]
    fn damaged_btf_is_no_btf() {
        let section = btf();
        for size in 0..section.len() {
            assert!(Btf::parse(&section[..size]).is_none(), "{size} bytes");
        }
        for at in 0..section.len() {
            let mut damaged = section.clone();
            damaged[at] ^= 0xff;
            let _ = Btf::parse(&damaged).map(|btf| of_btf(&btf));
        }
    }
}
