//! The symbols of the kernel of devices, by name.

use std::collections::HashMap;
use std::fmt::Write;

/// The symbols of a kernel's file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSymbols {
    by_name: HashMap<String, Vec<Place>>,
}

/// Where a symbol lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Bytes from `_text`.
    pub offset: u64,
    /// Its bytes; zero if it only marks a place.
    pub size: u64,
}

impl DeviceSymbols {
    /// The symbol's place, if its name is unique.
    pub fn get(&self, name: &str) -> Option<Place> {
        match self.all(name) {
            [place] => Some(*place),
            _ => None,
        }
    }

    /// The places of all symbols of that name.
    pub fn all(&self, name: &str) -> &[Place] {
        self.by_name.get(name).map_or(&[], |places| places)
    }

    /// Adds a symbol.
    pub fn add(&mut self, name: &str, place: Place) {
        self.by_name.entry(name.to_owned()).or_default().push(place);
    }

    /// As the store keeps them: `OFFSET SIZE NAME` in each line.
    pub(crate) fn to_text(&self) -> String {
        let mut lines: Vec<_> = self
            .by_name
            .iter()
            .flat_map(|(name, places)| places.iter().map(move |place| (*place, name)))
            .collect();
        lines.sort();
        lines.iter().fold(String::new(), |mut text, (place, name)| {
            let Place { offset, size } = place;
            writeln!(text, "{offset:x} {size:x} {name}").expect("strings grow");
            text
        })
    }

    /// Lines that are none of [`Self::to_text`]'s are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut symbols = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let mut number = || u64::from_str_radix(words.next()?, 16).ok();
            if let (Some(offset), Some(size)) = (number(), number())
                && let Some(name) = words.next()
            {
                symbols.add(name, Place { offset, size });
            }
        }
        symbols
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_survive_being_written_down() {
        let mut symbols = DeviceSymbols::default();
        let place = |offset, size| Place { offset, size };
        symbols.add("_text", place(0, 0));
        symbols.add("once", place(0x40, 16));
        symbols.add("twice", place(0x50, 16));
        symbols.add("twice", place(0x60, 16));
        let read = DeviceSymbols::parse(&symbols.to_text());
        assert_eq!(read, symbols);
        assert_eq!(read.get("once"), Some(place(0x40, 16)));
        assert_eq!(read.get("twice"), None);
        assert_eq!(read.all("twice").len(), 2);
        assert_eq!(read.get("nobody"), None);
    }
}
