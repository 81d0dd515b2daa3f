//! Records of all formats, as the versions that had them wrote them: this version opens them, and reads what they say.
//!
//! A format that was ever in use has its schema and its records here for good. Whoever changes what is written makes a new
//! one, with a migration, and adds it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use jiff::Timestamp;
use opentelemetry::propagation::Injector;
use preverify_pipeline::Limits;
use preverify_protocol::{GlobalValue, Inputs, MapInputs, ProgramInputs, Share, WantedLimits};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{FORMAT, Page, Records, Sqlite, write};
use crate::audit::{Action, Deed, Entry};
use crate::digest::Digest;
use crate::job::{Ended, Job, JobEnd, JobTarget};
use crate::scheduler::Waiter;
use crate::task::{Accepted, Outcome, Program, Refused, Task, Verification, Work};
use crate::tenants::Quota;
use crate::tokens::{Scope, Token};
use crate::traces::Origin;

/// Set, it has the test write what it would compare. That is right only as long as no release has written this format.
const WRITE: &str = "PREVERIFY_WRITE_RECORDS";

/// The schema of each format, from the first on.
const SCHEMAS: [&str; FORMAT as usize] = [
    "CREATE TABLE record (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
];

/// Where the records of a format are: a line for each, with its key and its value.
fn samples(format: u32) -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    format!("{folder}/src/records/formats/{format}.txt")
}

#[tokio::test]
async fn databases_of_all_formats_are_opened() {
    for (format, schema) in (1..).zip(SCHEMAS) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let written = fs::read_to_string(samples(format)).unwrap();
        let count = fill(&path, format, schema, &written);
        let records = Records::from(Sqlite::open(&path).unwrap());
        assert_eq!(read_all(&records).await, count, "format {format}");
        let connection = Connection::open(&path).unwrap();
        let now: u32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(now, FORMAT);
    }
}

/// Writes a database as the version did that had its format; returns how many records it has.
fn fill(path: &Path, format: u32, schema: &str, records: &str) -> usize {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(schema).unwrap();
    connection
        .pragma_update(None, "user_version", format)
        .unwrap();
    for line in records.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let insert = "INSERT INTO record VALUES (?1, 1, ?2)";
        let value = value.as_bytes();
        connection.execute(insert, params![key, value]).unwrap();
    }
    records.lines().count()
}

/// Reads all records as what they are.
async fn read_all(records: &Records) -> usize {
    async fn read<T: DeserializeOwned>(records: &Records, prefix: &str) -> usize {
        records.list::<T>(prefix, Page::ALL).await.unwrap().len()
    }
    read::<Job>(records, "job.").await
        + read::<Task>(records, "task.").await
        + read::<Waiter>(records, "wait.").await
        + read::<Token>(records, "token.").await
        + read::<Quota>(records, "quota.").await
        + read::<Duration>(records, "usage.").await
        + read::<Vec<Entry>>(records, "audit.").await
}

#[test]
fn records_are_written_as_this_format_has_them() {
    let written: String = examples()
        .iter()
        .map(|(key, value)| format!("{key} {value}\n"))
        .collect();
    if env::var_os(WRITE).is_some() {
        fs::write(samples(FORMAT), &written).unwrap();
    }
    let committed = fs::read_to_string(samples(FORMAT)).unwrap();
    for (written, committed) in written.lines().zip(committed.lines()) {
        assert_eq!(
            written, committed,
            "this is not how format {FORMAT} has it: raise the format, and write a migration"
        );
    }
    assert_eq!(written.lines().count(), committed.lines().count());
}

#[test]
fn what_was_read_is_written_the_same_again() {
    let committed = fs::read_to_string(samples(FORMAT)).unwrap();
    for line in committed.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        assert_eq!(rewritten(key, value).unwrap(), value, "{key}");
    }
}

#[test]
fn fields_that_would_be_lost_are_refused() {
    let committed = fs::read_to_string(samples(FORMAT)).unwrap();
    // Entries of the audit log are never written anew.
    let records = committed.lines().filter(|line| !line.starts_with("audit."));
    let mut objects = 0;
    for line in records {
        let (key, value) = line.split_once(' ').unwrap();
        let mut record: Value = serde_json::from_str(value).unwrap();
        let count = count_objects(&mut record);
        for place in 0..count {
            let mut changed = record.clone();
            if !add_unknown(&mut changed, place) {
                continue;
            }
            let error = rewritten(key, &changed.to_string());
            assert!(error.is_err(), "{key}: {changed}");
            objects += 1;
        }
    }
    assert!(objects > 50, "{objects}");
}

