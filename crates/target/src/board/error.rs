//! What can be wrong with a board.

use std::path::PathBuf;

use preverify_abi::ABI_VERSION;
use preverify_abi::kinds::Architecture;

/// What can be wrong with a board.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The file is no JSON.
    #[error(
        "{} is not what `preverify-load fingerprint --json` prints on a board: {source}",
        path.display()
    )]
    NoJson {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// A field of the file is missing, or is none, or has no such value.
    #[error(
        "{} is not what `preverify-load fingerprint --json` prints on a board: {field} {problem}",
        path.display()
    )]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The board has another version of the kernel part.
    #[error(
        "{} is from a kernel part of version {found}: expected version {ABI_VERSION}; put the kernel part and the \
         loader on the board that belong to this program, and take its fingerprint again",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version.
        found: u32,
    },
    /// The board has another processor than the kernel is for.
    #[error(
        "{} is from a board of {board} that runs {release}, and this kernel is for {kernel}: {way_out}",
        path.display()
    )]
    OtherArchitecture {
        /// The file.
        path: PathBuf,
        /// The board's.
        board: Architecture,
        /// What it runs.
        release: String,
        /// The kernel's.
        kernel: Architecture,
        /// How to name what the board runs.
        way_out: String,
    },
    /// The board runs another kernel.
    #[error(
        "{} is from a board that runs the kernel {board}, and this one is {kernel}: {way_out}, or boot this one there",
        path.display()
    )]
    OtherRelease {
        /// The file.
        path: PathBuf,
        /// What the board runs.
        board: String,
        /// The target's.
        kernel: String,
        /// How to name what the board runs.
        way_out: String,
    },
    /// The board runs another build of the kernel.
    #[error(
        "{} is from a board that runs another build of {release}: its build id is {board}, and that of this kernel is \
         {kernel}; give the files of that very build (--kernel, --modules, --headers), or boot this one there",
        path.display()
    )]
    OtherBuild {
        /// The file.
        path: PathBuf,
        /// What both call themselves.
        release: String,
        /// The board's.
        board: String,
        /// The target's.
        kernel: String,
    },
    /// The board has something that no verifier VM can have.
    #[error("the board of {} has {what}: {why}", path.display())]
    Beyond {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: String,
        /// Why that cannot be, and what to do.
        why: &'static str,
    },
    /// The machine differs from the board.
    #[error(
        "the machine ({options}) is not like the board of {}, and {}:{}{}",
        path.display(),
        consequence(differences),
        lines(differences),
        advice(differences, remedies)
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// The options that make the machine.
        options: String,
        /// What differs.
        differences: Vec<Difference>,
        /// What may help.
        remedies: Vec<String>,
    },
}

/// What a board has otherwise than the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is about.
    pub name: &'static str,
    /// Whether bytecode depends on it, too.
    pub always: bool,
    /// What the board has.
    pub board: String,
    /// What the machine has.
    pub here: String,
}

fn consequence(differences: &[Difference]) -> &'static str {
    if differences.iter().any(|difference| difference.always) {
        "the board would refuse its bundles"
    } else {
        "the board would refuse its machine code"
    }
}

fn lines(differences: &[Difference]) -> String {
    let line = |Difference {
                    name, board, here, ..
                }: &Difference| {
        format!("\n    {name}: \"{board}\" on the board, \"{here}\" here")
    };
    differences.iter().map(line).collect()
}

fn advice(differences: &[Difference], remedies: &[String]) -> String {
    let mut text =
        "\nOptions that are given count more than the board's fingerprint. What may help:"
            .to_owned();
    for remedy in remedies {
        text.push_str("\n    ");
        text.push_str(remedy);
    }
    if differences.iter().all(|difference| !difference.always) {
        text.push_str(
            "\n    no --fingerprint: the target is added with this machine, and the board loads bytecode images",
        );
    }
    text
}
