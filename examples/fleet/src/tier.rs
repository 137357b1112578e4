//! The two tiers. First the local one, a [`FlightGroup`]: of all threads of a process that ask for
//! a key at the same time, one goes on to Redis. There, of all processes, one takes the key's lock,
//! runs its function and publishes the outcome.
//!
//! *Who waits for what.* Redis numbers the flights of a key. A process that finds the lock taken
//! learns the number of the running flight, and takes the outcome of that flight or of a later one;
//! never that of an earlier one, however long outcomes are kept. A process that asks after a
//! publication finds the key free, and runs its function.
//!
//! *Why no wake-up is lost.* A process that waits first takes its place at the [`Bell`], and then
//! asks for the outcome. What is published before Redis answers is the answer; what is published
//! later rings. If the message is lost, the next answer has it: all that wait ask again every
//! [`Settings::poll`].
//!
//! *Why a late outcome is not published.* One script compares the token with the lock, and only
//! then sets the outcome, deletes the lock and tells the others. It refuses a process that was
//! paused for longer than its lease, so that another took over. That outcome goes to the process's
//! own threads only.
//!
//! *Why nobody waits for a dead process.* Only its renewals keep a lock. Without them it is gone
//! after [`Settings::lock`]. To ask is to take the lock if it is free: the first process that asks
//! takes over, and the others see the new holder, or, if that was quick, its outcome.
//!
//! *Why an outcome is never older than the call that gets it.* Between processes, the numbers see to
//! that. Within one, callers join the local flight while its leader waits for another process, and
//! some may join after the publication, before the leader has heard of it. So the leader remembers
//! when it last asked in vain, and callers that joined later ask again. When a holder's function has
//! returned, its local flight is given up *before* the outcome is published: later callers find the
//! lock, or a free key, as all other processes do. The exception: where Redis does not reply to the
//! publication in time, the holder's threads return, and the others may have the outcome later.
//!
//! *Whose deadline counts.* Each caller's own. A local leader that waits for another process leaves
//! at its deadline, after it has asked once more: an outcome that is there beats a deadline that
//! has passed. That does not fail its followers: those with time left ask again, and one of them
//! leads and waits on. A function that runs is not interrupted, as in the library.

use std::fmt::Display;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{ErrorKind, RedisResult};
use serde::de::DeserializeOwned;
use serde::Serialize;
use shared_calls::{CallError, FlightGroup, Outcome, Panicked, Role, SharedCalls};
use tracing::{info, warn};
use uuid::Uuid;

use crate::check::check;
use crate::link::{Link, NoRedis};
use crate::lock::{Answer, Locks, Token, LONGEST};
use crate::message::{self, Elsewhere};
use crate::renew::Held;
use crate::wake::{self, Bell};

/// How long things take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Begins all names in Redis. Programs that do not mean the same by a key want different ones.
    pub prefix: String,
    /// A process that dies holds the others up for so long. Renewed at each third of it, so it
    /// should be longer than a process may be paused.
    pub lock: Duration,
    /// How long an outcome is kept for those who were waiting for it. Nobody else gets it.
    pub outcome: Duration,
    /// How often those who wait ask for themselves. Who joins them after their last time is told to
    /// ask again, too.
    pub poll: Duration,
    /// How long Redis may take to answer before it is taken to be away.
    pub reply: Duration,
    /// After this a lock is no longer renewed: a function that hangs does not hold a fleet up.
    pub max_run: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "fleet:".to_owned(),
            lock: Duration::from_secs(3),
            outcome: Duration::from_secs(10),
            poll: Duration::from_millis(20),
            reply: Duration::from_millis(250),
            max_run: Duration::from_secs(60),
        }
    }
}

/// Shares calls within this process, and through Redis with others.
///
/// An error of another process arrives as text, in an [`Elsewhere`]. Without Redis, calls are
/// shared within the process. A call has [`Role::Led`] where its own function ran, so of all
/// processes that share a flight one call has; its `followers` are those of its own process.
pub struct RedisTier<V, E> {
    local: FlightGroup<Landing<V>, E>,
    shared: Arc<Shared>,
    renews: Option<Thread>,
}

/// What the threads have, too.
struct Shared {
    link: Link,
    locks: Locks,
    bell: Bell,
    held: Held,
    settings: Settings,
    counts: Mutex<Stats>,
    open: AtomicBool,
}

