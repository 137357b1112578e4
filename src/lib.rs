//! When many threads ask for the same thing at the same time, one of them does the work and all of
//! them get the result.
//!
//! A hot cache entry expires, a thousand requests arrive in the same millisecond, and all thousand
//! go to the database. With a [`FlightGroup`] one goes, and the others wait for its answer:
//!
//! ```
//! use shared_calls::{CallError, FlightGroup};
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use std::{io, thread};
//!
//! fn main() -> Result<(), CallError<io::Error>> {
//!     let users = FlightGroup::<String, io::Error>::new();
//!     let queries = AtomicUsize::new(0);
//!     let get = || {
//!         users.call("user:42", || {
//!             queries.fetch_add(1, Ordering::Relaxed);
//!             while users.stats().waiting < 7 {
//!                 thread::yield_now(); // a slow query: seven others ask meanwhile
//!             }
//!             Ok("Ada".to_owned())
//!         })
//!     };
//!     let names = thread::scope(|scope| {
//!         let calls: Vec<_> = (0..8).map(|_| scope.spawn(get)).collect();
//!         let results = calls.into_iter().map(|call| call.join().unwrap());
//!         results.collect::<Result<Vec<_>, _>>()
//!     })?;
//!     assert_eq!(names, ["Ada"; 8]);
//!     assert_eq!(queries.into_inner(), 1);
//!     Ok(())
//! }
//! ```
//!
//! This is go-zero's `SharedCalls` (`SingleFlight`) and `golang.org/x/sync/singleflight` for
//! threads: synchronous, without dependencies, without `unsafe`.
//!
//! # Where to find what
//!
//! | To | use |
//! | --- | --- |
//! | share a call | [`FlightGroup::call`], or [`call_ex`](FlightGroup::call_ex) to learn the [`Role`] |
//! | load many keys at once | [`FlightGroup::call_many`] |
//! | set a time limit, read your writes, bound overload, … | [`FlightGroup::request`], or for every call a [`Builder`] |
//! | run the function on a pool | [`FlightGroup::start`]: a [`Job`] and a [`Ticket`] |
//! | do the work in two steps | [`FlightGroup::join`]: a [`Leader`] or a [`Follower`] |
//! | stop work that nobody waits for | [`Request::call_with`], [`Request::start_with`]: a [`Flight`] |
//! | give a flight up | [`FlightGroup::forget`] |
//! | see what happens | [`stats`](FlightGroup::stats), [`in_flight`](FlightGroup::in_flight), an [`Observer`] |
//! | look a compound key up | [`Lookup`] |
//! | handle errors | [`CallError`] |
//! | choose the implementation at run time | [`SharedCalls`], [`Unshared`] |
//!
//! And to read: [recipes], [questions](faq), [the algorithm](algorithm), [figures],
//! [where your code runs](user_code), [what shows that all of this is true](proof).
//!
//! # When not to use it
//!
//! - **As a cache.** Once a flight has landed, nothing of it is kept; the next call runs its
//!   function. Look into your cache inside the function.
//! - **In async code.** A follower blocks its thread.
//! - **For functions with effects that each caller relies on**: writes, counters.
//! - **With a key that does not name every input.** Everyone with the same key gets the same value:
//!   put the tenant, the permissions and the language into the key.
//! - **On a pool whose threads wait for jobs in that pool's queue.** If all of them wait, none is
//!   left to run a job. No library can see that. Wait with a time limit, or on other threads.
//!
//! # Words
//!
//! A *flight* is one execution of a function for a key, and everyone who shares its outcome. Its
//! *leader* is the caller whose function runs; a *follower* waits for the leader's outcome. To
//! *unlink* a flight is to take it out of the group's map. It *lands* when its outcome is published
//! and its followers wake.
//!
//! # Guarantees
//!
//! Docs, tests and models cite them by number.
//!
//! - **G1 One at a time.** At most one execution for a key is in progress, unless the flight was
//!   given up on purpose ([`forget`](FlightGroup::forget), [`max_age`](Request::max_age),
//!   [`is_wanted`](Flight::is_wanted) that answered `false`) or a caller runs alone on purpose
//!   ([`alone_on_deadlock`](Request::alone_on_deadlock)).
//! - **G2 Unlink before landing.** The map stops naming a flight before anyone learns its outcome.
//!   So a call that starts after another call has got a flight's outcome never shares that flight.
//! - **G3 One outcome each.** Every call that returns has exactly one outcome. Every follower that
//!   stays with its flight gets the leader's, and exactly one call of a flight is [`Role::Led`].
//! - **G4 No caller is left waiting.** However a leader ends, by a value, an error, a panic, a
//!   dropped [`Leader`] or a [`Job`] that never ran, every follower wakes with a typed outcome and
//!   the key is free. A panic never poisons the group or another key.
//! - **G5 Happens-before.** What the function wrote is visible to every caller that gets its outcome,
//!   and to every execution for that key that begins after it ended.
//! - **G6 Only its own entry.** A flight removes its own entry from the map, never a successor's.
//! - **G7 The next flight.** The execution shared by a [`next_flight`](Request::next_flight) call
//!   began after the call began. At most one flight per key runs and at most one is queued behind it.
//! - **G8 Time limits are the caller's own.** A caller that times out leaves. The flight goes on,
//!   nobody else is disturbed, and no second execution starts. An outcome that is ready beats a
//!   deadline that has passed.
//! - **G9 Deadlock is refused.** If a function asks for its own key, or threads wait for each other
//!   in a cycle over any number of keys and groups, the call that would close the cycle gets
//!   [`CallError::Deadlock`]. The others go on. See [below](#deadlocks) for what is detected.
//! - **G10 User code runs outside the locks.** The function, `Clone` and `Drop` of values and errors,
//!   `Hash` and `Drop` of keys, spawners, predicates and observers never run under a lock that
//!   another key's caller needs. What makes, compares and copies keys ([`Lookup`], `Eq`, `Borrow`,
//!   `ToOwned`, `Clone` for [`in_flight`](FlightGroup::in_flight), and the `Drop` of what
//!   [`overwrite`](Lookup::overwrite) replaces) runs under the map's lock and must not call the
//!   group. A panic in one of them leaves the group as it was.
//! - **G11 Nothing is kept.** A quiet group holds no values, errors or functions, and at most 4
//!   retired keys for each of its maps, of at most 256 bytes each as far as `size_of_val` of what was
//!   looked up shows. After a spike of keys its memory goes back to near what it was.
//! - **G12 A lone call is cheap.** With no follower: no allocation once warm, no clone of the value,
//!   no wake-up, no clock reading, and two acquisitions of the map's lock. (An error goes into an
//!   `Arc`. A key that cannot be written over a retired one without allocating, allocates. An
//!   observer costs a key and clock readings.)
//! - **G13 Overload is bounded.** With [`max_followers(n)`](Request::max_followers), the call that
//!   would be the (n+1)-th to wait for a flight, running or queued, gets [`CallError::Overloaded`]
//!   at once, under any interleaving.
//!
//! # Deadlocks
//!
//! A function that asks for its own key would wait for itself, and two that ask for each other's
//! would wait for each other, forever. The last of them to ask is [refused](CallError::Deadlock)
//! instead. Its function can return that error, do without the value, or ask with
//! [`alone_on_deadlock`](Request::alone_on_deadlock) and compute the value itself.
//!
//! *What is detected*: every cycle of threads in which each runs the function of a flight (by
//! [`call`](FlightGroup::call), a [`Request`], [`call_many`](FlightGroup::call_many),
//! [`Leader::run`] or as a [`Job`]) and waits for another flight; over all groups of the process,
//! whatever their types. A caller with a time limit or an age limit is refused as well, if only its
//! own limit could end its wait.
//!
//! *What is never refused*: a wait that can end by what the threads of the cycle do. Where another
//! caller of the cycle has a time limit, its limit may end the cycle, so nobody is refused. (A caller
//! in the queue is taken to wait for the flight in front. Another thread could free it by giving that
//! flight up; the search does not count on that.)
//!
//! *What is not detected*, and hangs:
//!
//! - a [`Leader`] held by the waiting thread, or by another thread of the cycle: any thread may
//!   complete it, so none is known to lead. The same is true of a job that has not begun;
//! - a cycle that goes through something else: a lock, a channel, a thread that is joined, the
//!   queue of a thread pool;
//! - a caller that waits with a time limit again and again;
//! - what an [`Observer`] waits for, what the spawner of [`start`](FlightGroup::start) waits for before
//!   its job has run, and what a `Drop` waits for that runs while a batch panics
//!   before its function runs: see [where your code runs](user_code);
//! - some cycles through calls that are nested in the destructor of a thread-local, while its thread
//!   ends;
//! - other processes.
//!
//! # Panics
//!
//! A panic in the function unwinds out of the leader's own call, with its original payload.
//! Followers get [`CallError::Panicked`] with the message. A [`Job`]'s panic goes to its tickets. A
//! program built with `panic = "abort"` aborts. For all other code of yours that a group runs, see
//! the [table](user_code).
//!
//! # What it costs
//!
//! A call that leads takes the map's lock twice: to look its key up and insert its entry, and to
//! remove it. It notes in a thread-local which flight it runs. That is all, if nobody follows. The
//! first follower of a flight allocates a latch; the flight then allocates its outcome, and each of
//! its callers clones the value on its own thread. A leader wakes all of its followers before its
//! call returns: with hundreds of them that takes some milliseconds.
//!
//! A follower takes the map's lock once, and the latch's lock a few times before it sleeps and once
//! after. If it is itself inside a shared function, it also takes the lock of the deadlock graph, of
//! which there is one for all groups. There it follows one wait for each thread of the chain that it
//! would wait for. (The functions of jobs and of joined leaders, giving up a flight with a queue
//! behind it, and [`in_flight`](FlightGroup::in_flight) take that lock, too.) A thread's first call
//! takes a lock and allocates, to register the thread's name.
//!
//! One lock guards the map. A call holds it for well under a microsecond, unless the table grows or
//! shrinks. [`in_flight`](FlightGroup::in_flight) holds it while it clones the keys. If very many threads call for distinct keys, [`shards`](Builder::shards) splits it.
//!
//! # For readers
//!
//! The sources are meant to be read. The [algorithm] page builds up to them. In order:
//! `group` (the algorithm), `lookup`, `keys` and `map` (who is in flight), `latch` (why no wake-up is
//! lost), `leader`, `follower` and `join` (the two sides), `wait` and `queue` (callers that do not lead on
//! arrival), `forget` (giving up), `threads` and `deadlock` (who waits for whom), `panics` (those of
//! your code); then what is around it: `options` and `request`, `ticket`, `many`, `flight`, `counts`
//! and `stats`, `observer`, `builder`, `handle`, `outcome` and `error`, `calls`. `sync` is the one file that
//! names std's primitives. The models in `loom-tests/` mount these very files and run them through
//! every interleaving, and `cargo models` shows that the models can fail.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

