//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::{Long, Short, Value};
use preverify_device::ImageChoice;
use preverify_device::attach::plan::{Plan, PlanError};
use preverify_device::pins::BPF_FS;

use crate::help;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this.
    Print(String),
    Load(Load),
    Run(Run),
    List {
        folder: PathBuf,
        json: bool,
    },
    Unload {
        folder: PathBuf,
    },
    Trust {
        certificates: Vec<PathBuf>,
    },
    Fingerprint {
        json: bool,
    },
    MapDump {
        path: PathBuf,
        json: bool,
    },
    Events(Events),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    pub bundle: PathBuf,
    pub programs: Vec<String>,
    pub pin: Option<PathBuf>,
    pub attach: Vec<Attach>,
    pub image: ImageChoice,
    pub stock_limits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub bundle: PathBuf,
    pub attach: Vec<Attach>,
    pub pin: Option<PathBuf>,
    pub image: ImageChoice,
    pub stock_limits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// None: the bundle's only one.
    pub program: Option<String>,
    pub plan: Plan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    pub path: PathBuf,
    pub count: Option<u64>,
    pub timeout: Option<Duration>,
    pub json: bool,
}

/// A command line that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("{0}; see preverify-load --help")]
    Arguments(#[from] lexopt::Error),
    #[error("there is no command {0:?}; see preverify-load --help")]
    UnknownCommand(OsString),
    #[error("{command} needs {what}; see preverify-load {command} --help")]
    Missing {
        command: &'static str,
        what: &'static str,
    },
    #[error("{option} {value:?}: expected {expected}")]
    Value {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("--attach {0}")]
    Plan(PlanError),
}

/// Reads a command line.
pub fn parse(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let Some(first) = parser.next()? else {
        return Ok(Command::Print(help::COMMAND.to_owned()));
    };
    let name = match first {
        Short('h') | Long("help") => return Ok(Command::Print(help::COMMAND.to_owned())),
        Short('V') | Long("version") => {
            let version = concat!("preverify-load ", env!("CARGO_PKG_VERSION"));
            return Ok(Command::Print(version.to_owned()));
        }
        Value(name) => name,
        other => return Err(other.unexpected().into()),
    };
    match name.to_str() {
        Some("load") => load(parser),
        Some("run") => run(parser),
        Some("list") => list(parser),
        Some("unload") => unload(parser),
        Some("trust") => trust(parser),
        Some("fingerprint") => fingerprint(parser),
        Some("map") => map(parser),
        Some("events") => events(parser),
        _ => Err(UsageError::UnknownCommand(name)),
    }
}

fn load(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut bundle, mut programs, mut pin, mut attach) = (None, Vec::new(), None, Vec::new());
    let (mut image, mut stock_limits) = (ImageChoice::default(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::LOAD.to_owned())),
            Long("program") => programs.push(text(&mut parser)?),
            Long("pin") => pin = Some(parser.value()?.into()),
            Long("attach") => attach.push(parse_attach(&text(&mut parser)?)?),
            Long("image") => image = parse_image(text(&mut parser)?)?,
            Long("stock-limits") => stock_limits = true,
            Value(path) if bundle.is_none() => bundle = Some(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    if !attach.is_empty() && pin.is_none() {
        return Err(UsageError::Missing {
            command: "load",
            what: "--pin DIR to keep what --attach attaches (or take run)",
        });
    }
    Ok(Command::Load(Load {
        bundle: bundle.ok_or(UsageError::Missing {
            command: "load",
            what: "a bundle",
        })?,
        programs,
        pin,
        attach,
        image,
        stock_limits,
    }))
}

fn run(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut bundle, mut attach, mut pin) = (None, Vec::new(), None);
    let (mut image, mut stock_limits) = (ImageChoice::default(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                let forms = preverify_device::attach::plan::FORMS.replace('\n', "\n    ");
                return Ok(Command::Print(format!("{}\n    {forms}", help::RUN)));
            }
            Long("attach") => attach.push(parse_attach(&text(&mut parser)?)?),
            Long("pin") => pin = Some(parser.value()?.into()),
            Long("image") => image = parse_image(text(&mut parser)?)?,
            Long("stock-limits") => stock_limits = true,
            Value(path) if bundle.is_none() => bundle = Some(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Run(Run {
        bundle: bundle.ok_or(UsageError::Missing {
            command: "run",
            what: "a bundle",
        })?,
        attach,
        pin,
        image,
        stock_limits,
    }))
}

