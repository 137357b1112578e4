//! A panic of a user's `Drop` is caught, so that the rest is done. It is resumed afterwards, or goes no
//! further where it is no concern of the call.

use std::{
    any::Any, mem, ops::Deref, panic::catch_unwind, panic::resume_unwind, panic::AssertUnwindSafe,
    thread,
};

/// What a panic was thrown with.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Drops a value, and returns the panic of its `Drop`. Two that unwind at once would abort.
#[cold]
pub(crate) fn discard<T>(value: T) -> Option<Payload> {
    panic_of(|| drop(value))
}

/// Runs a function, and returns its panic.
pub(crate) fn panic_of(f: impl FnOnce()) -> Option<Payload> {
    // Nothing that the function has left half done is looked at after a panic.
    catch_unwind(AssertUnwindSafe(f)).err()
}

/// Drops a value. A panic of its `Drop` goes no further.
pub(crate) fn drop_caught<T>(value: T) {
    discard(value).into_iter().for_each(drop_payload);
}

/// Drops the payload of a panic. If that panics, the second payload is leaked.
pub(crate) fn drop_payload(payload: Payload) {
    mem::forget(discard(payload));
}

/// Calls a function with `rest`, drops `rest`, and returns the result. Resumes the first panic of the
/// two, if there is one, and drops the result.
///
/// If `rest` were a local instead, a panic of its `Drop` would leak the result on return, or abort
/// where the function's panic unwinds.
pub(crate) fn then_drop<R, T>(rest: R, f: impl FnOnce(&R) -> T) -> T {
    let mut result = None;
    let panic = panic_of(|| result = Some(f(&rest)));
    resume_first([panic, discard(rest)], || drop_caught(result.take()));
    result.expect("nothing has panicked")
}

/// A value that may be dropped beside others: a panic of its `Drop` is caught while another panic
/// unwinds.
pub(crate) struct SafeDrop<T>(Option<T>);

impl<T> SafeDrop<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect("only `drop` takes it")
    }
}

impl<T> Deref for SafeDrop<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl<T> Drop for SafeDrop<T> {
    fn drop(&mut self) {
        resume_in_drop([self.0.take().and_then(discard)]);
    }
}

/// Resumes the first of these panics, if there is one. Before that, drops the others, and calls `drop_rest`
/// for what would be dropped while the first unwinds, where a `Drop` that panics would abort.
pub(crate) fn resume_first(
    panics: impl IntoIterator<Item = Option<Payload>>,
    drop_rest: impl FnOnce(),
) {
    let mut panics = panics.into_iter().flatten();
    if let Some(first) = panics.next() {
        panics.for_each(drop_payload);
        drop_rest();
        resume_unwind(first);
    }
}

/// The same at the end of a `Drop`, which must not panic while another panic unwinds.
pub(crate) fn resume_in_drop(panics: impl IntoIterator<Item = Option<Payload>>) {
    match thread::panicking() {
        true => panics.into_iter().flatten().for_each(drop_payload),
        false => resume_first(panics, || {}),
    }
}
