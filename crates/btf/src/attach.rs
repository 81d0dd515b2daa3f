//! What a program attaches to, as a kernel finds it in its BTF.

use preverify_abi::manifest::{ATTACH_ARGS_MAX, VALUE_SIGNED, VALUE_STRUCT};
use preverify_bundle::Value;

use crate::types::{Btf, Kind, Type, TypeId};

/// How a function is called, as `btf_distill_func_proto()` of the kernel finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// What it returns, if anything.
    pub returns: Option<Value>,
    /// Its arguments.
    pub arguments: Vec<Value>,
}

/// A function that no trampoline can be put on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No function.
    #[error("its BTF type is no function")]
    NoFunction,
    /// Too many arguments.
    #[error("it has {0} arguments; trampolines pass on {ATTACH_ARGS_MAX} at most")]
    Arguments(usize),
    /// It returns what does not fit into a register.
    #[error("it returns what trampolines do not pass on")]
    Returns,
    /// Variable arguments.
    #[error("it takes variable arguments, which trampolines do not pass on")]
    Variable,
    /// An argument that trampolines cannot pass on.
    #[error("trampolines do not pass on what its argument {0} is")]
    Argument(usize),
}

/// The largest argument that trampolines pass on.
const ARGUMENT_MAX: u8 = 16;

impl Btf {
    /// How a function is called on a machine with pointers of so many bytes.
    pub fn model(&self, function: TypeId, pointer: u8) -> Result<Model, ModelError> {
        let (returns, parameters) = self.prototype(function).ok_or(ModelError::NoFunction)?;
        if parameters.len() > ATTACH_ARGS_MAX {
            return Err(ModelError::Arguments(parameters.len()));
        }
        if parameters.last().is_some_and(|(_, target)| *target == 0) {
            return Err(ModelError::Variable);
        }
        let returns = match self.plain(returns).1 {
            Type::Void => None,
            Type::Composite { .. } => return Err(ModelError::Returns),
            _ => Some(self.value(returns, pointer).ok_or(ModelError::Returns)?),
        };
        let argument = |(index, (_, target)): (usize, &(_, TypeId))| {
            let value = self.value(*target, pointer);
            let fits = value.filter(|value| (1..=ARGUMENT_MAX).contains(&value.size));
            fits.ok_or(ModelError::Argument(index))
        };
        Ok(Model {
            returns,
            arguments: parameters
                .iter()
                .enumerate()
                .map(argument)
                .collect::<Result<_, _>>()?,
        })
    }

    fn value(&self, id: TypeId, pointer: u8) -> Option<Value> {
        let (size, flags) = match self.plain(id).1 {
            Type::Pointer(_) => (pointer.into(), 0),
            Type::Int { size, signed, .. } => (*size, if *signed { VALUE_SIGNED } else { 0 }),
            Type::Enum { size, .. } => (*size, 0),
            Type::Composite {
                kind: Kind::Struct,
                size,
                ..
            } => (*size, VALUE_STRUCT),
            _ => return None,
        };
        Some(Value {
            size: size.try_into().ok()?,
            flags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    fn value(size: u8, flags: u8) -> Value {
        Value { size, flags }
    }

    #[test]
    fn models_are_those_of_the_kernel() {
        let mut types = Builder::default();
        let int = types.int("int", 4, true);
        let long = types.int("long unsigned int", 8, false);
        let size = types.typedef("size_t", long);
        let pair = types.composite(Kind::Struct, "pair", 16, &[("a", long, 0), ("b", long, 64)]);
        let pointer = types.pointer(pair);
        let colour = types.enumeration("colour", &[("RED", 0)]);
        let read = types.function(
            "read",
            size,
            &[("fd", int), ("p", pointer), ("pair", pair), ("c", colour)],
        );
        let nothing = types.function("nothing", 0, &[]);
        let btf = types.btf();
        let model = btf.model(read, 8).unwrap();
        assert_eq!(model.returns, Some(value(8, 0)));
        let expected = [
            value(4, VALUE_SIGNED),
            value(8, 0),
            value(16, VALUE_STRUCT),
            value(4, 0),
        ];
        assert_eq!(model.arguments, expected);
        assert_eq!(btf.model(read, 4).unwrap().arguments[1], value(4, 0));
        assert_eq!(btf.model(nothing, 8).unwrap(), Model::default());
    }

    #[test]
    fn what_no_trampoline_passes_on_is_refused() {
        let mut types = Builder::default();
        let int = types.int("int", 4, true);
        let big = types.composite(Kind::Struct, "big", 24, &[("a", int, 0)]);
        let choice = types.composite(Kind::Union, "choice", 4, &[("a", int, 0)]);
        let many = types.function("many", int, &[("a", int); 13]);
        let gives = types.function("gives", big, &[]);
        let prints = types.function("prints", int, &[("format", int), ("", 0)]);
        let takes = types.function("takes", int, &[("a", int), ("b", big)]);
        let chooses = types.function("chooses", int, &[("a", choice)]);
        let empty = types.function("empty", int, &[("a", 0), ("b", int)]);
        let btf = types.btf();
        for (function, expected) in [
            (many, ModelError::Arguments(13)),
            (gives, ModelError::Returns),
            (prints, ModelError::Variable),
            (takes, ModelError::Argument(1)),
            (chooses, ModelError::Argument(0)),
            (empty, ModelError::Argument(0)),
            (int, ModelError::NoFunction),
        ] {
            assert_eq!(btf.model(function, 8), Err(expected));
        }
    }
}
