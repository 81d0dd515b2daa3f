//! The `.pvb` file: written whole, read whole or section by section.

use std::fs::File;
#[cfg(feature = "write")]
use std::io;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use preverify_abi::ABI_VERSION;
use preverify_abi::container::{CONTAINER_MAGIC, ContainerHeader, Placement, SECTION_ALIGNMENT};
use preverify_abi::manifest::MANIFEST_MAX_SIZE;
use zerocopy::{FromBytes, IntoBytes};

use crate::layout::aligned;
use crate::{FormatError, Manifest, ReadError, SectionId, SectionKind};

/// The largest signature that is read: dozens of signers.
const SIGNATURE_MAX_SIZE: u64 = 64 << 10;

/// A whole bundle in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
    sections: Vec<Vec<u8>>,
}

impl Bundle {
    pub(crate) fn new(manifest: Manifest, sections: Vec<Vec<u8>>) -> Result<Self, FormatError> {
        Ok(Self {
            manifest_bytes: manifest.encode()?,
            manifest,
            signature: None,
            sections,
        })
    }

    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Reader::open(path)?.read_all()
    }

    /// Reads a file's bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let reader = Reader::new(Cursor::new(bytes), "bundle");
        match reader.and_then(Reader::read_all) {
            Ok(bundle) => Ok(bundle),
            Err(ReadError::Format(error)) => Err(error),
            // Memory has no other trouble than to end; the reader has checked its size before.
            Err(ReadError::Io { place, .. }) => Err(FormatError::Truncated {
                place,
                needed: u64::MAX,
                found: bytes.len() as u64,
            }),
        }
    }

    /// What is signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that are signed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The detached CMS signature over [`Bundle::manifest_bytes`].
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }

    /// Puts a signature in, or takes it out.
    pub fn set_signature(&mut self, signature: Option<Vec<u8>>) {
        self.signature = signature.filter(|signature| !signature.is_empty());
    }

    /// A section's bytes.
    pub fn section(&self, id: SectionId) -> Option<&[u8]> {
        self.sections.get(id.index()).map(Vec::as_slice)
    }

    /// All sections: their ids, kinds and bytes.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (SectionId, SectionKind, &[u8])> {
        let stored = self.manifest.sections.iter().zip(&self.sections);
        (0..)
            .zip(stored)
            .map(|(id, (section, bytes))| (SectionId(id), section.kind, bytes.as_slice()))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let signature = self.signature.as_deref().unwrap_or_default();
        let sizes = self.sections.iter().map(|bytes| bytes.len() as u64);
        let plan = Plan::new(
            self.manifest_bytes.len() as u64,
            signature.len() as u64,
            sizes,
        );
        let mut bytes = plan.header.as_bytes().to_vec();
        bytes.extend_from_slice(plan.sections.as_bytes());
        let parts = [&self.manifest_bytes[..], signature]
            .into_iter()
            .chain(self.sections.iter().map(Vec::as_slice));
        for part in parts {
            bytes.extend_from_slice(part);
            bytes.resize(aligned(bytes.len()), 0);
        }
        bytes
    }

    /// Writes a file: all of it, or nothing.
    #[cfg(feature = "write")]
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        write_atomically(path, &self.to_bytes())
    }
}

/// A bundle could not be written.
#[cfg(feature = "write")]
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct WriteError {
    path: String,
    source: io::Error,
}

#[cfg(feature = "write")]
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        // A temporary file is private by default; a bundle is for everyone, within the umask.
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| WriteError {
        path: path.display().to_string(),
        source,
    })
}

/// Where everything lies in a file: header, placements, manifest, signature, sections, each
/// followed by zeroes up to a multiple of [`SECTION_ALIGNMENT`].
struct Plan {
    header: ContainerHeader,
    sections: Vec<Placement>,
    size: u64,
}

impl Plan {
    fn new(manifest: u64, signature: u64, sections: impl ExactSizeIterator<Item = u64>) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a manifest counts in 32 bits"
        )]
        let section_count = sections.len() as u32;
        let mut end = size_of::<ContainerHeader>() as u64
            + u64::from(section_count) * size_of::<Placement>() as u64;
        let mut place = |size: u64| {
            let offset = end;
            end += size.next_multiple_of(SECTION_ALIGNMENT);
            Placement {
                offset: offset.into(),
                size: size.into(),
            }
        };
        let header = ContainerHeader {
            magic: CONTAINER_MAGIC,
            version: ABI_VERSION.into(),
            section_count: section_count.into(),
            manifest: place(manifest),
            signature: place(signature),
        };
        let sections = sections.map(place).collect();
        Self {
            header,
            sections,
            size: end,
        }
    }

    /// Compares with what a file says of itself.
    fn check(
        &self,
        header: &ContainerHeader,
        placements: &[u8],
        size: u64,
    ) -> Result<(), FormatError> {
        if *header != self.header {
            return Err(FormatError::value(
                "bundle header",
                format!("{:?}", self.header),
                format!("{header:?}"),
            ));
        }
        if size < self.size {
            return Err(FormatError::Truncated {
                place: "bundle".to_owned(),
                needed: self.size,
                found: size,
            });
        }
        if size > self.size {
            return Err(FormatError::value(
                "bundle, size",
                self.size.to_string(),
                size.to_string(),
            ));
        }
        if placements != self.sections.as_bytes() {
            return Err(FormatError::value(
                "bundle, places of the sections",
                "one behind the other, with the sizes that the manifest names",
                "other places",
            ));
        }
        Ok(())
    }
}

/// A bundle that is read section by section.
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
    sections: Vec<Placement>,
}

