//! The four programs together, on a store and a state directory of the case's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::detached;
use crate::program::{Program, runtime};
use crate::{Case, Outcome};

/// Drives the programs as a person would at a shell.
#[derive(Debug)]
pub struct Tools<'a> {
    case: &'a Case,
}

impl<'a> Tools<'a> {
    /// The programs on directories of this case; nothing is run yet.
    ///
    /// # Errors
    /// A program that has not been built, as the reason for a skip.
    pub fn new(case: &'a Case) -> Result<Tools<'a>, String> {
        for program in [Program::Imgtool, Program::Buildtool, Program::Shim] {
            program.built()?;
        }
        Ok(Tools { case })
    }

    /// The image store.
    pub fn store(&self) -> PathBuf {
        self.case.dir().join("store")
    }

    fn prepare(&self, mut command: Command) -> Command {
        command.env("DAVIT_STORE", self.store());
        command
    }

    /// `imgtool ARGS…`
    #[track_caller]
    pub fn imgtool(&self, args: &[&str]) -> Outcome {
        let mut command = self.prepare(Program::Imgtool.command());
        command.args(args);
        self.case.outcome(command)
    }

    /// `buildtool ARGS…`, executing the runtime under test.
    #[track_caller]
    pub fn buildtool(&self, args: &[&str]) -> Outcome {
        let mut command = self.prepare(Program::Buildtool.command());
        command.args(args);
        self.case.outcome(command)
    }

    /// `shim VERB --state DIR ARGS…`, executing the runtime under test.
    #[track_caller]
    pub fn shim(&self, verb: &str, args: &[&str]) -> Outcome {
        let mut command = self.prepare(Program::Shim.command());
        command.arg(verb).arg("--state").arg(self.case.dir().join("containers"));
        if verb == "run" {
            command.arg("--runtime").arg(runtime());
            command.arg("--runtime-arg=--root").arg("--runtime-arg").arg(self.case.root());
        }
        command.args(args);
        self.case.outcome(command)
    }

    /// A line for the shell, in which the programs are on PATH and `$S` is a second store.
    #[track_caller]
    pub fn shell(&self, line: &str) -> Outcome {
        self.shell_in(self.case.dir(), &format!("set -e; {line}"))
    }

    /// A line of the README's session, typed in `dir`: `shim` and `runtime` keep their state in the
    /// case, and `ls` prints as it does on a terminal.
    #[track_caller]
    pub fn session_line(&self, dir: &Path, line: &str) -> Outcome {
        let state = self.case.dir().join("containers");
        let shim = format!("shim() {{ command shim --state '{}' \"$@\"; }}", state.display());
        let root = self.case.root();
        let runtime =
            format!("runtime() {{ command runtime --root '{}' \"$@\"; }}", root.display());
        let ls = "ls() { command ls -C \"$@\"; }";
        self.shell_in(dir, &format!("{shim}\n{runtime}\n{ls}\n{line}"))
    }

    #[track_caller]
    fn shell_in(&self, dir: &Path, script: &str) -> Outcome {
        let mut command = self.prepare(detached("/bin/sh".as_ref()));
        command.args(["-c", script]);
        let programs = Program::Imgtool.path();
        let programs = programs.parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{programs}:{path}"));
        command.env("S", self.case.dir().join("second-store")).current_dir(dir);
        self.case.outcome(command)
    }

    /// Makes a build context with these files; its path.
    pub fn context(&self, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.case.dir().join("context");
        let _ = fs::remove_dir_all(&dir);
        for (name, text) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
            fs::write(path, text).expect("write into the context");
        }
        dir
    }
}

impl Drop for Tools<'_> {
    fn drop(&mut self) {
        let names = self.shim("ps", &["--all", "--quiet"]).stdout;
        for id in names.lines() {
            let _ = self.shim("rm", &["--force", id]);
        }
        crate::daemon::unmount_below(self.case.dir());
    }
}
