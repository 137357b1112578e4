//! A child process under guard: one that hangs is killed, and what it said is kept.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// For the first line, which a busy machine may delay.
const TO_START: Duration = Duration::from_secs(30);

pub struct Guarded {
    /// What the child printed.
    pub lines: Vec<String>,
    /// `None` if it fell silent and was killed.
    pub status: Option<ExitStatus>,
}

/// Runs this program again, with other arguments, until it ends or has printed no line for `limit`.
///
/// Counted from its last line, because only a child that has said how far it came can be told from
/// one that is slow.
pub fn run(args: &[&str], limit: Duration) -> io::Result<Guarded> {
    let mut child = KilledAtLast(
        Command::new(env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let stdout = child.0.stdout.take().expect("it is piped");
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.for_each(|line| drop(said.send(line)));
    });
    let mut lines = Vec::new();
    let status = loop {
        let limit = if lines.is_empty() { TO_START } else { limit };
        match heard.recv_timeout(limit) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Timeout) => break None,
            Err(RecvTimeoutError::Disconnected) => break Some(child.0.wait()?),
        }
    };
    Ok(Guarded { lines, status })
}

/// To be called first by the child. If the parent is killed, nobody is left to kill a child that
/// hangs; but then its standard input ends.
pub fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(1);
    });
}

struct KilledAtLast(Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