/// Reads a record as what its key says, and writes it again.
fn rewritten(key: &str, value: &str) -> Result<String, serde_json::Error> {
    fn through<T: DeserializeOwned + Serialize>(value: &str) -> Result<String, serde_json::Error> {
        let record: T = serde_json::from_str(value)?;
        Ok(text(&record))
    }
    match key.split('.').next().unwrap() {
        "job" => through::<Job>(value),
        "task" => through::<Task>(value),
        "wait" => through::<Waiter>(value),
        "token" => through::<Token>(value),
        "quota" => through::<Quota>(value),
        "usage" => through::<Duration>(value),
        "audit" => through::<Vec<Entry>>(value),
        kind => panic!("nobody reads {kind}"),
    }
}

fn text(record: &impl Serialize) -> String {
    String::from_utf8(write(record)).unwrap()
}

/// Objects in a value, with itself.
fn count_objects(value: &mut Value) -> usize {
    let mut count = 0;
    visit(value, &mut |_, _| count += 1);
    count
}

/// Gives one object in a value, found by its number, a field that nobody knows. False: its keys are names, and any will do.
fn add_unknown(value: &mut Value, number: usize) -> bool {
    let (mut place, mut added) = (0, false);
    visit(value, &mut |name, object| {
        if place == number && !NAMES.contains(&name) {
            object.insert("unknown".into(), 1.into());
            added = true;
        }
        place += 1;
    });
    added
}

/// Fields whose value has names for keys.
const NAMES: [&str; 4] = ["maps", "programs", "globals", "origin"];