// rustdoc shows the methods of `FlightGroup` in the order of these modules. The blank lines keep
// rustfmt from sorting them.
mod group;

mod many;

mod request;

mod ticket;

mod join;

mod forget;

mod stats;

mod builder;

mod calls;
mod counts;
mod deadlock;
mod error;
mod flight;
mod follower;
mod handle;
mod keys;
mod latch;
mod leader;
mod lookup;
mod map;
mod observer;
mod options;
mod outcome;
mod panics;
mod queue;
mod sync;
mod threads;
mod wait;

// Aliases stand here, because rustdoc drops those of an item that is re-exported from a private
// module.
#[doc(alias("defaults", "options"))]
pub use builder::Builder;
#[doc(alias("SingleFlight", "mock"))]
pub use calls::SharedCalls;
pub use calls::{SharedCallsExt, Unshared};
pub use error::{CallError, Deadlock, Panicked, StdError};
#[doc(alias("cancel", "cancellation", "interrupt"))]
pub use flight::Flight;
pub use follower::Follower;
#[doc(alias("singleflight", "SingleFlight", "Group", "coalesce", "coalescing", "dedup"))]
#[doc(alias("deduplicate", "stampede", "dogpile", "thundering herd"))]
pub use group::FlightGroup;
pub use join::Joined;
pub use leader::Leader;
#[doc(alias = "Equivalent")]
pub use lookup::Lookup;
pub use observer::Landed;
#[doc(alias("metrics", "tracing"))]
pub use observer::Observer;
pub use outcome::{Ending, Outcome, Role};
pub use request::Request;
pub use stats::{InFlight, Stats, WaitsFor};
#[doc(alias = "thread pool")]
pub use ticket::Job;
pub use ticket::Ticket;

#[doc = include_str!("../docs/algorithm.md")]
pub mod algorithm {}

#[doc = include_str!("../docs/faq.md")]
pub mod faq {}

#[doc = include_str!("../docs/figures.md")]
pub mod figures {}

#[doc = include_str!("../docs/proof.md")]
pub mod proof {}

#[doc = include_str!("../docs/recipes.md")]
#[doc(alias("cookbook", "shutdown"))]
pub mod recipes {}

#[doc = include_str!("../docs/user-code.md")]
pub mod user_code {}

/// The README's examples run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
