//! What is under way, as people see it: a line for each step when it is done, with its time; on a terminal also
//! the steps that run.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The steps of all that is under way at the same time, on standard error.
pub struct Progress {
    // Hidden by itself where standard error is no terminal.
    bars: MultiProgress,
}

impl Progress {
    /// Nothing is under way yet.
    pub fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
        }
    }

    /// The steps of one work. `label` stands before each of its lines; it is empty if there is no other work.
    pub fn steps(&self, label: String) -> Steps<'_> {
        let separator = match label.as_str() {
            "" => "",
            _ => "  ",
        };
        Steps {
            progress: self,
            label: format!("  {label}{separator}"),
            running: None,
        }
    }

    /// Prints a line above the running steps.
    pub fn line(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }
}

/// Steps of a longer work.
pub struct Steps<'a> {
    progress: &'a Progress,
    label: String,
    running: Option<Running>,
}

struct Running {
    name: &'static str,
    start: Instant,
    bar: ProgressBar,
}

impl Steps<'_> {
    /// Starts a step.
    pub fn start(&mut self, name: &'static str) {
        let bar = self.progress.bars.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{prefix} {elapsed:>7}  {spinner}  {msg}")
            .expect("a constant template");
        bar.set_style(style);
        bar.set_prefix(format!("{}{name:10}", self.label));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running = Some(Running {
            name,
            start: Instant::now(),
            bar,
        });
    }

    /// How far the running step is.
    pub fn note(&self, note: &str) {
        if let Some(running) = &self.running {
            running.bar.set_message(note.to_owned());
        }
    }

    /// The running step is done; `result` says what came out of it.
    pub fn done(&mut self, result: &str) {
        if let Some(Running { name, start, bar }) = self.running.take() {
            self.progress.bars.remove(&bar);
            let seconds = start.elapsed().as_secs_f64();
            let label = &self.label;
            self.progress
                .line(&format!("{label}{name:10} {seconds:6.2} s  {result}"));
        }
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.progress.bars.remove(&running.bar);
        }
    }
}
