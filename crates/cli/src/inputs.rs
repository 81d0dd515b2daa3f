//! What an object's own user space would set, from options and from a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_pipeline::inputs::{self, InputsError};
use preverify_pipeline::inputs_beside;
use preverify_protocol::Inputs;

/// The options for it.
#[derive(clap::Args)]
pub struct InputArgs {
    /// What the object's user space would set [default: the object's file with `.toml` for `.o`, if it exists]
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Set a global variable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Load a program that the object leaves out by itself
    #[arg(long, value_name = "PROGRAM")]
    autoload: Vec<String>,
    /// Leave a program out
    #[arg(long, value_name = "PROGRAM")]
    no_autoload: Vec<String>,
    /// The function or hook that a program attaches to
    #[arg(long, value_name = "PROGRAM=FUNCTION")]
    attach_target: Vec<String>,
}

/// The options are wrong.
#[derive(Debug, thiserror::Error)]
pub enum InputsArgsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is wrong.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: InputsError },
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] InputsError),
}

impl InputArgs {
    /// What is set for an object.
    pub fn of(&self, object: &Path) -> Result<Inputs, InputsArgsError> {
        let beside = inputs_beside(object);
        let file = self
            .inputs
            .clone()
            .or_else(|| beside.exists().then_some(beside));
        let mut inputs = match file {
            Some(path) => read(path)?,
            None => Inputs::default(),
        };
        for setting in &self.settings {
            let (name, value) = inputs::parse_setting(setting)?;
            inputs.globals.insert(name, value);
        }
        for program in &self.autoload {
            inputs.programs.entry(program.clone()).or_default().autoload = Some(true);
        }
        for program in &self.no_autoload {
            inputs.programs.entry(program.clone()).or_default().autoload = Some(false);
        }
        for setting in &self.attach_target {
            let (program, function) = inputs::split_setting(setting)?;
            let program = inputs.programs.entry(program.into()).or_default();
            program.attach_target = Some(function.into());
        }
        Ok(inputs)
    }
}

fn read(path: PathBuf) -> Result<Inputs, InputsArgsError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(InputsArgsError::Read { path, source }),
    };
    inputs::parse(&text).map_err(|source| InputsArgsError::File { path, source })
}
