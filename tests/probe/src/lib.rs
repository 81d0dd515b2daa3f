//! What a test asks the kernel part through `preverify-probe`, and what it answers.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One thing to ask. Cases are answered in order, each on its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The manifest to open.
    pub manifest: Vec<u8>,
    /// The signature over it.
    pub signature: Vec<u8>,
    /// What to load from it, if it opens.
    pub load: Option<Load>,
    /// Capabilities (`CAP_*`) to give up first.
    pub without: Vec<u8>,
    /// How often; the answer is the last one. What was loaded is closed each time.
    pub times: u32,
}

/// A program to load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Its number in the manifest.
    pub program: u32,
    /// Of which kind the image is: `IMAGE_*`.
    pub kind: u32,
    /// Its image.
    pub image: Vec<u8>,
    /// The image's symbols.
    pub symbols: Vec<u8>,
    /// Its maps, created for this case.
    pub maps: Vec<Map>,
}

/// A map to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// The map type's extra attribute.
    pub map_extra: u64,
    /// What its element 0 holds, if anything was written there.
    pub contents: Option<Vec<u8>>,
    /// Frozen after that.
    pub frozen: bool,
    /// Another map of this list, as the template of the inner ones.
    pub inner: Option<usize>,
}

/// The kernel part's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It loaded what was asked for.
    Done,
    /// It opened the bundle, and nothing was to be loaded.
    Opened {
        /// Which images fit: `OPEN_*`.
        fit: u32,
        /// Why native images do not fit, if they do not.
        reason: String,
    },
    /// It did not open the bundle.
    NotOpened(Refusal),
    /// It opened the bundle, but did not load the program.
    NotLoaded(Refusal),
    /// The kernel did not create a map: nothing was asked.
    NoMap(i32),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The errno.
    pub errno: i32,
    /// The sentence.
    pub reason: String,
}
