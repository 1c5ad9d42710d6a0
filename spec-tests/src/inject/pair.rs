//! Two verbs of one container: the second is run whole while the first one stands at a call.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::world::World;
use crate::Outcome;

/// The second verb.
pub struct Meanwhile {
    /// The verb and its flags.
    pub words: &'static [&'static str],
    /// Whether the bundle is named.
    pub makes: bool,
    /// What they may answer, and what has to be there then.
    pub fits: fn(&World, &Answers) -> Result<(), String>,
}

/// How both ended, and what they said.
#[derive(Debug)]
pub struct Answers {
    /// The exit code of the disturbed verb.
    pub first: i32,
    /// What it said on stderr.
    pub first_said: String,
    /// The exit code of the other one.
    pub second: i32,
    /// What it said on stderr.
    pub second_said: String,
}

/// How long the second may run alone. One that waits for the first's lock goes on afterwards.
const ALONE: Duration = Duration::from_millis(100);

/// The second verb, when it has begun.
#[derive(Default)]
pub struct Second(RefCell<Option<JoinHandle<Result<Outcome, String>>>>);

impl Second {
    /// Begins it, and leaves it some time alone. It is another thread's child: the tracer waits for
    /// every child of its own.
    pub fn run(&self, command: Command, scratch: &Path) {
        let scratch = scratch.to_owned();
        let running = std::thread::spawn(move || Outcome::in_time(command, &scratch));
        let start = Instant::now();
        while !running.is_finished() && start.elapsed() < ALONE {
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.0.borrow_mut() = Some(running);
    }

    /// What came of it; `None` if it was never begun.
    pub fn end(&self) -> Option<Result<Outcome, String>> {
        self.0.borrow_mut().take().map(|running| running.join().expect("it does not panic"))
    }
}

impl Answers {
    /// Neither fails without a word.
    pub fn have_words(&self) -> Result<(), String> {
        let silent = |code: i32, said: &str| code != 0 && said.trim().is_empty();
        match silent(self.first, &self.first_said) || silent(self.second, &self.second_said) {
            true => Err("one fails without a word".into()),
            false => Ok(()),
        }
    }

    /// Exactly one succeeds.
    pub fn one_succeeds(&self) -> Result<(), String> {
        match (self.first, self.second) {
            (0, 0) => Err("both succeed".into()),
            (0, _) | (_, 0) => Ok(()),
            _ => Err("none succeeds".into()),
        }
    }

    /// Both succeed.
    pub fn both_succeed(&self) -> Result<(), String> {
        if (self.first, self.second) == (0, 0) { Ok(()) } else { Err("one fails".into()) }
    }
}
