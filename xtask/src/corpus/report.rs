//! What became of the corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Source;
use super::compare::Comparison;

/// Which images a device loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Images {
    /// As devices do by themselves: native images, and bytecode of programs that have no other.
    Native,
    /// Bytecode alone.
    Bytecode,
}

impl Images {
    /// All ways.
    pub const ALL: [Self; 2] = [Self::Native, Self::Bytecode];
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Bytecode => "bytecode",
        })
    }
}

/// What reasons start with why the stock kernel goes no further with an object.
pub const BY_STOCK: &str = "stock: ";
/// Before the reason why an object stopped that only kernels with BTF take.
pub const NEEDS_BTF: &str = "needs BTF: ";

/// A program, and what is to be said of it.
pub type Remark = (String, String);

/// What became of one object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Where it came from.
    pub source: Source,
    /// Programs that the stock kernel takes.
    pub accepted: Vec<String>,
    /// Programs that it rejects.
    pub rejected: usize,
    /// Programs in the bundle.
    pub carried: Vec<String>,
    /// Programs in the bundle without a native image, and why.
    pub bytecode_only: Vec<Remark>,
    /// Programs in the bundle without bytecode, and why.
    pub native_only: Vec<Remark>,
    /// Accepted programs that are not in the bundle, and why.
    pub left_out: Vec<Remark>,
    /// All images of the bundle were proved.
    pub proved: bool,
    /// Building it again gave the same bytes up to the signature.
    pub same_twice: bool,
    /// Bytes of the bundle.
    pub bundle_bytes: usize,
    /// What the device loaded, each way.
    pub loads: BTreeMap<Images, Load>,
    /// Why it went no further.
    pub stopped: Option<String>,
}

/// A bundle that a device loaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Programs that were loaded from native images.
    pub native: Vec<String>,
    /// Programs that were loaded from bytecode.
    pub bytecode: Vec<String>,
    /// Programs that have no machine code now: the kernel interprets them.
    pub interpreted: Vec<String>,
    /// What its programs did.
    pub runs: Comparison,
}

impl Row {
    /// An object that has gone nowhere yet.
    pub fn new(id: &str, source: Source) -> Self {
        Self {
            id: id.into(),
            source,
            accepted: Vec::new(),
            rejected: 0,
            carried: Vec::new(),
            bytecode_only: Vec::new(),
            native_only: Vec::new(),
            left_out: Vec::new(),
            proved: false,
            same_twice: false,
            bundle_bytes: 0,
            loads: BTreeMap::new(),
            stopped: None,
        }
    }

    /// It goes no further.
    pub fn stopped(&mut self, reason: String) {
        self.stopped = Some(reason);
    }

    /// It went no further because the stock kernel did not, without us.
    pub fn stopped_by_stock(&self) -> bool {
        self.stopped_for(BY_STOCK)
    }

    /// It went no further because the device's kernel has no BTF to create its maps with.
    pub fn needs_btf(&self) -> bool {
        self.stopped_for(NEEDS_BTF)
    }

    fn stopped_for(&self, kind: &str) -> bool {
        let reason = self.stopped.as_deref();
        reason.is_some_and(|reason| reason.starts_with(kind))
    }

    /// Built, proved, the same twice, loaded, and nothing that it does is different.
    pub fn whole_way(&self) -> bool {
        let mut loads = self.loads.values();
        self.proved
            && self.same_twice
            && !self.loads.is_empty()
            && loads.all(|load| load.runs.different.is_empty())
            && self.stopped.is_none()
    }

    /// Loaded that way.
    fn loaded(&self, images: Images) -> bool {
        self.loads.contains_key(&images)
    }

    /// Programs that were loaded from native images.
    fn native(&self) -> BTreeSet<&str> {
        let loads = self.loads.values();
        loads
            .flat_map(|load| &load.native)
            .map(String::as_str)
            .collect()
    }

    /// Programs that were loaded, from whatever image.
    fn either(&self) -> BTreeSet<&str> {
        let loads = self.loads.values();
        loads
            .flat_map(|load| load.native.iter().chain(&load.bytecode))
            .map(String::as_str)
            .collect()
    }

