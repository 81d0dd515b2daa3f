//! What an object's own user space would set between opening and loading it, as people write it.
//!
//! ```toml
//! modules = ["nf_conntrack"]
//!
//! [maps.stacks]
//! max-entries = 1024
//! value-size = 1016
//!
//! [programs.on_unlink]
//! attach-target = "do_unlinkat"
//!
//! [programs.unused]
//! autoload = false
//!
//! [globals]
//! min_duration_ns = 1000000      # an integer of the variable's own size
//! verbose = true
//! prefix = "eth"                 # bytes; the rest of the variable keeps the object's value
//! table = [1, 2, 3, 4]           # bytes
//! ```

use std::collections::BTreeMap;

use preverify_protocol::{GlobalValue, Inputs, MapInputs, ProgramInputs};
use serde::{Deserialize, Serialize};

/// Inputs that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// The text does not follow the format.
    #[error("the inputs cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A global variable's value is of a type that variables do not have.
    #[error(
        "the global `{name}` is given {found}: expected an integer, true or false, a string, or a \
         list of bytes"
    )]
    Value {
        /// The variable.
        name: String,
        /// What was given.
        found: String,
    },
    /// A setting on the command line has no value.
    #[error("`{found}` sets nothing: expected NAME=VALUE")]
    Setting {
        /// The setting.
        found: String,
    },
}

/// Reads the TOML form.
pub fn parse(text: &str) -> Result<Inputs, InputsError> {
    let file: InputsFile = toml::from_str(text)?;
    let globals = file.globals.into_iter().map(|(name, value)| {
        let value = global(&name, value)?;
        Ok((name, value))
    });
    Ok(Inputs {
        globals: globals.collect::<Result<_, InputsError>>()?,
        maps: file.maps,
        programs: file.programs,
        kconfig: file.kconfig,
        modules: file.modules,
    })
}

/// Writes the TOML form: [`parse`] reads the same from it.
pub fn to_toml(inputs: &Inputs) -> String {
    let globals = inputs.globals.iter().map(|(name, value)| {
        let value = match value {
            GlobalValue::Integer(value) => toml::Value::Integer(*value),
            GlobalValue::Bytes(bytes) => {
                let bytes = bytes.iter().map(|&byte| toml::Value::Integer(byte.into()));
                toml::Value::Array(bytes.collect())
            }
        };
        (name.clone(), value)
    });
    let file = InputsFile {
        modules: inputs.modules.clone(),
        kconfig: inputs.kconfig.clone(),
        globals: globals.collect(),
        maps: inputs.maps.clone(),
        programs: inputs.programs.clone(),
    };
    toml::to_string(&file).expect("all of it has a form in TOML")
}

/// Reads `NAME=VALUE` for a global variable; the value is written as in the TOML form, and a
/// value that is none of its kinds is a string.
pub fn parse_setting(setting: &str) -> Result<(String, GlobalValue), InputsError> {
    let (name, value) = split_setting(setting)?;
    let value = value
        .parse::<toml::Value>()
        .unwrap_or_else(|_| toml::Value::String(value.into()));
    Ok((name.into(), global(name, value)?))
}

/// Reads `NAME=VALUE`.
pub fn split_setting(setting: &str) -> Result<(&str, &str), InputsError> {
    setting
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| InputsError::Setting {
            found: setting.into(),
        })
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct InputsFile {
    modules: Vec<String>,
    kconfig: Option<String>,
    globals: BTreeMap<String, toml::Value>,
    maps: BTreeMap<String, MapInputs>,
    programs: BTreeMap<String, ProgramInputs>,
}

fn global(name: &str, value: toml::Value) -> Result<GlobalValue, InputsError> {
    let refuse = |found: String| InputsError::Value {
        name: name.into(),
        found,
    };
    match value {
        toml::Value::Integer(value) => Ok(GlobalValue::Integer(value)),
        toml::Value::Boolean(value) => Ok(GlobalValue::Integer(value.into())),
        toml::Value::String(text) => Ok(GlobalValue::Bytes(text.into_bytes())),
        toml::Value::Array(values) => values
            .iter()
            .map(|value| {
                let byte = value.as_integer().and_then(|byte| u8::try_from(byte).ok());
                byte.ok_or_else(|| refuse(format!("a list with {value}, which is no byte")))
            })
            .collect::<Result<_, _>>()
            .map(GlobalValue::Bytes),
        other => Err(refuse(format!("{} {other}", other.type_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_inputs_are_read() {
        let inputs = parse(
            "modules = [\"nf_conntrack\"]\n[maps.stacks]\nvalue-size = 1016\n\
             [programs.p]\nattach-target = \"do_unlinkat\"\n\
             [globals]\nn = -5\nverbose = true\nprefix = \"eth\"\ntable = [1, 255]\n",
        )
        .unwrap();
        assert_eq!(inputs.modules, ["nf_conntrack"]);
        assert_eq!(inputs.maps["stacks"].value_size, Some(1016));
        assert_eq!(inputs.maps["stacks"].max_entries, None);
        let target = inputs.programs["p"].attach_target.as_deref();
        assert_eq!(target, Some("do_unlinkat"));
        assert_eq!(inputs.globals["n"], GlobalValue::Integer(-5));
        assert_eq!(inputs.globals["verbose"], GlobalValue::Integer(1));
        assert_eq!(inputs.globals["prefix"], GlobalValue::Bytes(b"eth".into()));
        assert_eq!(parse(&to_toml(&inputs)).unwrap(), inputs);
        let nothing = Inputs::default();
        assert_eq!(parse(&to_toml(&nothing)).unwrap(), nothing);
        assert_eq!(inputs.globals["table"], GlobalValue::Bytes(vec![1, 255]));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let error = parse("[maps.stacks]\nsize = 1\n").unwrap_err().to_string();
        assert!(error.contains("size"), "{error}");
        let error = parse("[globals]\nx = 1.5\n").unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains("1.5"), "{error}");
        let error = parse("[globals]\nx = [256]\n").unwrap_err().to_string();
        assert!(error.contains("256"), "{error}");
    }

    #[test]
    fn settings_are_typed_as_in_the_file() {
        let setting = |text| parse_setting(text).unwrap();
        assert_eq!(setting("n=0x10"), ("n".into(), GlobalValue::Integer(16)));
        assert_eq!(setting("v=true"), ("v".into(), GlobalValue::Integer(1)));
        let bytes = GlobalValue::Bytes(b"eth0".into());
        assert_eq!(setting("p=eth0"), ("p".into(), bytes));
        assert!(parse_setting("novalue").is_err());
        assert!(parse_setting("=1").is_err());
    }
}
