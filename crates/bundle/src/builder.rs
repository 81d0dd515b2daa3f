//! From targets and sections to a bundle.

use std::collections::HashMap;

use crate::layout::number;
use crate::model::digest;
use crate::rules::section_references;
use crate::{Bundle, FormatError, Image, Manifest, Section, SectionId, SectionKind, Target};

/// Collects targets and sections.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    targets: Vec<Target>,
    sections: Vec<(Section, Vec<u8>)>,
    known: HashMap<Section, SectionId>,
}

impl Builder {
    /// A bundle of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section; equal ones are stored once. The id is good for targets of this builder.
    pub fn section(&mut self, kind: SectionKind, bytes: Vec<u8>) -> Result<SectionId, FormatError> {
        let section = Section {
            digest: digest(&bytes),
            size: number(&format!("section with {kind}"), bytes.len(), u32::MAX)?,
            kind,
        };
        if let Some(&id) = self.known.get(&section) {
            return Ok(id);
        }
        let id = SectionId(number("sections", self.sections.len(), u32::MAX - 1)?);
        self.sections.push((section, bytes));
        self.known.insert(section, id);
        Ok(id)
    }

    /// Adds a target.
    pub fn target(&mut self, target: Target) {
        self.targets.push(target);
    }

    /// Adds the targets of a bundle, with all that they refer to.
    pub fn targets_of(&mut self, bundle: &Bundle) -> Result<(), FormatError> {
        let targets = self.sections_of(bundle)?;
        self.targets.extend(targets);
        Ok(())
    }

    /// Adds the sections of a bundle. Its targets come back, as they refer to them here.
    pub fn sections_of(&mut self, bundle: &Bundle) -> Result<Vec<Target>, FormatError> {
        let mut new = HashMap::new();
        for (old, kind, bytes) in bundle.sections() {
            new.insert(old, self.section(kind, bytes.to_vec())?);
        }
        let names = Renaming { new };
        let mut targets = bundle.manifest().targets.clone();
        for target in &mut targets {
            names.apply(target);
        }
        Ok(targets)
    }

    /// The unsigned bundle. Its sections are numbered by first use, so they are the same
    /// whatever order they were added in; those that nothing refers to are left out.
    pub fn finish(self) -> Result<Bundle, FormatError> {
        let Self {
            mut targets,
            sections,
            ..
        } = self;
        let (order, names) = by_first_use(&targets);
        for target in &mut targets {
            names.apply(target);
        }
        let mut sections: Vec<_> = sections.into_iter().map(Some).collect();
        let mut manifest = Manifest {
            targets,
            sections: Vec::new(),
        };
        let mut contents = Vec::new();
        for id in &order {
            // An id of another builder finds nothing here; `encode` refuses the gap.
            if let Some((section, bytes)) = sections.get_mut(id.index()).and_then(Option::take) {
                manifest.sections.push(section);
                contents.push(bytes);
            }
        }
        Bundle::new(manifest, contents)
    }
}

/// The sections in the order of their first use, and what they are called if they are stored so.
fn by_first_use(targets: &[Target]) -> (Vec<SectionId>, Renaming) {
    let mut order = Vec::new();
    let mut new = HashMap::new();
    for (old, _, _) in targets.iter().flat_map(section_references) {
        new.entry(old).or_insert_with(|| {
            order.push(old);
            #[expect(clippy::cast_possible_truncation, reason = "ids are 32-bit themselves")]
            SectionId((order.len() - 1) as u32)
        });
    }
    (order, Renaming { new })
}

/// New ids for sections.
struct Renaming {
    /// By old id.
    new: HashMap<SectionId, SectionId>,
}

impl Renaming {
    fn apply(&self, target: &mut Target) {
        self.rename(&mut target.btf);
        self.rename(&mut target.evidence);
        for program in &mut target.programs {
            self.rename_image(&mut program.native);
            self.rename_image(&mut program.bytecode);
        }
        for map in &mut target.maps {
            self.rename(&mut map.contents);
        }
    }

    fn rename_image(&self, image: &mut Option<Image>) {
        if let Some(Image { image, symbols }) = image {
            *image = self.new[image];
            self.rename(symbols);
        }
    }

    fn rename(&self, id: &mut Option<SectionId>) {
        if let Some(id) = id {
            *id = self.new[id];
        }
    }
}
