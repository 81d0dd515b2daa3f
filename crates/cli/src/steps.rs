//! What is under way, as people see it: a line for each step when it is done, with its time; on a terminal also
//! the step that runs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps of a longer work, on standard error.
pub struct Steps {
    bar: ProgressBar,
    running: Option<(&'static str, Instant)>,
}

impl Steps {
    /// Nothing is under way yet.
    pub fn new() -> Self {
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("  {msg:10} {elapsed:>7}  {spinner}")
            .expect("a constant template");
        bar.set_style(style);
        Self { bar, running: None }
    }

    /// Starts a step.
    pub fn start(&mut self, name: &'static str) {
        self.running = Some((name, Instant::now()));
        self.bar.reset_elapsed();
        self.bar.set_message(name);
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// The running step is done; `result` says what came out of it.
    pub fn done(&mut self, result: &str) {
        if let Some((name, start)) = self.running.take() {
            let seconds = start.elapsed().as_secs_f64();
            self.line(&format!("  {name:10} {seconds:6.2} s  {result}"));
        }
    }

    /// Prints a line above the running step.
    pub fn line(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
