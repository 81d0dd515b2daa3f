//! What became of the corpus.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::Source;
use super::compare::Comparison;

/// What became of one object.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Where it came from.
    pub source: Source,
    /// Programs that the stock kernel takes.
    pub accepted: usize,
    /// Programs that it rejects.
    pub rejected: usize,
    /// Programs in the bundle.
    pub carried: usize,
    /// Accepted programs that are not in the bundle, and why.
    pub left_out: Vec<(String, String)>,
    /// All images of the bundle were proved.
    pub proved: bool,
    /// Building it again gave the same bytes up to the signature.
    pub same_twice: bool,
    /// Bytes of the bundle.
    pub bundle_bytes: usize,
    /// The device loaded it.
    pub loaded: bool,
    /// What its programs did.
    pub runs: Comparison,
    /// Why it went no further.
    pub stopped: Option<String>,
}

impl Row {
    /// An object that has gone nowhere yet.
    pub fn new(id: &str, source: Source) -> Self {
        Self {
            id: id.into(),
            source,
            accepted: 0,
            rejected: 0,
            carried: 0,
            left_out: Vec::new(),
            proved: false,
            same_twice: false,
            bundle_bytes: 0,
            loaded: false,
            runs: Comparison::default(),
            stopped: None,
        }
    }

    /// It goes no further.
    pub fn stopped(&mut self, reason: String) {
        self.stopped = Some(reason);
    }

    /// Built, proved, the same twice, loaded, and nothing that it does is different.
    pub fn whole_way(&self) -> bool {
        self.loaded
            && self.proved
            && self.same_twice
            && self.runs.different.is_empty()
            && self.stopped.is_none()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        if let Some(reason) = &self.stopped {
            return f.write_str(reason);
        }
        write!(
            f,
            "{} of {} programs carried, {} equal",
            self.carried, self.accepted, self.runs.equal
        )?;
        if !self.same_twice {
            f.write_str(", ANOTHER BUNDLE THE SECOND TIME")?;
        }
        for different in &self.runs.different {
            write!(f, "\n    DIFFERENT {different}")?;
        }
        for (program, reason) in &self.left_out {
            write!(f, "\n    left out {program}: {reason}")?;
        }
        Ok(())
    }
}

/// The table: how many objects and programs of each source came how far, and why others did not.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "                        accepted    built and             the whole |  programs    programs   equal\n\
         source        objects   by stock      proved     loaded         way |  accepted     carried   TEST_RUN\n",
    );
    for (name, source) in [("debian", Source::Debian), ("selftests", Source::Selftests)] {
        let rows: Vec<_> = rows.iter().filter(|row| row.source == source).collect();
        let count = |condition: fn(&Row) -> bool| rows.iter().filter(|row| condition(row)).count();
        let sum = |number: fn(&Row) -> usize| rows.iter().map(|row| number(row)).sum::<usize>();
        writeln!(
            text,
            "{name:12} {:>8} {:>10} {:>11} {:>10} {:>11} | {:>9} {:>11} {:>10}",
            rows.len(),
            count(|row| row.accepted > 0),
            count(|row| row.proved),
            count(|row| row.loaded),
            count(Row::whole_way),
            sum(|row| row.accepted),
            sum(|row| row.carried),
            sum(|row| row.runs.equal),
        )
        .expect("a String takes everything");
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let stopped = row.stopped.iter().map(|reason| kind(reason));
        let left_out = row
            .left_out
            .iter()
            .map(|(_, reason)| format!("program left out: {}", kind(reason)));
        for reason in stopped.chain(left_out) {
            *reasons.entry(reason).or_default() += 1;
        }
        if !row.runs.different.is_empty() {
            *reasons
                .entry("another outcome of TEST_RUN".into())
                .or_default() += 1;
        }
        if row.proved && !row.same_twice {
            *reasons
                .entry("another bundle the second time".into())
                .or_default() += 1;
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    text.push_str("\nrefused or stopped, by reason:\n");
    for (reason, count) in reasons {
        writeln!(text, "{count:>6}  {reason}").expect("a String takes everything");
    }
    text
}

/// A reason without what is particular to one object: quoted names and numbers.
fn kind(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or("");
    let mut kind = String::new();
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '`' | '\'' => {
                if !quoted {
                    kind.push('*');
                }
                quoted = !quoted;
            }
            _ if quoted => {}
            '0'..='9' => {
                if !kind.ends_with('#') {
                    kind.push('#');
                }
            }
            other => kind.push(other),
        }
    }
    kind.chars().take(150).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_one_kind_are_one() {
        assert_eq!(
            kind("build: the program `a` uses map 17\nmore"),
            kind("build: the program `b` uses map 5")
        );
        assert_ne!(kind("build: arena"), kind("build: struct_ops"));
    }

    #[test]
    fn the_table_counts_by_source() {
        let mut row = Row::new("a", Source::Debian);
        row.accepted = 3;
        let other = Row::new("b", Source::Selftests);
        let text = table(&[row, other]);
        let debian = text
            .lines()
            .find(|line| line.starts_with("debian"))
            .unwrap();
        assert_eq!(debian.split_whitespace().nth(1), Some("1"), "{text}");
        assert_eq!(debian.split_whitespace().nth(2), Some("1"), "{text}");
    }
}
