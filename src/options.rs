//! What a call can ask for, in a request or by the defaults of its group.

use std::time::Duration;

use crate::sync::Deadline;

/// `None`: not set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) time_limit: Option<TimeLimit>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_followers: Option<usize>,
    pub(crate) takeover: Option<u32>,
    pub(crate) next_flight: bool,
    pub(crate) alone_on_deadlock: bool,
    pub(crate) intent: Intent,
}

/// What a caller does next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Intent {
    /// It runs its function, or waits, at once.
    #[default]
    Call,
    /// It completes the flight, or waits, later, and maybe on another thread.
    Join,
    /// The same, and if it leads, a ticket waits for the flight.
    Start,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum TimeLimit {
    For(Duration),
    Until(Deadline),
}

impl Options {
    /// These options, and for each that is not given the default.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        Self {
            time_limit: self.time_limit.or(defaults.time_limit),
            max_age: self.max_age.or(defaults.max_age),
            max_followers: self.max_followers.or(defaults.max_followers),
            takeover: self.takeover.or(defaults.takeover),
            next_flight: self.next_flight,
            alone_on_deadlock: self.alone_on_deadlock || defaults.alone_on_deadlock,
            intent: self.intent,
        }
    }

    pub(crate) fn with_intent(self, intent: Intent) -> Self {
        Self { intent, ..self }
    }

    /// One instant, fixed when the wait begins, so that no wake-up starts the time again. Reads the
    /// clock only if there is a limit.
    pub(crate) fn deadline(&self) -> Deadline {
        match self.time_limit {
            None => Deadline::NEVER,
            Some(TimeLimit::For(timeout)) => Deadline::after(timeout),
            Some(TimeLimit::Until(deadline)) => deadline,
        }
    }

    /// Fixes the instant now.
    pub(crate) fn fix_deadline(&mut self) -> Deadline {
        let deadline = self.deadline();
        self.time_limit = Some(TimeLimit::Until(deadline));
        deadline
    }
}