impl Reader<File> {
    /// Opens a file and reads all but its sections.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| ReadError::Io {
            place: name.clone(),
            source,
        })?;
        Self::new(file, &name)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads all but the sections; `name` is for messages.
    pub fn new(inner: R, name: &str) -> Result<Self, ReadError> {
        let mut source = Source::new(inner, name)?;
        let header = source.header()?;
        check_size("manifest", header.manifest, MANIFEST_MAX_SIZE.into())?;
        check_size("signature", header.signature, SIGNATURE_MAX_SIZE)?;
        let manifest_bytes = source.placed(header.manifest, "manifest")?;
        let manifest = Manifest::decode(&manifest_bytes)?;

        let plan = Plan::new(
            header.manifest.size.get(),
            header.signature.size.get(),
            manifest.sections.iter().map(|section| section.size.into()),
        );
        let placements = Placement {
            offset: (size_of::<ContainerHeader>() as u64).into(),
            size: (plan.sections.as_bytes().len() as u64).into(),
        };
        let placements = source.placed(placements, "places of the sections")?;
        plan.check(&header, &placements, source.size)?;
        let signature = source.placed(header.signature, "signature")?;
        Ok(Self {
            source,
            manifest,
            manifest_bytes,
            signature: Some(signature).filter(|signature| !signature.is_empty()),
            sections: plan.sections,
        })
    }

    /// What is signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that are signed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The detached CMS signature over [`Reader::manifest_bytes`].
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }

    /// Reads a section and checks its digest.
    pub fn section(&mut self, id: SectionId) -> Result<Vec<u8>, ReadError> {
        let (Some(section), Some(&placement)) =
            (self.manifest.section(id), self.sections.get(id.index()))
        else {
            return Err(ReadError::Format(FormatError::Index {
                place: self.source.name.clone(),
                table: "section",
                index: id.0.into(),
                count: self.sections.len() as u64,
            }));
        };
        let bytes = self.source.placed(placement, &format!("section {id}"))?;
        if !section.matches(&bytes) {
            return Err(ReadError::Format(FormatError::Digest {
                section: id.0,
                kind: section.kind,
            }));
        }
        Ok(bytes)
    }

    /// Reads everything.
    pub fn read_all(mut self) -> Result<Bundle, ReadError> {
        let count = u32::try_from(self.sections.len()).map_err(|_| FormatError::TooMuch {
            place: "sections".to_owned(),
            limit: u32::MAX.into(),
            found: self.sections.len() as u64,
        })?;
        let sections = (0..count)
            .map(|id| self.section(SectionId(id)))
            .collect::<Result<_, _>>()?;
        Ok(Bundle {
            manifest: self.manifest,
            manifest_bytes: self.manifest_bytes,
            signature: self.signature,
            sections,
        })
    }
}

fn check_size(place: &str, placement: Placement, limit: u64) -> Result<(), FormatError> {
    if placement.size <= limit {
        return Ok(());
    }
    Err(FormatError::TooMuch {
        place: format!("{place}, size"),
        limit,
        found: placement.size.get(),
    })
}

/// Something to read from, with a name for messages.
#[derive(Debug)]
struct Source<R> {
    inner: R,
    name: String,
    size: u64,
}

impl<R: Read + Seek> Source<R> {
    fn new(mut inner: R, name: &str) -> Result<Self, ReadError> {
        let size = inner
            .seek(SeekFrom::End(0))
            .map_err(|source| ReadError::Io {
                place: name.to_owned(),
                source,
            })?;
        Ok(Self {
            inner,
            name: name.to_owned(),
            size,
        })
    }

    fn header(&mut self) -> Result<ContainerHeader, ReadError> {
        let placement = Placement {
            offset: 0.into(),
            size: (size_of::<ContainerHeader>() as u64).into(),
        };
        let bytes = self.placed(placement, "header")?;
        let header =
            ContainerHeader::read_from_bytes(&bytes).expect("the size is that of the header");
        if header.magic != CONTAINER_MAGIC {
            return Err(ReadError::Format(FormatError::Magic {
                place: "bundle",
                expected: CONTAINER_MAGIC,
                found: header.magic,
            }));
        }
        if header.version != ABI_VERSION {
            return Err(ReadError::Format(FormatError::Version {
                place: "bundle",
                expected: ABI_VERSION,
                found: header.version.get(),
            }));
        }
        Ok(header)
    }

    /// The bytes at `placement`; those behind them, up to the alignment, must be zero.
    fn placed(&mut self, placement: Placement, what: &str) -> Result<Vec<u8>, ReadError> {
        let (offset, size) = (placement.offset.get(), placement.size.get());
        let place = format!("{}, {what}", self.name);
        let truncated = |needed| FormatError::Truncated {
            place: place.clone(),
            needed,
            found: self.size,
        };
        let padded = size
            .checked_next_multiple_of(SECTION_ALIGNMENT)
            .ok_or_else(|| truncated(u64::MAX))?;
        let end = offset
            .checked_add(padded)
            .ok_or_else(|| truncated(u64::MAX))?;
        let (true, Ok(padded), Ok(size)) = (
            end <= self.size,
            usize::try_from(padded),
            usize::try_from(size),
        ) else {
            return Err(truncated(end).into());
        };
        let mut bytes = vec![0; padded];
        self.inner
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.inner.read_exact(&mut bytes))
            .map_err(|source| ReadError::Io {
                place: place.clone(),
                source,
            })?;
        if bytes[size..].iter().any(|&byte| byte != 0) {
            return Err(FormatError::value(
                place,
                "zeroes up to the next multiple of 8",
                "other bytes",
            )
            .into());
        }
        bytes.truncate(size);
        Ok(bytes)
    }
}