fn visit(value: &mut Value, each: &mut dyn FnMut(&str, &mut serde_json::Map<String, Value>)) {
    fn under(
        name: &str,
        value: &mut Value,
        each: &mut dyn FnMut(&str, &mut serde_json::Map<String, Value>),
    ) {
        match value {
            Value::Object(object) => {
                each(name, object);
                for (name, value) in object {
                    under(name, value, each);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| under("", value, each)),
            _ => {}
        }
    }
    under("", value, each);
}

/// Each kind of record, with each field both set and not, as this version writes it.
fn examples() -> BTreeMap<String, String> {
    let (job, other_job) = (
        "0192f0a1b2c3d4e5f60718293a4b",
        "0192f0a1b2c4d4e5f60718293a4b",
    );
    let task = |name: &str| Digest::of(name.as_bytes());
    let mut all = BTreeMap::new();
    let mut add = |key: String, value: String| {
        assert!(all.insert(key, value).is_none(), "keys are there once");
    };

    for (number, (end, targets)) in ends().into_iter().zip([1, 2, 1, 1]).enumerate() {
        let id = format!("0192f0a1b2c3d4e5f60718293a{number:02x}");
        let record = Job {
            id: id.parse().unwrap(),
            tenant: "acme".into(),
            submitted: at(0),
            name: "xdp".into(),
            object: Digest::of(b"object"),
            targets: ["board", "gateway"][..targets]
                .iter()
                .map(|name| JobTarget {
                    name: (*name).into(),
                    task: task(name),
                    parts: match *name {
                        "gateway" => vec![task("first"), task("second")],
                        _ => Vec::new(),
                    },
                })
                .collect(),
            last: task("last"),
            end: end.map(|how| JobEnd { at: at(90), how }),
        };
        add(format!("job.acme.{id}"), text(&record));
    }
    let mut traced = Origin::default();
    traced.set(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
    );
    for (work, outcome) in works().into_iter().cycle().zip(outcomes()) {
        let record = Task {
            work,
            tenant: "acme".into(),
            origin: match outcome {
                None => traced.clone(),
                Some(_) => Origin::default(),
            },
            outcome,
        };
        let text = text(&record);
        add(format!("task.{}", Digest::of(text.as_bytes())), text);
    }
    let (waited, merge) = (task("board"), task("merge"));
    add(
        format!("wait.{waited}.task.{merge}"),
        text(&Waiter::Merge(merge)),
    );
    let waiter = Waiter::Job {
        tenant: "acme".into(),
        id: job.parse().unwrap(),
    };
    add(format!("wait.{waited}.job.acme.{job}"), text(&waiter));
    for (name, scopes, expires) in [
        (
            "first",
            &[Scope::Submit, Scope::Read, Scope::Admin][..],
            None,
        ),
        ("ci", &[Scope::Submit], Some(at(3600))),
    ] {
        let record = Token {
            name: name.into(),
            tenant: "default".into(),
            scopes: scopes.iter().copied().collect(),
            created: at(0),
            expires,
        };
        add(format!("token.{}", task(name)), text(&record));
    }
    let quota = Quota {
        open_jobs: 1,
        jobs_per_minute: 2,
        object_bytes: 3,
        seconds_per_day: 4,
    };
    add("quota.acme".into(), text(&quota));
    let spent = Duration::from_millis(1500);
    add("usage.acme.2026-01-31".into(), text(&spent));
    let mut previous = Digest::of(b"");
    let mut entries = Vec::new();
    for (number, action) in (0..).zip([
        Action::IssueToken,
        Action::Submit,
        Action::Fetch,
        Action::SetQuota,
        Action::RevokeToken,
    ]) {
        let mut entry = Entry {
            number,
            deed: Deed {
                at: at(number),
                tenant: "acme".into(),
                token: "ci".into(),
                action,
                subject: other_job.into(),
            },
            previous,
            hash: previous,
        };
        entry.hash = entry.expected_hash();
        previous = entry.hash;
        entries.push(entry);
    }
    add("audit.00000000000000000000".into(), text(&entries));
    all
}

fn at(seconds: u64) -> Timestamp {
    let second = 1_769_817_600 + i64::try_from(seconds).unwrap();
    Timestamp::new(second, 123_456_789).unwrap()
}

fn ends() -> [Option<Ended>; 4] {
    [
        None,
        Some(Ended::Bundle {
            digest: Digest::of(b"bundle"),
            bytes: 4096,
        }),
        Some(Ended::Refused),
        Some(Ended::Failed {
            reason: "the machine crashed".into(),
        }),
    ]
}

fn works() -> [Work; 4] {
    let usual = Verification {
        object: Digest::of(b"object"),
        name: "xdp".into(),
        inputs: Inputs::default(),
        limits: Limits::default(),
        target: "0f".repeat(32),
        share: None,
    };
    let map = MapInputs {
        max_entries: Some(1),
        value_size: Some(2),
        autocreate: Some(true),
    };
    let program = ProgramInputs {
        autoload: Some(false),
        attach_target: Some("tcp_connect".into()),
    };
    let full = Verification {
        inputs: Inputs {
            maps: [("flows".into(), map)].into(),
            programs: [("count".into(), program)].into(),
            globals: [
                ("limit".into(), GlobalValue::Integer(-1)),
                ("mac".into(), GlobalValue::Bytes(vec![2, 255])),
            ]
            .into(),
            kconfig: Some("CONFIG_HZ=250".into()),
            modules: vec!["nf_conntrack".into()],
        },
        limits: Limits {
            verifier: WantedLimits {
                insns: Some(64 << 20),
                jumps: Some(16384),
            },
            memory_mib: Some(4096),
            time: Duration::from_secs(1800),
        },
        share: Some(Share { number: 1, of: 4 }),
        ..usual.clone()
    };
    [
        Work::Verify(Box::new(usual)),
        Work::Verify(Box::new(full)),
        Work::Join {
            parts: vec![Digest::of(b"first"), Digest::of(b"second")],
        },
        Work::Merge {
            parts: vec![Digest::of(b"board"), Digest::of(b"gateway")],
        },
    ]
}

fn outcomes() -> [Option<Outcome>; 6] {
    let program = |native_bytes, bytecode_bytes| Program {
        function: "count".into(),
        total_insns: 1,
        total_states: 2,
        peak_states: 3,
        duration_us: 4,
        native_bytes,
        bytecode_bytes,
    };
    let refused = |program: Option<&str>, log| {
        Some(Outcome::Refused(Refused {
            message: "count: invalid access to packet".into(),
            program: program.map(str::to_owned),
            log,
        }))
    };
    let accepted = |programs, notes| {
        Some(Outcome::Bundle(Accepted {
            bundle: Digest::of(b"bundle"),
            bytes: 4096,
            programs,
            notes,
        }))
    };
    [
        None,
        accepted(
            vec![program(Some(5), Some(6)), program(None, None)],
            vec!["a note".into()],
        ),
        accepted(Vec::new(), Vec::new()),
        refused(Some("count"), Some(Digest::of(b"log"))),
        refused(None, None),
        Some(Outcome::Failed {
            reason: "the machine crashed".into(),
        }),
    ]
}
