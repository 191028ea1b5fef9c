//! Processes of the contenders, one each: they are asked for a sample in turns, and stand still while it is another's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::ValueEnum;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::child::Sample;
use crate::contenders::Contender;

/// The process of one contender.
pub struct Peer {
    contender: Contender,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `program`, called as this process was but for whom to measure on how many threads. It waits for its turn.
    pub fn start(program: &Path, contender: Contender, threads: usize) -> Result<Self, String> {
        // Of another build we ask what that one calls ours.
        let asked = if contender == Contender::Before { Contender::Ours } else { contender };
        let name = asked.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
        let mut command = Command::new(program);
        let mut given = std::env::args_os().skip(1).peekable();
        while let Some(argument) = given.next() {
            // One number of threads a process.
            if argument == "--threads" {
                given.next();
            } else if !argument.to_string_lossy().starts_with("--threads=") {
                command.arg(argument);
            }
        }
        command.args(["--child", &name, "--threads", &threads.to_string()]);
        // What tunes OpenBLAS for another machine stays out.
        command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        command.envs(contender.environment(threads)).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own, so that a program it starts stands still with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Ok(Peer { contender, child, to, from: BufReader::new(from) })
    }

    /// Its turn: a sample of a case. Then its threads stop, also those that wait for work in a loop and would take a core from the next.
    pub fn sample(&mut self, case: usize) -> Result<Sample, String> {
        let text = |error: std::io::Error| error.to_string();
        self.signal(Signal::SIGCONT)?;
        let mut line = String::new();
        writeln!(self.to, "{case}").and_then(|()| self.to.flush()).map_err(text)?;
        if self.from.read_line(&mut line).map_err(text)? == 0 {
            let status = self.child.wait().map_err(text)?;
            return Err(format!("the process of {:?} ended with {status}", self.contender));
        }
        self.signal(Signal::SIGSTOP)?;
        serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let group = Pid::from_raw(self.child.id().cast_signed());
        killpg(group, signal).map_err(|error| format!("{signal} to {:?}: {error}", self.contender))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