    fn sum(&self, images: Images, number: fn(&Load) -> usize) -> usize {
        self.loads.get(&images).map_or(0, number)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        match &self.stopped {
            Some(reason) => f.write_str(reason)?,
            None => write!(
                f,
                "{} of {} programs carried",
                self.carried.len(),
                self.accepted.len()
            )?,
        }
        for (images, load) in &self.loads {
            write!(f, ", {images} {} equal", load.runs.equal)?;
        }
        if self.proved && !self.same_twice && self.stopped.is_none() {
            f.write_str(", ANOTHER BUNDLE THE SECOND TIME")?;
        }
        for (images, load) in &self.loads {
            for different in &load.runs.different {
                write!(f, "\n    DIFFERENT ({images}) {different}")?;
            }
            for program in &load.interpreted {
                write!(f, "\n    interpreted ({images}) {program}")?;
            }
        }
        for (what, remarks) in [
            ("only bytecode of", &self.bytecode_only),
            ("only native code of", &self.native_only),
            ("left out", &self.left_out),
        ] {
            for (program, reason) in remarks {
                write!(f, "\n    {what} {program}: {reason}")?;
            }
        }
        Ok(())
    }
}

/// The tables: how many objects and programs of each source came how far, and why others did not.
pub fn table(rows: &[Row]) -> String {
    let sources = [
        ("debian", Some(Source::Debian)),
        ("selftests", Some(Source::Selftests)),
        ("all", None),
    ];
    let mut text = String::from(
        "                        accepted   built and     native   bytecode   the whole\n\
         objects         number  by stock      proved     loaded     loaded         way\n",
    );
    for (name, source) in sources {
        let rows: Vec<_> = of(rows, source).collect();
        let count = |condition: fn(&Row) -> bool| rows.iter().filter(|row| condition(row)).count();
        writeln!(
            text,
            "{name:12} {:>9} {:>9} {:>11} {:>10} {:>10} {:>11}",
            rows.len(),
            count(|row| !row.accepted.is_empty()),
            count(|row| row.proved),
            count(|row| row.loaded(Images::Native)),
            count(|row| row.loaded(Images::Bytecode)),
            count(Row::whole_way),
        )
        .expect("a String takes everything");
    }
    text.push_str(
        "\n              accepted               loaded           native or     equal   by bytecode     equal     inter-\n\
         programs      by stock   carried     native            bytecode  TEST_RUN         alone  TEST_RUN    preted\n",
    );
    for (name, source) in sources {
        let rows: Vec<_> = of(rows, source).collect();
        let sum = |number: fn(&Row) -> usize| rows.iter().map(|row| number(row)).sum::<usize>();
        let accepted = sum(|row| row.accepted.len());
        let share = |count: usize| format!("{count} ({})", percent(count, accepted));
        writeln!(
            text,
            "{name:12} {accepted:>9} {:>9} {:>15} {:>15} {:>9} {:>13} {:>9} {:>9}",
            sum(|row| row.carried.len()),
            share(sum(|row| row.native().len())),
            share(sum(|row| row.either().len())),
            sum(|row| row.sum(Images::Native, |load| load.runs.equal)),
            sum(|row| row.sum(Images::Bytecode, |load| load.bytecode.len())),
            sum(|row| row.sum(Images::Bytecode, |load| load.runs.equal)),
            sum(|row| row.sum(Images::Bytecode, |load| load.interpreted.len())),
        )
        .expect("a String takes everything");
    }
    text.push_str("\nrefused, stopped or remarkable, by reason:\n");
    for (reason, count) in reasons(rows) {
        writeln!(text, "{count:>6}  {reason}").expect("a String takes everything");
    }
    text
}

/// Of the programs that another run carried, usually x86_64's: how many does stock take here, and how many were loaded?
pub fn covered(rows: &[Row], other: &[Row]) -> String {
    let (mut accepted, mut native, mut either) = (0, 0, 0);
    let mut missing = Vec::new();
    for row in rows {
        let Some(other) = other.iter().find(|other| other.id == row.id) else {
            continue;
        };
        let (natively, anyhow) = (row.native(), row.either());
        for program in &row.accepted {
            if !other.carried.contains(program) {
                continue;
            }
            accepted += 1;
            native += usize::from(natively.contains(program.as_str()));
            match anyhow.contains(program.as_str()) {
                true => either += 1,
                false => missing.push(format!("{}/{program}", row.id)),
            }
        }
    }
    let mut text = format!(
        "of the programs that x86_64 carries, stock takes {accepted} here: {native} ({}) were loaded native, {either} \
         ({}) native or by bytecode",
        percent(native, accepted),
        percent(either, accepted)
    );
    if !missing.is_empty() {
        write!(text, ", and not {}", missing.join(", ")).expect("a String takes everything");
    }
    text
}

