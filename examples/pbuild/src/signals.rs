//! The signals that end a build, and Ctrl-Z, which stops it for a while.
//!
//! Commands have sessions of their own, so a terminal's signals come to pbuild alone. It blocks them
//! in all its threads, and one thread waits for them and passes them on.

use std::fs;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{raise, SigSet, Signal};

use crate::cli::INTERRUPTED;
use crate::run::Run;

const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// How long commands may take to end by themselves after an interrupt.
const GRACE: Duration = Duration::from_secs(5);

/// Blocks the signals in this thread, and in those that it begins from now on. Those that pbuild
/// was started to ignore, by nohup for one, it goes on to ignore.
pub fn block() -> nix::Result<SigSet> {
    let ignored = ignored();
    let is_ignored = |signal: &Signal| ignored >> (*signal as i32 - 1) & 1 == 1;
    let all = ENDING.into_iter().chain([Signal::SIGTSTP]);
    let signals: SigSet = all.filter(|signal| !is_ignored(signal)).collect();
    signals.thread_block()?;
    Ok(signals)
}

/// The first signal ends commands politely, a second one at once, and a third one only pbuild.
pub fn answer(signals: SigSet, run: Arc<Run>) {
    thread::spawn(move || {
        let mut interrupts = 0;
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGTSTP {
                run.commands.pause(stop);
                continue;
            }
            interrupts += 1;
            match interrupts {
                1 => end(&run),
                2 => run.interrupt(Signal::SIGKILL),
                _ => process::exit(INTERRUPTED.into()),
            }
        }
    });
}

fn end(run: &Arc<Run>) {
    run.interrupt(Signal::SIGTERM);
    let run = Arc::clone(run);
    thread::spawn(move || {
        thread::sleep(GRACE);
        run.interrupt(Signal::SIGKILL);
    });
}

/// Stops pbuild until it is sent SIGCONT. Where nobody could do that, the system does not stop it.
fn stop() {
    let signal = SigSet::from(Signal::SIGTSTP);
    // These do not fail for a valid signal.
    let _ = signal.thread_unblock();
    let _ = raise(Signal::SIGTSTP);
    let _ = signal.thread_block();
}

/// A bit for each ignored signal. Only Linux tells; elsewhere none is taken for ignored.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.unwrap_or(0)
}
