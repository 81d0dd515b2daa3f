//! A policy: programs whose verification needed no more patience than stock kernels have.

use crate::Program;

/// A program was verified with raised limits, where only stock limits are accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "program {function}: its verifier's limits were raised above those of stock kernels ({processed_insns} \
     instructions were processed), and --stock-limits takes no such program: build the bundle without insns= and \
     jumps= in --limits"
)]
pub struct RaisedLimits {
    /// The name of its function.
    pub function: String,
    /// Instructions that the verifier processed.
    pub processed_insns: u32,
}

impl Program {
    /// Refuses a program that stock kernels may refuse as too complex.
    pub fn demand_stock_limits(&self) -> Result<(), RaisedLimits> {
        match self.raised_limits {
            false => Ok(()),
            true => Err(RaisedLimits {
                function: self.function.clone(),
                processed_insns: self.processed_insns,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_limits_are_refused_by_name() {
        let mut program = Program {
            function: "parse".to_owned(),
            processed_insns: 2_000_000,
            ..Program::default()
        };
        assert_eq!(program.demand_stock_limits(), Ok(()));
        program.raised_limits = true;
        let message = program.demand_stock_limits().unwrap_err().to_string();
        assert!(message.contains("program parse"), "{message}");
        assert!(message.contains("2000000"), "{message}");
    }
}
