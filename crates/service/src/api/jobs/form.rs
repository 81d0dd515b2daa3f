//! The form that an object is submitted with.

use std::time::{Duration, Instant};

use axum::extract::Multipart;
use axum::extract::multipart::Field;
use preverify_pipeline::{Limits, inputs, object_name};
use preverify_protocol::Inputs;
use utoipa::ToSchema;

use super::super::App;
use super::super::objects::{check, digest};
use super::super::problem::Problem;
use super::super::targets::unknown;
use crate::digest::Digest;
use crate::shares::shares;

/// The longest name of an object: that of a file.
const NAME_LIMIT: usize = 255;
/// The most bytes of what is no object.
const TEXT_LIMIT: usize = 256 << 10;

/// The most bytes of inputs as they are kept: with an outcome, they have to fit into a message of NATS.
const INPUTS_LIMIT: usize = 384 << 10;

/// What was submitted.
pub struct Form {
    pub object: Digest,
    pub name: String,
    pub inputs: Inputs,
    pub limits: Limits,
    /// In how many shares its programs are verified.
    pub shares: u32,
    /// Names and identities.
    pub targets: Vec<(String, String)>,
}

/// The same for the API's description.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub struct Described {
    /// The BPF object, an ELF file as clang makes it. Its file name says what it is called, as in `xdp.bpf.o`.
    #[schema(value_type = Option<String>, format = Binary)]
    object: Option<Vec<u8>>,
    /// Instead, the SHA-256 of an object that is kept: see `PUT /v1/objects/{sha256}`.
    object_sha256: Option<String>,
    /// What the object is called, if its file name does not say so: the names of its maps begin with that.
    name: Option<String>,
    /// A target's name; can be given again.
    target: Vec<String>,
    /// What the object's user space would set, as TOML: see `preverify build --help`.
    inputs: Option<String>,
    /// How far the verification may go, as in `insns=64M,time=30min`.
    limits: Option<String>,
}

impl Form {
    /// Reads all of it, and keeps the object.
    pub async fn read(mut multipart: Multipart, app: &App, tenant: &str) -> Result<Self, Problem> {
        let mut read = Fields::default();
        while let Some(field) = multipart.next_field().await? {
            read.take(field, app.bounds.targets).await?;
        }
        let Fields {
            object,
            object_sha256,
            file_name,
            name,
            targets,
            inputs,
            limits,
        } = read;
        // Cheap questions first: the object is kept only if all else is well.
        let name = name.or(file_name.as_deref().map(object_name));
        let name = name.ok_or_else(|| {
            Problem::malformed(
                "the object has no name: send it with a file name, or with the field `name`",
            )
        })?;
        check_name(&name)?;
        let limits = match limits {
            Some(text) => limits_of(&text, app)?,
            None => Limits::default(),
        };
        let inputs = match inputs {
            Some(text) => {
                inputs::parse(&text).map_err(|error| Problem::impossible(error.to_string()))?
            }
            None => Inputs::default(),
        };
        check_size(&inputs)?;
        let targets = identified(&targets, app)?;
        let (kept, bytes) = match (object, object_sha256) {
            (Some(bytes), None) => (None, bytes),
            (None, Some(text)) => {
                let wanted = digest(&text)?;
                let bytes = app.blobs.get(wanted).await?.ok_or_else(|| {
                    Problem::missing(format!(
                        "there is no object {wanted}: put it to /v1/objects/{wanted} first"
                    ))
                })?;
                (Some(wanted), bytes)
            }
            (Some(_), Some(_)) => {
                return Err(Problem::malformed(
                    "the form has both `object` and `object_sha256`: leave one out",
                ));
            }
            (None, None) => {
                return Err(Problem::malformed(
                    "the form has no object: send the field `object` with its file, or `object_sha256`",
                ));
            }
        };
        // What is kept may be a log, or a bundle.
        check(&bytes, app)?;
        let now = Instant::now();
        app.tenants.admit(tenant, bytes.len(), now).await??;
        let shares = shares(&bytes);
        let object = match kept {
            Some(digest) => digest,
            None => app.blobs.put(bytes).await?,
        };
        Ok(Self {
            object,
            name,
            inputs,
            limits,
            shares,
            targets,
        })
    }
}

