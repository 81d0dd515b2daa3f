//! The same programs on the same inputs, loaded in two ways: do they do the same?

use std::collections::BTreeMap;

use preverify_abi::kinds::ProgramType;
use preverify_lab::{Device, DeviceError};
use preverify_pipeline::{Verified, VerifiedProgram};
use preverify_protocol::{ProgramRef, TestRunReply, TestRunRequest};
use serde::{Deserialize, Serialize};

/// One program's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The name of its function.
    pub function: String,
    /// What came out, without the time that it took.
    pub reply: TestRunReply,
    /// What came out when it was run again at once, over and over.
    pub again: Vec<TestRunReply>,
}

/// What the comparison of all programs of an object gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Programs with the same outcome.
    pub equal: usize,
    /// Programs with another outcome than both stock runs, which agree with each other.
    pub different: Vec<String>,
    /// Programs whose stock runs differ from each other: nothing can be said.
    pub varying: usize,
    /// Programs that the kernel does not run on demand.
    pub not_runnable: usize,
}

impl Comparison {
    /// Compares our runs with stock runs before and after them.
    pub fn of(first: &[Run], ours: &[Run], second: &[Run]) -> Self {
        let by_name = |runs: &'_ [Run]| -> BTreeMap<String, Run> {
            let runs = runs.iter();
            runs.map(|run| (run.function.clone(), run.clone()))
                .collect()
        };
        let (first, second) = (by_name(first), by_name(second));
        let mut comparison = Self::default();
        for Run {
            function, reply, ..
        } in ours
        {
            let (Some(first), Some(second)) = (first.get(function), second.get(function)) else {
                let different = format!("{function}: stock has no such program");
                comparison.different.push(different);
                continue;
            };
            if first.reply != second.reply {
                comparison.varying += 1;
            } else if *reply == first.reply {
                match reply.errno {
                    0 => comparison.equal += 1,
                    _ => comparison.not_runnable += 1,
                }
            } else if second.again.iter().any(|again| *again != second.reply) {
                // What is random can be the same twice.
                comparison.varying += 1;
            } else {
                comparison.different.push(format!(
                    "{function}: {} instead of {}",
                    tell(reply),
                    tell(&first.reply)
                ));
            }
        }
        comparison
    }
}

/// Runs those `wanted` of the programs that were verified, wherever they are loaded: `reference` says where. Each is
/// run once, and `again` times more.
pub fn runs(
    device: &mut Device,
    verified: &Verified,
    again: usize,
    wanted: impl Fn(&VerifiedProgram) -> bool,
    reference: impl Fn(&str) -> ProgramRef,
) -> Result<Vec<Run>, DeviceError> {
    let programs = verified.programs.iter().zip(&verified.loaded.programs);
    programs
        .filter(|(program, _)| wanted(program))
        .map(|(program, loaded)| {
            let prog_type = ProgramType(program.export.prog_type);
            let mut run = || -> Result<_, DeviceError> {
                let reply = device.test_run(input(reference(&loaded.function), prog_type))?;
                Ok(TestRunReply {
                    duration_ns: 0,
                    ..reply
                })
            };
            Ok(Run {
                function: loaded.function.clone(),
                reply: run()?,
                again: (0..again).map(|_| run()).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// What a program of a type is run on.
fn input(program: ProgramRef, prog_type: ProgramType) -> TestRunRequest {
    let mut request = TestRunRequest {
        program,
        data_in: None,
        context_in: None,
        repeat: 1,
        flags: 0,
        data_out_size: 0,
    };
    match prog_type {
        ProgramType::XDP
        | ProgramType::SCHED_CLS
        | ProgramType::SCHED_ACT
        | ProgramType::SOCKET_FILTER
        | ProgramType::CGROUP_SKB
        | ProgramType::LWT_IN
        | ProgramType::LWT_OUT
        | ProgramType::LWT_XMIT
        | ProgramType::LWT_SEG6LOCAL
        | ProgramType::FLOW_DISSECTOR
        | ProgramType::NETFILTER => {
            request.data_in = Some(packet());
            request.data_out_size = 4096;
        }
        ProgramType::SK_LOOKUP => request.context_in = Some(sk_lookup()),
        ProgramType::RAW_TRACEPOINT | ProgramType::RAW_TRACEPOINT_WRITABLE => {
            request.context_in = Some(vec![0; 12 * 8]);
        }
        ProgramType::SYSCALL => request.context_in = Some(vec![0; 64]),
        _ => {}
    }
    request
}

/// A TCP segment over IPv4, with a payload.
fn packet() -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x08, 0x00]);
    packet.extend([0x45, 0, 0, 104, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
    packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend([
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0, 0, 0, 0,
    ]);
    packet.extend(0..64);
    packet
}

/// `struct bpf_sk_lookup` of a TCP connection over IPv4.
fn sk_lookup() -> Vec<u8> {
    let mut context = Vec::new();
    let words: [u32; 3] = [2, 6, u32::from_ne_bytes([192, 0, 2, 1])];
    context.extend(0_u64.to_ne_bytes());
    words
        .iter()
        .for_each(|word| context.extend(word.to_ne_bytes()));
    context.resize(72, 0);
    context
}

fn tell(reply: &TestRunReply) -> String {
    match reply.errno {
        0 => format!(
            "{} with {} bytes of data and {} of context",
            reply.return_value,
            reply.data_out.len(),
            reply.context_out.len()
        ),
        errno => format!("errno {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(function: &str, return_value: u32, errno: i32) -> Run {
        Run {
            function: function.into(),
            reply: TestRunReply {
                errno,
                return_value,
                data_out: Vec::new(),
                context_out: Vec::new(),
                duration_ns: 0,
            },
            again: Vec::new(),
        }
    }

    #[test]
    fn what_is_random_may_be_the_same_twice() {
        let (first, ours) = (run("a", 1, 0), run("a", 2, 0));
        let found = |second: Run| {
            Comparison::of(
                std::slice::from_ref(&first),
                std::slice::from_ref(&ours),
                &[second],
            )
        };
        let mut second = run("a", 1, 0);
        second.again = vec![second.reply.clone(); 3];
        assert_eq!(found(second.clone()).different.len(), 1);
        second.again.push(run("a", 3, 0).reply);
        assert_eq!(found(second).varying, 1);
    }

    #[test]
    fn only_what_stock_repeats_is_compared() {
        let first = [
            run("a", 1, 0),
            run("b", 1, 0),
            run("c", 5, 0),
            run("d", 0, 95),
        ];
        let ours = [
            run("a", 1, 0),
            run("b", 2, 0),
            run("c", 7, 0),
            run("d", 0, 95),
        ];
        let second = [
            run("a", 1, 0),
            run("b", 1, 0),
            run("c", 6, 0),
            run("d", 0, 95),
        ];
        let found = Comparison::of(&first, &ours, &second);
        assert_eq!((found.equal, found.varying, found.not_runnable), (1, 1, 1));
        assert_eq!(found.different.len(), 1);
        assert!(found.different[0].starts_with("b: 2"), "{found:?}");
    }
}
