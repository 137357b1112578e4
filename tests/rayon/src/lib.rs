//! Shared calls on a rayon pool.
//!
//! A thread of a rayon pool that waits for rayon takes up other work meanwhile. If it waits inside
//! a shared function, that work may ask for the very key whose function lies beneath it on the
//! stack. That wait would never end. The tests show
//!
//! - that it is refused ([`CallError::Deadlock`]), and that [`alone_on_deadlock`] gives every
//!   caller a value;
//! - what is *not* seen: a function waits, by rayon, for work that another thread of the pool has
//!   taken up, and that work waits for the function's flight. The other thread leads nothing, so
//!   its wait looks like any other. A [`timeout`] ends it.
//!
//! The second case is what a plain `par_iter` around the calls comes to, if their functions wait for
//! rayon. It is split into halves that wait for each other: a thread that waits inside a function
//! takes up one half, another thread takes up a part of that, which asks for the function's own key,
//! and each waits for the other. [`alone_on_deadlock`] does not help there, because no caller is
//! refused.
//!
//! So do one of these:
//!
//! - Let the functions wait for nothing of rayon's. Then no thread takes up other work inside them.
//! - Or call groups from tasks that were spawned one by one, not from a `par_iter` or a `join`; and
//!   inside a shared function, hand to rayon only work that itself waits for nothing, neither for
//!   rayon nor for a group. Then every wait for rayon ends by itself, and a wait for a flight is
//!   seen to hold up all that the thread leads beneath.
//! - Or give every call a time limit and [`alone_on_deadlock`], and run the function by itself when
//!   the limit has passed: see `ask_with_a_limit` in the tests. A circle of the first kind is
//!   refused at once, and one of the second kind ends with the limit.
//!
//! [`CallError::Deadlock`]: shared_calls::CallError::Deadlock
//! [`alone_on_deadlock`]: shared_calls::Request::alone_on_deadlock
//! [`timeout`]: shared_calls::Request::timeout