#[derive(Default)]
struct Fields {
    object: Option<Vec<u8>>,
    object_sha256: Option<String>,
    file_name: Option<String>,
    name: Option<String>,
    targets: Vec<String>,
    inputs: Option<String>,
    limits: Option<String>,
}

impl Fields {
    async fn take(&mut self, field: Field<'_>, most_targets: usize) -> Result<(), Problem> {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "object" => {
                self.file_name = field.file_name().map(str::to_owned);
                once(&mut self.object, &name, field.bytes().await?.into())
            }
            "object_sha256" => once(&mut self.object_sha256, &name, text(field).await?),
            "name" => once(&mut self.name, &name, text(field).await?),
            "target" if self.targets.len() < most_targets => {
                self.targets.push(text(field).await?);
                Ok(())
            }
            "target" => Err(Problem::impossible(format!(
                "the form has more than {most_targets} targets, which are all that are allowed"
            ))),
            "inputs" => once(&mut self.inputs, &name, text(field).await?),
            "limits" => once(&mut self.limits, &name, text(field).await?),
            other => Err(Problem::malformed(format!(
                "the form has a field `{}`: expected object, object_sha256, name, target, inputs and limits",
                other.chars().take(80).collect::<String>()
            ))),
        }
    }
}

async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        if bytes.len() + chunk.len() > TEXT_LIMIT {
            return Err(Problem::too_large(format!(
                "the form has a text of more than {TEXT_LIMIT} bytes, in the field `{}`",
                field.name().unwrap_or_default()
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| {
        Problem::malformed(format!(
            "the form has a text that is not UTF-8, in the field `{}`",
            field.name().unwrap_or_default()
        ))
    })
}

fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::malformed(format!(
            "the form has the field `{name}` twice: send it once"
        ))),
    }
}

fn check_size(inputs: &Inputs) -> Result<(), Problem> {
    let kept = serde_json::to_string(inputs).map_err(|error| Problem::internal(&error))?;
    match kept.len() {
        0..=INPUTS_LIMIT => Ok(()),
        size => Err(Problem::impossible(format!(
            "the inputs have {size} bytes as they are kept, and {INPUTS_LIMIT} at most are taken: fewer maps or values, or shorter ones"
        ))),
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'"' && byte != b'\\';
    match (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(Problem::impossible(format!(
            "the object cannot be called `{}`: expected 1 to {NAME_LIMIT} printable ASCII characters, without `/`, `\"` \
             and `\\`",
            name.chars().take(80).collect::<String>()
        ))),
    }
}

fn limits_of(text: &str, app: &App) -> Result<Limits, Problem> {
    let limits: Limits = text
        .parse()
        .map_err(|error| Problem::impossible(format!("{error}")))?;
    let longest = Duration::from_secs(app.bounds.seconds);
    if limits.time > longest {
        return Err(Problem::impossible(format!(
            "time= allows {} s, and the service {} s at most",
            limits.time.as_secs(),
            longest.as_secs()
        )));
    }
    if limits.memory_mib > Some(app.bounds.memory_mib) {
        return Err(Problem::impossible(format!(
            "memory= asks for more than the {} MiB that the service gives a machine",
            app.bounds.memory_mib
        )));
    }
    Ok(limits)
}

fn identified(names: &[String], app: &App) -> Result<Vec<(String, String)>, Problem> {
    if names.is_empty() {
        return Err(Problem::malformed(
            "the form has no target: send the field `target` with a name, once for each",
        ));
    }
    let mut targets: Vec<(String, String)> = Vec::with_capacity(names.len());
    for name in names {
        let known = app
            .directory
            .named(name)
            .ok_or_else(|| unknown(app, name))?;
        if let Some((first, _)) = targets
            .iter()
            .find(|(_, identity)| *identity == known.identity)
        {
            return Err(Problem::impossible(format!(
                "the target `{name}` is the same kernel and machine as `{first}`: leave one out"
            )));
        }
        targets.push((name.clone(), known.identity));
    }
    Ok(targets)
}
