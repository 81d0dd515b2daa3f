//! Applies to an opened object what its own user space would have set.

use std::io;

use preverify_protocol::{GlobalValue, Inputs, MapInputs, ProgramInputs, Share};

use crate::libbpf::{Map, Object, Program, Variable};

/// What does not fit the object.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// No such name.
    #[error("the inputs name the {kind} {name}, which the object does not have; it has {present}")]
    Unknown {
        /// What was named.
        kind: &'static str,
        /// The name.
        name: String,
        /// What the object has of that kind.
        present: String,
    },
    /// Several static variables with one name.
    #[error(
        "the inputs name the global {name}, which the object has {count} times; rename them in its \
         source"
    )]
    Ambiguous {
        /// The name.
        name: String,
        /// How often.
        count: usize,
    },
    /// An integer for a variable of another size than integers have.
    #[error("the global {name} has {size} bytes, which is no integer's size; give it bytes")]
    NoInteger {
        /// The variable.
        name: String,
        /// Its bytes.
        size: u32,
    },
    /// An integer that the variable cannot hold.
    #[error("the global {name} has {size} bytes, which cannot hold {value}")]
    TooLarge {
        /// The variable.
        name: String,
        /// Its bytes.
        size: u32,
        /// The value.
        value: i64,
    },
    /// More bytes than the variable has.
    #[error("the global {name} has {size} bytes, and {found} are given")]
    TooLong {
        /// The variable.
        name: String,
        /// Its bytes.
        size: u32,
        /// The bytes given.
        found: usize,
    },
    /// libbpf refused.
    #[error("libbpf cannot set the {attribute} of {name}: {source}")]
    Refused {
        /// What.
        attribute: &'static str,
        /// Of what.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

/// Applies all inputs but the Kconfig text, which goes into the opening.
pub fn apply(object: &Object, inputs: &Inputs) -> Result<(), InputError> {
    for (name, inputs) in &inputs.maps {
        let map = object.map(name).ok_or_else(|| InputError::Unknown {
            kind: "map",
            name: name.clone(),
            present: list(object.maps().map(Map::name)),
        })?;
        apply_to_map(map, name, inputs)?;
    }
    for (name, inputs) in &inputs.programs {
        let program = object
            .programs()
            .find(|program| program.function() == *name)
            .ok_or_else(|| InputError::Unknown {
                kind: "program",
                name: name.clone(),
                present: list(object.programs().map(Program::function)),
            })?;
        apply_to_program(program, name, inputs)?;
    }
    if inputs.globals.is_empty() {
        return Ok(());
    }
    // After the maps: another size of a map of global data is another size of its last variable.
    let variables: Vec<_> = object
        .variables()
        .into_iter()
        .filter_map(|variable| Some((global_data(object, &variable)?, variable)))
        .collect();
    for (name, value) in &inputs.globals {
        let named: Vec<_> = variables
            .iter()
            .filter(|(_, variable)| variable.name == *name)
            .collect();
        let (map, variable) = match named.as_slice() {
            [one] => one,
            [] => {
                return Err(InputError::Unknown {
                    kind: "global",
                    name: name.clone(),
                    present: list(variables.iter().map(|(_, variable)| variable.name.clone())),
                });
            }
            several => {
                return Err(InputError::Ambiguous {
                    name: name.clone(),
                    count: several.len(),
                });
            }
        };
        map.write_initial_value(variable.offset as usize, &bytes(variable, value)?)
            .map_err(refused("value", name))?;
    }
    Ok(())
}

/// Leaves out the programs that are not in a share.
pub fn leave(object: &Object, share: Share) -> Result<(), InputError> {
    let programs: Vec<_> = object
        .programs()
        .filter(|program| program.autoload())
        .collect();
    let kept = share.range(programs.len());
    for (place, program) in programs.into_iter().enumerate() {
        if !kept.contains(&place) {
            program
                .set_autoload(false)
                .map_err(refused("automatic loading", &program.function()))?;
        }
    }
    Ok(())
}

fn apply_to_map(map: Map<'_>, name: &str, inputs: &MapInputs) -> Result<(), InputError> {
    if let Some(max_entries) = inputs.max_entries {
        map.set_max_entries(max_entries)
            .map_err(refused("number of entries", name))?;
    }
    if let Some(value_size) = inputs.value_size {
        map.set_value_size(value_size)
            .map_err(refused("size of a value", name))?;
    }
    if let Some(autocreate) = inputs.autocreate {
        map.set_autocreate(autocreate)
            .map_err(refused("automatic creation", name))?;
    }
    Ok(())
}

fn apply_to_program(
    program: Program<'_>,
    name: &str,
    inputs: &ProgramInputs,
) -> Result<(), InputError> {
    if let Some(autoload) = inputs.autoload {
        program
            .set_autoload(autoload)
            .map_err(refused("automatic loading", name))?;
    }
    if let Some(target) = &inputs.attach_target {
        program
            .set_attach_target(target)
            .map_err(refused("attach target", name))?;
    }
    Ok(())
}

/// The map of the variable's section. Kconfig values come from the kernel's configuration, and
/// the kernel's symbols from the kernel.
fn global_data<'a>(object: &'a Object, variable: &Variable) -> Option<Map<'a>> {
    let map = object.map(&variable.section)?;
    (map.is_global_data() && variable.section != ".kconfig").then_some(map)
}