/// `[PROGRAM=]WHERE`. Names of functions have neither colons nor slashes, places may contain
/// an equals sign behind these.
fn parse_attach(text: &str) -> Result<Attach, UsageError> {
    let (program, place) = match text.split_once('=') {
        Some((program, place)) if !program.contains([':', '/']) => (Some(program), place),
        _ => (None, text),
    };
    Ok(Attach {
        program: program.map(ToOwned::to_owned),
        plan: Plan::parse(place).map_err(UsageError::Plan)?,
    })
}

fn parse_image(value: String) -> Result<ImageChoice, UsageError> {
    match value.as_str() {
        "native" => Ok(ImageChoice::Native),
        "bytecode" => Ok(ImageChoice::Bytecode),
        _ => Err(UsageError::Value {
            option: "--image",
            value,
            expected: "native or bytecode",
        }),
    }
}

fn list(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut folder, mut json) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::LIST.to_owned())),
            Long("json") => json = true,
            Value(path) if folder.is_none() => folder = Some(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::List {
        folder: folder.unwrap_or_else(|| BPF_FS.into()),
        json,
    })
}

fn unload(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut folder = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::UNLOAD.to_owned())),
            Value(path) if folder.is_none() => folder = Some(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Unload {
        folder: folder.ok_or(UsageError::Missing {
            command: "unload",
            what: "a folder",
        })?,
    })
}

fn trust(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut certificates = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::TRUST.to_owned())),
            Value(path) => certificates.push(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    if certificates.is_empty() {
        return Err(UsageError::Missing {
            command: "trust",
            what: "a certificate",
        });
    }
    Ok(Command::Trust { certificates })
}

fn fingerprint(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut json = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::FINGERPRINT.to_owned())),
            Long("json") => json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Fingerprint { json })
}

fn map(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut dump, mut path, mut json) = (false, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::MAP.to_owned())),
            Long("json") => json = true,
            Value(word) if !dump && word == "dump" => dump = true,
            Value(given) if dump && path.is_none() => path = Some(given.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::MapDump {
        path: path.ok_or(UsageError::Missing {
            command: "map",
            what: "`dump` and the path of a pinned map",
        })?,
        json,
    })
}

fn events(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let (mut path, mut count, mut timeout, mut json) = (None, None, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help::EVENTS.to_owned())),
            Long("count") => count = Some(positive(&mut parser, "--count")?),
            Long("timeout") => {
                timeout = Some(Duration::from_secs(positive(&mut parser, "--timeout")?));
            }
            Long("json") => json = true,
            Value(given) if path.is_none() => path = Some(given.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Events(Events {
        path: path.ok_or(UsageError::Missing {
            command: "events",
            what: "the path of a pinned ring buffer or perf event array",
        })?,
        count,
        timeout,
        json,
    }))
}

fn positive(parser: &mut lexopt::Parser, option: &'static str) -> Result<u64, UsageError> {
    let value = text(parser)?;
    value
        .parse::<u32>()
        .ok()
        .filter(|&number| number > 0)
        .map(u64::from)
        .ok_or(UsageError::Value {
            option,
            value,
            expected: "a whole number above zero",
        })
}

