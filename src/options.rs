//! What a call can ask for, in a request or by the defaults of its group.

use std::time::Duration;

use crate::{sync::Deadline, sync::Time};

/// `None`: not set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) time_limit: Option<TimeLimit>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_followers: Option<usize>,
    pub(crate) takeover: Option<u32>,
    pub(crate) next_flight: bool,
    pub(crate) alone_on_deadlock: bool,
    /// The caller only joins: it leads or waits later, and maybe on another thread.
    pub(crate) transferable: bool,
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
            alone_on_deadlock: self.alone_on_deadlock || defaults.alone_on_deadlock,
            ..self
        }
    }

    /// Whether callers that have waited since then have waited for too long.
    pub(crate) fn is_too_old(&self, since: Time) -> bool {
        self.max_age.is_some_and(|age| since.age() >= age)
    }

    /// Reads the clock only if there is a limit.
    pub(crate) fn deadline(&self) -> Deadline {
        match self.time_limit {
            None => Deadline::NEVER,
            Some(TimeLimit::For(timeout)) => Deadline::after(timeout),
            Some(TimeLimit::Until(deadline)) => deadline,
        }
    }

    /// Fixes the instant now, for all that is done with these options.
    pub(crate) fn fix_deadline(&mut self) -> Deadline {
        let deadline = self.deadline();
        self.time_limit = Some(TimeLimit::Until(deadline));
        deadline
    }
}
