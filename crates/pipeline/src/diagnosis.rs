//! A verifier's rejection as people read it: the instruction, its source line, the registers, and
//! what the verifier said.

use std::fmt;

/// How many lines of the log's end are shown.
const TAIL_LINES: usize = 12;

/// What a verifier's log says about the point of rejection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Why the verifier gave up: its last words before the statistics.
    pub message: String,
    /// The instruction it was at, as `13: (71) r1 = *(u8 *)(r1 +0)`.
    pub instruction: Option<String>,
    /// The registers that the verifier printed last before that instruction.
    pub registers: Option<String>,
    /// The source line of that instruction, as `return *p; @ prog.c:7`, if the object has BTF.
    pub source: Option<String>,
    /// The end of the log.
    pub tail: Vec<String>,
}

impl Diagnosis {
    /// Reads the log of a rejected program (`log_level` 1 or 2).
    pub fn of(log: &str) -> Self {
        let lines: Vec<&str> = log
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let end = lines
            .iter()
            .rposition(|line| !is_statistics(line))
            .map_or(0, |last| last + 1);
        let lines = &lines[..end];
        let tail = lines[end.saturating_sub(TAIL_LINES)..]
            .iter()
            .map(ToString::to_string)
            .collect();

        let Some(at) = lines.iter().rposition(|line| is_instruction(line)) else {
            return Self {
                message: lines.last().copied().unwrap_or("").into(),
                tail,
                ..Self::default()
            };
        };
        let before = &lines[..at];
        Self {
            message: lines[at + 1..].join("\n"),
            instruction: Some(split_registers(lines[at]).0.into()),
            registers: before
                .iter()
                .rev()
                .find_map(|line| state(line).or_else(|| split_registers(line).1))
                .map(Into::into),
            source: before
                .iter()
                .rev()
                .find_map(|line| line.strip_prefix("; "))
                .map(Into::into),
            tail,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        if let Some(instruction) = &self.instruction {
            writeln!(f, "  at instruction {instruction}")?;
        }
        if let Some(source) = &self.source {
            writeln!(f, "  from source      {source}")?;
        }
        if let Some(registers) = &self.registers {
            writeln!(f, "  with registers   {registers}")?;
        }
        writeln!(f, "  the log's end:")?;
        self.tail
            .iter()
            .try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// `13: (71) r1 = *(u8 *)(r1 +0)`
fn is_instruction(line: &str) -> bool {
    numbered(line).is_some_and(|rest| rest.starts_with('('))
}

/// `12: R1=ctx() R10=fp0`, or the same without a number.
fn state(line: &str) -> Option<&str> {
    numbered(line).filter(|rest| rest.starts_with('R'))
}

fn numbered(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(": ")?;
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(rest)
}

/// The verifier prints registers behind an instruction that has changed them.
fn split_registers(line: &str) -> (&str, Option<&str>) {
    match line.split_once(" ; R") {
        Some((instruction, _)) => (
            instruction.trim_end(),
            line.get(instruction.len() + " ; ".len()..),
        ),
        None => (line, None),
    }
}

fn is_statistics(line: &str) -> bool {
    line.starts_with("processed ")
        || line.starts_with("verification time ")
        || line.starts_with("stack depth ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
0: R1=ctx() R10=fp0
; int *p = 0; @ prog.c:6
0: (b7) r1 = 0                        ; R1_w=0
; return *p; @ prog.c:7
1: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
verification time 37 usec
stack depth 0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    #[test]
    fn names_the_instruction_and_its_source() {
        let diagnosis = Diagnosis::of(LOG);
        assert_eq!(diagnosis.message, "R1 invalid mem access 'scalar'");
        assert_eq!(
            diagnosis.instruction.as_deref(),
            Some("1: (61) r0 = *(u32 *)(r1 +0)")
        );
        assert_eq!(diagnosis.source.as_deref(), Some("return *p; @ prog.c:7"));
        assert_eq!(diagnosis.registers.as_deref(), Some("R1_w=0"));
        assert_eq!(diagnosis.tail.len(), 6);
    }

    #[test]
    fn a_log_without_instructions_still_has_a_message() {
        let diagnosis = Diagnosis::of("unreachable insn 3\nprocessed 0 insns (limit 1000000)\n");
        assert_eq!(diagnosis.message, "unreachable insn 3");
        assert_eq!(diagnosis.instruction, None);
    }

    #[test]
    fn an_empty_log_is_no_panic() {
        assert_eq!(Diagnosis::of(""), Diagnosis::default());
    }
}
