//! What is logged: events of `tracing`, on stderr.
//!
//! Of flights, too: [`Trace`] is the bridge, an [`Observer`] that passes on what it is told. Most of
//! that is for whoever looks for something, and shows with `RUST_LOG=user_service=debug` only.

use std::io::{self, IsTerminal};

use shared_calls::{Deadlock, Ending, Landed, Observer};
use tracing::{debug, error, warn};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use crate::metrics::name;

/// Logs to stderr what `RUST_LOG` lets through, or else what is more than a detail.
pub fn init() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Unlike `eprintln!`, this does not panic when nobody reads the log.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour);
    subscriber.init();
}

/// Makes a line of the log of each event.
pub struct Trace;

impl Observer for Trace {
    fn flight_began(&self, key: &String) {
        debug!(key, "flight began");
    }

    fn caller_joined(&self, key: &String) {
        debug!(key, "caller joined");
    }

    fn flight_landed(&self, key: &String, landed: &Landed) {
        let Landed {
            duration,
            followers,
            ending,
            ..
        } = landed;
        let how = name(*ending);
        match ending {
            // What an error is, the service says, which has it.
            Ending::Succeeded | Ending::Failed => {
                debug!(key, ending = how, ?duration, followers, "flight landed");
            }
            _ => {
                warn!(key, ending = how, ?duration, followers, "flight landed");
            }
        }
    }

    fn caller_timed_out(&self, key: &String) {
        debug!(key, "caller timed out");
    }

    /// A mistake in the program: there is a load that asks for itself.
    fn deadlock_refused(&self, key: &String, deadlock: &Deadlock) {
        error!(key, %deadlock, "caller refused");
    }
}