fn text(parser: &mut lexopt::Parser) -> Result<String, UsageError> {
    parser
        .value()?
        .into_string()
        .map_err(|value| lexopt::Error::NonUnicodeValue(value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(lexopt::Parser::from_args(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn load_takes_programs_and_places() {
        assert_eq!(
            parsed("load x.pvb --program a --program=b --pin /sys/fs/bpf/x --attach a=xdp:eth0"),
            Ok(Command::Load(Load {
                bundle: "x.pvb".into(),
                programs: vec!["a".to_owned(), "b".to_owned()],
                pin: Some("/sys/fs/bpf/x".into()),
                attach: vec![Attach {
                    program: Some("a".to_owned()),
                    plan: Plan::parse("xdp:eth0").unwrap(),
                }],
                image: ImageChoice::Best,
                stock_limits: false,
            }))
        );
        let error = parsed("load x.pvb --attach a=xdp:eth0").unwrap_err();
        assert!(error.contains("--pin DIR"), "{error}");
        assert!(parsed("load").unwrap_err().contains("needs a bundle"));
        assert!(parsed("load a b").is_err());
    }

    #[test]
    fn run_takes_places_with_and_without_programs() {
        let Ok(Command::Run(run)) =
            parsed("run x.pvb --attach xdp:eth0 --attach p=kprobe/f+0x10 --attach cgroup:/a=b")
        else {
            panic!("not parsed");
        };
        let shown: Vec<_> = run
            .attach
            .iter()
            .map(|attach| (attach.program.as_deref(), attach.plan.to_string()))
            .collect();
        assert_eq!(
            shown,
            [
                (None, "xdp:eth0".to_owned()),
                (Some("p"), "kprobe/f+0x10".to_owned()),
                (None, "cgroup:/a=b".to_owned()),
            ]
        );
        assert!(
            parsed("run x.pvb --attach p=nowhere:1")
                .unwrap_err()
                .contains("known are")
        );
    }

    #[test]
    fn images_can_be_chosen() {
        for (line, expected) in [
            ("load x.pvb", ImageChoice::Best),
            ("load x.pvb --image native", ImageChoice::Native),
            ("run --image=bytecode x.pvb", ImageChoice::Bytecode),
        ] {
            let image = match parsed(line) {
                Ok(Command::Load(load)) => load.image,
                Ok(Command::Run(run)) => run.image,
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!(image, expected, "{line}");
        }
    }

    #[test]
    fn stock_limits_can_be_demanded() {
        for (line, expected) in [
            ("load x.pvb", false),
            ("load --stock-limits x.pvb", true),
            ("run x.pvb --stock-limits", true),
        ] {
            let demanded = match parsed(line) {
                Ok(Command::Load(load)) => load.stock_limits,
                Ok(Command::Run(run)) => run.stock_limits,
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!(demanded, expected, "{line}");
        }
    }

    #[test]
    fn the_others() {
        assert_eq!(
            parsed("list --json"),
            Ok(Command::List {
                folder: BPF_FS.into(),
                json: true
            })
        );
        assert_eq!(
            parsed("unload /sys/fs/bpf/x"),
            Ok(Command::Unload {
                folder: "/sys/fs/bpf/x".into()
            })
        );
        assert_eq!(
            parsed("trust a.pem b.der"),
            Ok(Command::Trust {
                certificates: vec!["a.pem".into(), "b.der".into()]
            })
        );
        assert_eq!(
            parsed("fingerprint"),
            Ok(Command::Fingerprint { json: false })
        );
        assert_eq!(
            parsed("map dump --json /m"),
            Ok(Command::MapDump {
                path: "/m".into(),
                json: true
            })
        );
        assert_eq!(
            parsed("events /m --count 3 --timeout 2"),
            Ok(Command::Events(Events {
                path: "/m".into(),
                count: Some(3),
                timeout: Some(Duration::from_secs(2)),
                json: false,
            }))
        );
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, part) in [
            ("frobnicate", "no command"),
            ("--frobnicate", "invalid option"),
            ("list --jsn", "invalid option"),
            ("unload", "needs a folder"),
            ("trust", "needs a certificate"),
            ("map /m", "unexpected argument"),
            ("map dump", "path of a pinned map"),
            ("load x.pvb --image best", "expected native or bytecode"),
            ("run x.pvb --image", "missing argument"),
            ("events /m --count 0", "above zero"),
            ("events /m --timeout soon", "above zero"),
            ("events /m --count", "missing argument"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        for line in [
            "",
            "--help",
            "-h",
            "load --help",
            "run -h",
            "list --help",
            "unload --help",
            "trust --help",
            "fingerprint --help",
            "map --help",
            "map dump --help",
            "events --help",
        ] {
            match parsed(line) {
                Ok(Command::Print(help)) => {
                    assert!(help.contains("    preverify-load "), "{line}: {help}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(matches!(parsed("--version"), Ok(Command::Print(_))));
    }
}
