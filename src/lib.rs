//! When many threads ask for the same thing at the same time, one of them does the work and all of
//! them get the result.
//!
//! A hot cache entry expires, a thousand requests arrive in the same millisecond, and all thousand
//! go to the database. With a [`FlightGroup`] one goes, and the others wait for its answer:
//!
//! ```
//! use shared_calls::{CallError, FlightGroup};
//! use std::io;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! let users = FlightGroup::<String, io::Error>::new();
//! let queries = AtomicUsize::new(0);
//! std::thread::scope(|scope| {
//!     for _ in 0..8 {
//!         scope.spawn(|| {
//!             let user = users.call("user:42", || {
//!                 queries.fetch_add(1, Ordering::Relaxed); // the slow part
//!                 Ok("Ada".to_owned())
//!             })?;
//!             assert_eq!(user, "Ada");
//!             Ok::<(), CallError<io::Error>>(())
//!         });
//!     }
//! });
//! // Between 1 and 8: only calls that overlap in time share.
//! assert!(queries.into_inner() <= 8);
//! ```
//!
//! This is go-zero's `SharedCalls` (`SingleFlight`) and `golang.org/x/sync/singleflight` for
//! threads: synchronous, without dependencies, without `unsafe`. What else there is: a
//! [request](FlightGroup::request) with a deadline, or for the [next flight](Request::next_flight);
//! [tickets](FlightGroup::start) for what another thread computes; [giving up](FlightGroup::forget)
//! on a flight; [refusal](#deadlocks) of a wait that would never end;
//! [figures](FlightGroup::stats), [what is in flight](FlightGroup::in_flight) and an
//! [observer](Observer). The [recipes] put it to use.
//!
//! # Words
//!
//! A *flight* is one execution of a function for a key, and everyone who shares its outcome. Its
//! *leader* is the caller whose function runs; a *follower* waits for the leader's outcome. To
//! *unlink* a flight is to take it out of the group's map; it *lands* when its outcome is published
//! and its followers wake.
//!
//! # When not to use it
//!
//! - **As a cache.** Once a flight has landed, nothing of it is kept; the next call runs its
//!   function. Put the look-up in your cache inside the shared function.
//! - **In async code.** A follower blocks its thread.
//! - **For functions that must run once per caller**: writes, counters, anything with an effect the
//!   caller relies on.
//! - **With a key that does not name every input.** Whoever has the same key gets the same value:
//!   put the tenant, the permissions and the language into the key, or share what depends on none.
//! - **Where the threads of a pool wait for jobs in that pool's queue.** If all of them do, no
//!   thread is left to run one. No library can see that; wait with a time limit, or elsewhere.
//!
//! # What holds
//!
//! The numbers are cited throughout these pages, the tests and the models.
//!
//! - **G1 One at a time.** At most one execution for a key is in progress, unless the key was given
//!   up on purpose, by [`forget`](FlightGroup::forget) or [`max_age`](Request::max_age).
//! - **G2 Unlink before landing.** A call that starts after another call on that key has returned
//!   never shares that call's flight.
//! - **G3 One outcome each.** Every call gets exactly one outcome, every follower its leader's, and
//!   exactly one call of a flight is [`Role::Led`].
//! - **G4 Nobody is left waiting.** However a leader ends, by a value, an error, a panic, a dropped
//!   [`Leader`] or a [`Job`] that never ran, every follower wakes with a typed outcome and the key
//!   is free at once. No panic poisons the group or another key.
//! - **G5 Happens-before.** What the function wrote is visible to every caller that gets its
//!   outcome. It is visible to the next execution for that key, too.
//! - **G6 Only its own entry.** A flight removes its own entry from the map, never its successor's.
//! - **G7 The next flight.** The execution shared by a [`next_flight`](Request::next_flight) call
//!   began after the call did. At most one flight for a key runs and at most one is queued behind
//!   it.
//! - **G8 Patience is the caller's own.** A follower that times out leaves; the flight goes on,
//!   nobody else is disturbed and no second execution starts. An outcome that is ready beats a
//!   deadline that has passed.
//! - **G9 A wait that can never end is refused.** Of a circle of threads that would wait for each
//!   other, over any number of keys and groups, or of a function that asks for its own key, the one
//!   call that would close the circle gets [`CallError::Deadlock`]; the others go on. See
//!   [below](#deadlocks) for what can be told.
//! - **G10 User code runs outside the locks.** The function, and `Clone` and `Drop` of values,
//!   errors and keys, may take long, block, panic, or call the group with another key. (`Eq` and
//!   `Borrow` of keys run under the map's lock; a panic there leaves the group as it was. `Hash`
//!   does not run there.)
//! - **G11 Nothing is kept.** A quiet group holds no values, errors or functions, and after a spike
//!   of keys its memory goes back to near what it was. It keeps at most 4 keys for
//!   reuse.
//! - **G12 A lone call is cheap.** With no follower: no clone of the value, no wake-up system call,
//!   and no allocation once warm. (That is: if the key can be written over an old one without
//!   allocating, as short strings can, the group has one of the 4 that it keeps, and the function
//!   returns no error, which goes into an `Arc`.)
//!
//! # Deadlocks
//!
//! A function that asks for its own key, or two that ask for each other's, would wait for ever. The
//! last of them to ask is [refused](CallError::Deadlock) instead. Its function may pass that error
//! on, do without, or have asked with [`alone_on_deadlock`](Request::alone_on_deadlock) and compute
//! the value itself.
//!
//! *What is detected*: every circle of threads each of which runs the function of a flight (of
//! [`call`](FlightGroup::call), of a [`Request`], by [`Leader::run`] or as a [`Job`]) and waits
//! without a limit for another flight, by `call`, a [`Follower`], a [`Ticket`] or queued for the
//! next flight; over all groups of the process, whatever their types.
//!
//! *What is never refused*: a wait that can end by what the threads of the circle themselves do. A
//! wait with a deadline ends by itself, and is part of no circle. A flight that has landed holds
//! nobody up. (A caller that is queued behind a flight is taken to wait for that flight. A third
//! party could still free it by giving that flight up; that is not waited for.)
//!
//! *What is not detected*, and hangs:
//!
//! - a [`Leader`] that the waiting thread itself holds, or that another thread of the circle does:
//!   it may be completed by any thread, so no thread is known to lead. The same goes for a job that
//!   nobody runs;
//! - a circle that goes through something else: a lock, a channel, a thread that is joined, the
//!   queue of a thread pool;
//! - a caller that waits with a time limit again and again, and does nothing else in between;
//! - what the `Drop` of a key waits for, what an [`Observer`] waits for, and what the closure that
//!   [`start`](FlightGroup::start) gives a job to waits for before the job has run;
//! - in the destructor of a thread-local, while the thread ends: flights around the innermost one;
//! - other processes.
//!
//! *What it costs*: a lone call notes in a thread-local which flight it runs. A thread that waits
//! without leading anything is in nobody's way and pays nothing. Only one that waits inside a
//! function, for what is not there yet, takes the lock of the graph, which is one for all groups,
//! before and after: for a time in proportion to how many functions are nested around it. So do
//! those who look with
//! [`in_flight`](FlightGroup::in_flight). A thread's first call that leads takes a lock and
//! allocates, to write the thread's name down.
//!
//! # Panics
//!
//! A panic in the function unwinds out of the leader's own call with its original payload.
//! Followers get [`CallError::Panicked`] with the message. A [`Job`]'s panic goes to its tickets. A
//! program built with `panic = "abort"` dies instead, as ever.
//!
//! # What it costs
//!
//! A call that leads takes the map's lock three times, briefly: to look, to put its flight in, and
//! to take it out. (Twice where the last flight that nobody followed was for the same key, which a
//! group remembers until it needs an entry for another one. Twice would always do if the owned key
//! were made under the lock, where a slow or panicking `Clone` would be everybody's problem.) It
//! reads the clock once, for [`max_age`](Request::max_age) and for who looks
//! ([unless](Builder::without_ages) told not to). A follower takes the map's lock once, or twice if
//! it came at the same instant as its leader, and the flight's latch before and after it sleeps.
//!
//! A leader wakes its followers, or, of 16 and more, one of them, who lets the leader go on if that
//! wants the same processor, and wakes the others before it goes on itself; so of a crowd one
//! follower is held up, by some microseconds for each of the others, also past a deadline of its
//! own.
//!
//! One lock guards the whole map, so very many threads on distinct keys queue up for it (or have a
//! [`ShardedGroup`]): for well under a microsecond each, except when the map grows or shrinks, as
//! any `HashMap` under a lock does. A flight with followers allocates its outcome, and is not used
//! again, so that a later one allocates its key and its flight; it clones the value at most once
//! for each of its callers, on their own threads.
//!
//! # For readers
//!
//! The sources are meant to be read, in this order: `group` (the algorithm), `flight` (its states),
//! `latch` (why no wake-up is lost), `deadlock` and `threads` (who waits for whom), `map` and
//! `keys` (who is in flight), `observer` (what is told), then `request`, `ticket`, `stats` and
//! `builder`. The models in `loom-tests/` mount these very files and run them through every
//! interleaving; `cargo models` also shows that they can fail.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

mod builder;
mod calls;
mod counts;
mod deadlock;
mod error;
mod flight;
mod follower;
mod forget;
mod group;
mod handle;
mod join;
mod keys;
mod latch;
mod leader;
mod many;
mod map;
mod observer;
mod options;
mod outcome;
mod queue;
mod request;
mod stats;
mod sync;
mod threads;
mod ticket;
mod wait;

pub use builder::Builder;
pub use calls::{SharedCalls, SharedCallsExt, Unshared};
pub use error::{CallError, Deadlock, Panicked, StdError};
pub use flight::Flight;
pub use follower::Follower;
pub use group::FlightGroup;
pub use join::Joined;
pub use keys::Lookup;
pub use leader::Leader;
pub use observer::{Landed, Observer};
pub use outcome::{Ending, Outcome, Role};
pub use request::Request;
pub use stats::{InFlight, Stats, WaitsFor};
pub use ticket::{Job, Ticket};

#[doc = include_str!("../docs/recipes.md")]
pub mod recipes {}

/// The README's examples run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