fn of(rows: &[Row], source: Option<Source>) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(move |row| source.is_none_or(|source| row.source == source))
}

#[expect(clippy::cast_precision_loss, reason = "percents to show")]
fn percent(count: usize, of: usize) -> String {
    match of {
        0 => "-".into(),
        of => format!("{:.1}%", 100.0 * count as f64 / of as f64),
    }
}

/// What keeps objects and programs from more, with its number, the most frequent first.
fn reasons(rows: &[Row]) -> Vec<(String, usize)> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |reason: String| *reasons.entry(reason).or_default() += 1;
    for row in rows {
        row.stopped.iter().for_each(|reason| count(kind(reason)));
        for (what, remarks) in [
            ("program left out", &row.left_out),
            ("program only as bytecode", &row.bytecode_only),
            ("program only as native code", &row.native_only),
        ] {
            remarks
                .iter()
                .for_each(|(_, reason)| count(format!("{what}: {}", kind(reason))));
        }
        for (images, load) in &row.loads {
            let different = load.runs.different.iter();
            different.for_each(|_| count(format!("another outcome of TEST_RUN: {images}")));
        }
        if row.proved && !row.same_twice && row.stopped.is_none() {
            count("another bundle the second time".into());
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    reasons
}

/// A reason without what is particular to one object: quoted names and numbers.
fn kind(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or("");
    let mut kind = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '`' | '\'' => {
                if !quoted {
                    kind.push('*');
                }
                quoted = !quoted;
            }
            _ if quoted => {}
            '0'..='9' => {
                kind.push('#');
                let hexadecimal = |next: &char| next.is_ascii_hexdigit() || *next == 'x';
                while characters.next_if(hexadecimal).is_some() {}
            }
            other => kind.push(other),
        }
    }
    kind.chars().take(150).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn reasons_of_one_kind_are_one() {
        assert_eq!(
            kind("build: the program `a` uses map 17\nmore"),
            kind("build: the program `b` uses map 5")
        );
        assert_eq!(
            kind("0xff432ac24b963f88 in one boot"),
            kind("0x6 in one boot")
        );
        assert_ne!(kind("build: arena"), kind("build: struct_ops"));
    }

    #[test]
    fn the_tables_count_by_source_and_image() {
        let mut row = Row::new("a", Source::Debian);
        row.accepted = names("f g h i");
        row.carried = names("f g h");
        let load = Load {
            native: names("f g"),
            bytecode: names("h"),
            ..Load::default()
        };
        row.loads.insert(Images::Native, load);
        let other = Row::new("b", Source::Selftests);
        let text = table(&[row, other]);
        let lines: Vec<Vec<_>> = text
            .lines()
            .filter(|line| line.starts_with("debian"))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["debian", "1", "1", "0", "1", "0", "0"], "{text}");
        assert_eq!(lines[1][1..7], ["4", "3", "2", "(50.0%)", "3", "(75.0%)"]);
    }

    #[test]
    fn only_what_the_other_run_carries_is_covered() {
        let mut here = Row::new("a", Source::Debian);
        here.accepted = names("f g h");
        let load = Load {
            native: names("f"),
            ..Load::default()
        };
        here.loads.insert(Images::Native, load);
        let mut there = Row::new("a", Source::Debian);
        there.carried = names("f g");
        let text = covered(&[here], &[there]);
        for words in [
            "takes 2 here",
            "1 (50.0%) were loaded native",
            "and not a/g",
        ] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }

    #[test]
    fn the_whole_way_has_no_differences() {
        let mut row = Row::new("a", Source::Debian);
        (row.proved, row.same_twice) = (true, true);
        assert!(!row.whole_way(), "nothing was loaded");
        row.loads.insert(Images::Native, Load::default());
        assert!(row.whole_way());
        let mut load = Load::default();
        load.runs.different.push("f: 1 instead of 2".into());
        row.loads.insert(Images::Bytecode, load);
        assert!(!row.whole_way());
        assert!(row.to_string().contains("DIFFERENT (bytecode) f"), "{row}");
    }
}