/// How a local flight ends, if not by an error or a panic of its own function.
#[derive(Clone)]
enum Landing<V> {
    /// The function ran here.
    Ran(V),
    /// It ran in another process, and its outcome was not there yet at that time.
    Told(Result<V, Elsewhere>, Instant),
    /// The leader's deadline has passed while it waited for another process.
    LeaderLeft,
}

/// What has happened so far, and what is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whether there is a Redis, as far as is known.
    pub connected: bool,
    /// Functions that run here now, with the lock.
    pub holding: usize,
    /// Functions that ran here with the lock.
    pub locked: u64,
    /// Functions that ran here without it, because Redis was away or refused.
    pub alone: u64,
    /// Outcomes that were not published: the lock was lost, or Redis was.
    pub unpublished: u64,
    /// Times Redis was asked in vain, because another process was still at it.
    pub asked: u64,
    /// Calls that asked again: see the module's comment.
    pub asked_again: u64,
}

impl<V, E> RedisTier<V, E> {
    /// Tries to connect, and starts two threads, which end soon after this is dropped.
    ///
    /// # Errors
    ///
    /// When the URL or the settings make no sense. That there is no Redis is no error.
    pub fn new(url: &str, settings: Settings) -> RedisResult<Self> {
        let s = &settings;
        let refuse = |why| Err((ErrorKind::InvalidClientConfig, why).into());
        if s.lock.min(s.outcome).min(s.poll).min(s.reply) < Duration::from_millis(1) {
            return refuse("a time is below a millisecond");
        }
        if s.lock.max(s.outcome) > LONGEST {
            return refuse("a time is above a year");
        }
        let shared = Arc::new(Shared {
            link: Link::new(url, s.reply)?,
            locks: Locks::new(&s.prefix, s.lock, s.outcome),
            bell: Bell::default(),
            held: Held::default(),
            settings,
            counts: Mutex::default(),
            open: AtomicBool::new(true),
        });
        // If it fails, that was logged, and the subscriber tries again.
        let checked = shared.link.run(|c| check(c, &shared.locks));
        let _ = checked.and_then(|check| shared.link.admit(check));
        let mut tier = Self { local: FlightGroup::new(), shared, renews: None };
        tier.shared.spawn("fleet-listen", |s| {
            wake::listen(&s.link, &s.locks, &s.bell, || s.open.load(Ordering::SeqCst));
        })?;
        tier.renews = Some(tier.shared.spawn("fleet-renew", |s| {
            while s.open.load(Ordering::SeqCst) {
                let pause = s.held.renew_due(&s.link, &s.locks, s.settings.max_run);
                thread::park_timeout(pause);
            }
        })?);
        Ok(tier)
    }

    pub fn stats(&self) -> Stats {
        let mut stats = *self.shared.counts.lock();
        stats.connected = self.shared.link.is_up();
        stats.holding = self.shared.held.count();
        stats
    }

    /// Those of the local tier.
    pub fn local_stats(&self) -> shared_calls::Stats {
        self.local.stats()
    }
}

