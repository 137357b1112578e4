//! What the user sees meanwhile: on a terminal a bar, elsewhere a line for each command. Where
//! explanations are asked for, those, as things happen.
//!
//! `anstream` leaves colours out where they are not wanted: no terminal, `NO_COLOR`. Nobody reading
//! on is no reason to stop building, so what can't be written is not.

use std::io::Write;
use std::sync::Mutex;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::lock;
use crate::outcome::{Broken, Ended};

pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const GREEN: Style = AnsiColor::Green.on_default().bold();
pub const DIM: Style = Style::new().dimmed();

pub struct Screen {
    explain: bool,
    verbose: bool,
    bar: ProgressBar,
    running: Mutex<Vec<String>>,
}

impl Screen {
    pub fn new(explain: bool, verbose: bool) -> Self {
        // Draws nothing where stderr is no terminal.
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:24.green} {pos}/{len} {wide_msg}");
        bar.set_style(style.expect("a valid template"));
        let running = Mutex::default();
        Self { explain, verbose, bar, running }
    }

    /// So many targets more.
    pub fn expect(&self, targets: usize) {
        self.bar.inc_length(targets as u64);
    }

    pub fn begin(&self, target: &str, why: &str, command: &str) {
        let mut running = lock(&self.running);
        running.push(target.to_owned());
        self.bar.set_message(running.join(" "));
        if self.explain {
            self.print(&format!("{target}: {why}"));
        } else if self.bar.is_hidden() || self.verbose {
            self.print(target);
        }
        if self.verbose {
            self.print(&format!("{DIM}  {command}{DIM:#}"));
        }
    }

    pub fn waits(&self, target: &str, need: &str) {
        if self.explain {
            self.print(&format!("{target} waits for {need}"));
        }
    }

    pub fn end(&self, target: &str) {
        let mut running = lock(&self.running);
        running.retain(|name| name != target);
        self.bar.set_message(running.join(" "));
    }

    /// A target is built, or will not be. (All that there is to say of a failure is said last.)
    pub fn done(&self, target: &str, outcome: &Ended) {
        self.bar.inc(1);
        if matches!(outcome, Err(Broken::Failed(failure)) if failure.target.text == target) {
            self.print(&format!("{RED}{target} failed{RED:#}"));
        }
    }

    /// What a command had to say that succeeded.
    pub fn output(&self, target: &str, output: &str) {
        if !output.is_empty() {
            self.print(&format!("{DIM}{target} says:{DIM:#}\n{}", output.trim_end()));
        }
    }

    pub fn print(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
