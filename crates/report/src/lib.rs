//! What there is to tell about a bundle.
//!
//! - [`Report`]: all of it but code, as data that is shown to people and written as JSON.
//! - [`Code`]: the code of programs, with names in the place of addresses.
//! - [`images`]: the images of programs, held against the manifest.

#![forbid(unsafe_code)]

mod code;
pub mod images;
pub mod report;
mod words;

pub use code::{Code, names, programs};
pub use images::ImageProblem;
pub use report::Report;
