//! What the user sees of a build, on stderr.
//!
//! Plain, one line for each event, for files and pipes:
//!
//! ```text
//! [build 2/5] RUN make
//! [build 2/5] | cc -o hello hello.c
//! [build 3/5] CACHED COPY /a /b
//! ```
//!
//! On a terminal a step's output passes by on one line below it; a failed step's last lines are
//! shown again in full. Quiet shows nothing but these.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How many lines of a failed step are shown.
const TAIL: usize = 20;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// A terminal's way on a terminal, plain otherwise.
    Auto,
    /// Lines.
    Plain,
    /// A spinner for the step at work.
    Tty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Quiet,
    Plain,
    Tty,
}

/// The log of one build.
pub struct Log {
    style: Style,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    step: String,
    tail: VecDeque<String>,
    spinner: Option<ProgressBar>,
}

impl Log {
    /// A log in the style asked for.
    pub fn new(progress: Progress, quiet: bool) -> Self {
        let terminal = match progress {
            Progress::Auto => std::io::stderr().is_terminal(),
            Progress::Plain => false,
            Progress::Tty => true,
        };
        let style = match (quiet, terminal) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Tty,
            (false, false) => Style::Plain,
        };
        Self { style, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A message that belongs to no step.
    pub fn note(&self, text: &str) {
        if self.style != Style::Quiet {
            self.print(text);
        }
    }

    /// Something the user should look at.
    pub fn warn(&self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// A step that was not executed because its result is known.
    pub fn cached(&self, step: &str, title: &str) {
        self.note(&format!("[{step}] CACHED {title}"));
    }

    /// A step begins.
    pub fn begin(&self, step: &str, title: &str) {
        let mut state = self.state();
        state.step = step.to_owned();
        state.tail.clear();
        match self.style {
            Style::Quiet => {}
            Style::Plain => line(&format!("[{step}] {title}")),
            Style::Tty => {
                let template = "{spinner} {prefix} {elapsed} {wide_msg:.dim}";
                let spinner = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template(template) {
                    spinner.set_style(style);
                }
                spinner.set_prefix(format!("[{step}] {}", clip(title)));
                spinner.enable_steady_tick(Duration::from_millis(120));
                state.spinner = Some(spinner);
            }
        }
    }

    /// A line of the running step's output.
    pub fn output(&self, text: &str) {
        let mut state = self.state();
        if state.tail.len() == TAIL {
            state.tail.pop_front();
        }
        state.tail.push_back(text.to_owned());
        match (&state.spinner, self.style) {
            (Some(spinner), _) => spinner.set_message(text.to_owned()),
            (None, Style::Plain) => line(&format!("[{}] | {text}", state.step)),
            _ => {}
        }
    }

    /// The running step is done.
    pub fn end(&self) {
        if let Some(spinner) = self.state().spinner.take() {
            let done = format!("{} {:.1}s", spinner.prefix(), spinner.elapsed().as_secs_f32());
            spinner.finish_and_clear();
            line(&done);
        }
    }

    /// The running step failed: its last lines, unless they have just been printed.
    pub fn failed(&self) {
        let mut state = self.state();
        if let Some(spinner) = state.spinner.take() {
            spinner.finish_and_clear();
        }
        if self.style != Style::Plain {
            state.tail.iter().for_each(|text| line(&format!("[{}] | {text}", state.step)));
        }
    }

    fn print(&self, text: &str) {
        match &self.state().spinner {
            Some(spinner) => spinner.suspend(|| line(text)),
            None => line(text),
        }
    }
}

/// One line to stderr. Nobody is left to tell when that fails.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn clip(title: &str) -> String {
    match title.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &title[..end]),
        None => title.to_owned(),
    }
}