impl<V, E> RedisTier<V, E>
where
    V: Clone + Serialize + DeserializeOwned,
    E: From<Elsewhere> + Display,
{
    /// Like [`FlightGroup::call_ex`], until a deadline.
    ///
    /// Bounds how long this call waits for another thread or process, and then gives
    /// [`CallError::TimedOut`]; not how long its own function runs. When Redis hangs, it may be late
    /// by [`Settings::reply`], or by twice that where a new connection has to log in.
    pub fn call_until(
        &self,
        key: &str,
        deadline: Option<Instant>,
        f: impl FnOnce() -> Result<V, E>,
    ) -> Outcome<V, E> {
        let began = Instant::now();
        let mut f = Some(f);
        loop {
            let mut request = self.local.request(key);
            if let Some(deadline) = deadline {
                request = request.deadline(deadline);
            }
            let mut outcome = request.call_ex(|| self.lead(key, deadline, &mut f));
            let result = match outcome.result {
                Ok(Landing::Ran(value)) => Ok(value),
                Ok(Landing::Told(told, in_vain)) if began <= in_vain => {
                    outcome.role = Role::Followed;
                    told.map_err(|error| match error {
                        Elsewhere::Panicked(text) => CallError::Panicked(Panicked::new(text)),
                        error => CallError::Failed(Arc::new(error.into())),
                    })
                }
                Ok(_) if passed(deadline) => {
                    (outcome.role, outcome.followers) = (Role::Followed, 0);
                    Err(CallError::TimedOut)
                }
                Ok(_) => {
                    self.shared.counts.lock().asked_again += 1;
                    continue;
                }
                Err(error) => Err(error),
            };
            return Outcome { result, role: outcome.role, followers: outcome.followers };
        }
    }

    /// What the leader of the local flight does: runs `f`, unless another process does so.
    fn lead(
        &self,
        key: &str,
        deadline: Option<Instant>,
        f: &mut Option<impl FnOnce() -> Result<V, E>>,
    ) -> Result<Landing<V>, E> {
        let s = &*self.shared;
        let mut f = || f.take().expect("who has run it does not ask again")();
        let name = Uuid::new_v4().simple().to_string();
        let place = s.bell.take_place(key);
        let mut seen: Option<u64> = None;
        // When we last knew that what we wait for was not published yet.
        let mut in_vain = Instant::now();
        loop {
            let asked = Instant::now();
            let late = seen.is_some() && deadline.is_some_and(|deadline| deadline <= asked);
            let name = if late { None } else { Some(&*name) };
            match s.locks.ask(&s.link, key, seen, name) {
                Ok(Answer::Outcome(json)) => {
                    return Ok(Landing::Told(message::decode(&json), in_vain));
                }
                Ok(Answer::Acquired(token)) => {
                    drop(place);
                    s.held.keep(key, &token, asked);
                    if seen.is_some() {
                        info!(key, "takes over: the last holder published nothing");
                    }
                    return self.run_locked(key, &token, f).map(Landing::Ran);
                }
                _ if late => return Ok(Landing::LeaderLeft),
                // It has waited, and learns only now that this was in vain.
                Err(NoRedis) if seen.is_some() && passed(deadline) => {
                    return Ok(Landing::LeaderLeft);
                }
                // The lowest. It is the first, unless Redis has forgotten its numbers meanwhile.
                Ok(Answer::Held(number)) => seen = Some(seen.unwrap_or(number).min(number)),
                Err(NoRedis) => {
                    drop(place);
                    s.counts.lock().alone += 1;
                    return f().map(Landing::Ran);
                }
            }
            s.counts.lock().asked += 1;
            in_vain = asked;
            let left = deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(asked));
            place.wait(s.settings.poll.min(left));
        }
    }

    /// Runs the function with the lock, and publishes how it ended, be it by a panic.
    fn run_locked(
        &self,
        key: &str,
        token: &Token,
        f: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let s = &*self.shared;
        s.counts.lock().locked += 1;
        let result = catch_unwind(AssertUnwindSafe(f));
        // From here on a caller finds the lock, or nothing, but never this flight, whose result
        // other processes are about to get.
        self.local.forget(key);
        // To send it is the value's own code, or the error's, and may panic, too.
        let json = catch_unwind(AssertUnwindSafe(|| {
            message::encode(result.as_ref().map_err(|panic| &**panic))
        }));
        let kept = s.held.release(token);
        let (json, result) = match json {
            Ok(json) => (json, result),
            Err(panic) => (message::encode::<V, E>(Err(&*panic)), Err(panic)),
        };
        let published = s.locks.publish(&s.link, key, token, &json);
        if !matches!(published, Ok(true)) {
            s.counts.lock().unpublished += 1;
        }
        if kept && matches!(published, Ok(false)) {
            // Its process was paused, for example, so that the renewals have not noticed yet.
            warn!(key, "the lock was lost: other processes go on without it");
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

impl<V, E> SharedCalls<V, E> for RedisTier<V, E>
where
    V: Clone + Serialize + DeserializeOwned + Send + Sync,
    E: From<Elsewhere> + Display + Send + Sync,
{
    fn call_dyn(&self, key: &str, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
        self.call_until(key, None, f)
    }
}

impl<V, E> Drop for RedisTier<V, E> {
    fn drop(&mut self) {
        self.shared.open.store(false, Ordering::SeqCst);
        // It may be parked for long.
        if let Some(thread) = &self.renews {
            thread.unpark();
        }
    }
}

impl Shared {
    fn spawn(self: &Arc<Self>, name: &str, run: fn(&Self)) -> RedisResult<Thread> {
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned());
        Ok(thread.spawn(move || run(&shared))?.thread().clone())
    }
}
