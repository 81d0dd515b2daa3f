//! What becomes of a job, as a local build shows it.

use preverify_pipeline::ImageKind;
use preverify_service::views::{JobView, VerdictState, VerdictView};

use crate::build::program_line;
use crate::steps::{Progress, Steps};

/// The steps of each target.
pub struct Display<'a> {
    targets: Vec<Shown<'a>>,
}

struct Shown<'a> {
    steps: Steps<'a>,
    /// The step that is shown to run.
    running: Option<&'static str>,
    ended: bool,
}

impl<'a> Display<'a> {
    /// Nothing has happened yet.
    pub fn new(progress: &'a Progress, targets: &[String]) -> Self {
        let width = match targets {
            [_] => 0,
            several => several.iter().map(String::len).max().unwrap_or(0),
        };
        let label = |target: &String| match width {
            0 => String::new(),
            width => format!("{target:width$}"),
        };
        Self {
            targets: targets
                .iter()
                .map(|target| Shown {
                    steps: progress.steps(label(target)),
                    running: None,
                    ended: false,
                })
                .collect(),
        }
    }

    /// Shows what has changed.
    pub fn show(&mut self, job: &JobView) {
        for (shown, verdict) in self.targets.iter_mut().zip(&job.targets) {
            shown.show(verdict);
        }
    }
}

impl Shown<'_> {
    fn show(&mut self, verdict: &VerdictView) {
        let result = match verdict.state {
            VerdictState::Queued | VerdictState::Running => {
                let step = step(verdict.step.as_deref());
                if self.running != Some(step) {
                    if self.running.is_some() {
                        self.steps.done("done");
                    }
                    self.steps.start(step);
                    self.running = Some(step);
                }
                if let Some(insns) = verdict.processed_insns {
                    self.steps.note(&format!("{insns} insns processed"));
                }
                return;
            }
            VerdictState::Accepted => "accepted",
            VerdictState::Refused => "refused",
            VerdictState::Failed => "failed",
        };
        if self.ended {
            return;
        }
        self.ended = true;
        if self.running.is_none() {
            // It was verified before.
            self.steps.start("cache");
        }
        self.steps.done(result);
    }
}

/// The service's word for a step, among those that are known here.
fn step(word: Option<&str>) -> &'static str {
    const KNOWN: [&str; 6] = ["restore", "verify", "discover", "prove", "merge", "sign"];
    match word {
        None => "queue",
        Some(word) => KNOWN
            .into_iter()
            .find(|known| *known == word)
            .unwrap_or("work"),
    }
}

/// Lines for standard error: the programs of each target.
pub fn programs(job: &JobView) -> String {
    let mut text = String::new();
    for target in &job.targets {
        if job.targets.len() > 1 {
            text.push_str(&format!("{}:\n", target.target));
        }
        for program in &target.programs {
            let images = [
                (ImageKind::Native, program.native_bytes),
                (ImageKind::Bytecode, program.bytecode_bytes),
            ];
            let images = images
                .into_iter()
                .filter_map(|(kind, bytes)| Some((kind, bytes?)));
            let line = program_line(
                &program.program,
                program.total_insns,
                program.peak_states,
                images,
            );
            text.push_str(&line);
            text.push('\n');
        }
        for note in &target.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
    }
    text
}
