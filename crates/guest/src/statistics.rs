//! The verifier's statistics, from the lines that it logs under `BPF_LOG_STATS`.

use preverify_protocol::Statistics;

/// Reads the last statistics of a log.
pub fn parse(log: &str) -> Option<Statistics> {
    let processed = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("processed "))?;
    let mut words = processed.split_whitespace();
    let mut statistics = Statistics {
        total_insns: words.next()?.parse().ok()?,
        ..Statistics::default()
    };
    while let Some(word) = words.next() {
        let field = match word {
            "max_states_per_insn" => &mut statistics.max_states_per_insn,
            "total_states" => &mut statistics.total_states,
            "peak_states" => &mut statistics.peak_states,
            "mark_read" => &mut statistics.mark_read,
            _ => continue,
        };
        *field = words.next()?.parse().ok()?;
    }
    statistics.duration_us = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("verification time "))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())?;
    Some(statistics)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
verification time 1234 usec
stack depth 24+0
processed 145420 insns (limit 1000000) max_states_per_insn 4 total_states 2064 peak_states 12 mark_read 3
";

    #[test]
    fn all_numbers_are_read() {
        assert_eq!(
            parse(LOG),
            Some(Statistics {
                total_insns: 145_420,
                total_states: 2064,
                peak_states: 12,
                max_states_per_insn: 4,
                mark_read: 3,
                duration_us: 1234,
            })
        );
    }

    #[test]
    fn what_stands_before_does_not_matter() {
        let log = format!("processed food\n0: R1=ctx() R10=fp0\n{LOG}");
        assert_eq!(parse(&log), parse(LOG));
    }

    #[test]
    fn a_log_without_statistics_has_none() {
        assert_eq!(parse(""), None);
        assert_eq!(
            parse("arg#0 reference type('UNKNOWN ') size cannot be determined\n"),
            None
        );
        assert_eq!(
            parse("verification time 9 usec\nprocessed many insns\n"),
            None
        );
    }
}