/// A value as it lies in memory.
fn bytes(variable: &Variable, value: &GlobalValue) -> Result<Vec<u8>, InputError> {
    let name = || variable.name.clone();
    let size = variable.size;
    match value {
        GlobalValue::Bytes(bytes) if bytes.len() > size as usize => Err(InputError::TooLong {
            name: name(),
            size,
            found: bytes.len(),
        }),
        GlobalValue::Bytes(bytes) => Ok(bytes.clone()),
        &GlobalValue::Integer(value) => {
            // Whether it is signed does not matter: what either can hold fits.
            let fits = match size {
                1 => i8::try_from(value).is_ok() || u8::try_from(value).is_ok(),
                2 => i16::try_from(value).is_ok() || u16::try_from(value).is_ok(),
                4 => i32::try_from(value).is_ok() || u32::try_from(value).is_ok(),
                8 => true,
                _ => return Err(InputError::NoInteger { name: name(), size }),
            };
            if !fits {
                return Err(InputError::TooLarge {
                    name: name(),
                    size,
                    value,
                });
            }
            // BPF objects for another byte order do not open.
            let bytes = value.to_ne_bytes();
            let size = size as usize;
            Ok(match cfg!(target_endian = "little") {
                true => bytes[..size].to_vec(),
                false => bytes[bytes.len() - size..].to_vec(),
            })
        }
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

fn refused<'a>(
    attribute: &'static str,
    name: &'a str,
) -> impl FnOnce(io::Error) -> InputError + 'a {
    move |source| InputError::Refused {
        attribute,
        name: name.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(size: u32) -> Variable {
        Variable {
            section: ".rodata".into(),
            name: "limit".into(),
            offset: 8,
            size,
        }
    }

    fn integer(size: u32, value: i64) -> Result<Vec<u8>, String> {
        bytes(&variable(size), &GlobalValue::Integer(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn integers_have_the_size_of_their_variable() {
        assert_eq!(integer(1, 255), Ok(vec![255]));
        assert_eq!(integer(1, -1), Ok(vec![255]));
        assert_eq!(integer(4, 1), Ok(1_u32.to_ne_bytes().to_vec()));
        assert_eq!(integer(8, -2), Ok((-2_i64).to_ne_bytes().to_vec()));
    }

    #[test]
    fn integers_that_do_not_fit_are_refused() {
        assert_eq!(
            integer(1, 256),
            Err("the global limit has 1 bytes, which cannot hold 256".into())
        );
        assert_eq!(
            integer(2, -32769),
            Err("the global limit has 2 bytes, which cannot hold -32769".into())
        );
        assert_eq!(
            integer(16, 0),
            Err("the global limit has 16 bytes, which is no integer's size; give it bytes".into())
        );
    }

    #[test]
    fn bytes_may_be_fewer_but_not_more() {
        let given = |count| {
            bytes(&variable(4), &GlobalValue::Bytes(vec![7; count]))
                .map_err(|error| error.to_string())
        };
        assert_eq!(given(3), Ok(vec![7; 3]));
        assert_eq!(
            given(5),
            Err("the global limit has 4 bytes, and 5 are given".into())
        );
    }
}
