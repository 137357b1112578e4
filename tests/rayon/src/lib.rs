//! Shared calls on a rayon pool.
//!
//! A thread of a rayon pool that waits for rayon takes up other work meanwhile. If it waits inside
//! a shared function, that work may ask for the very key whose function lies beneath it on the
//! stack: nobody's mistake, and without an end, if it were not refused. The tests show
//!
//! - that it is refused ([`CallError::Deadlock`]), and that [`alone_on_deadlock`] gives every
//!   caller a value;
//! - what is *not* seen: a function waits, by rayon, for work that another thread of the pool has
//!   taken up, and that waits for the function's flight. That other thread leads nothing, so its
//!   wait looks like any other. A [`timeout`] ends it.
//!
//! The second is what a plain `par_iter` around the calls comes to, if their functions wait for
//! rayon: it is split into halves that wait for each other. A thread that waits inside a function
//! takes up one half, another thread takes up a part of that, which asks for the very function's
//! key, and each waits for the other. [`alone_on_deadlock`] does not help there: it is for the one
//! who would be refused, and nobody is.
//!
//! So do one of these:
//!
//! - Let the functions wait for nothing of rayon's. Then no thread takes up other work inside them.
//! - Or call groups from tasks that were spawned one by one, not from a `par_iter` or a `join`; and
//!   inside a shared function, hand to rayon only work that itself waits for nothing, neither for
//!   rayon nor for a group. Then whatever a thread waits for by rayon ends by itself; and where it
//!   waits for a flight, it is seen to hold up all that it leads beneath.
//! - Or give every call a time limit, and run the function by itself when that has passed: see
//!   `ask_with_a_limit` in the tests. A call with a limit is never refused, so
//!   [`alone_on_deadlock`] does nothing for it, and it waits for all of its time also where the
//!   first kind of circle would have been seen.
//!
//! [`CallError::Deadlock`]: shared_calls::CallError::Deadlock
//! [`alone_on_deadlock`]: shared_calls::Request::alone_on_deadlock
//! [`timeout`]: shared_calls::Request::timeout
