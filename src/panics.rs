//! Panics in user code that runs where nobody else's work may be lost: what a `Drop` throws is caught,
//! so that the rest is done, and goes on afterwards.

use std::{any::Any, mem, panic::catch_unwind, panic::resume_unwind, panic::AssertUnwindSafe};

/// What a panic was thrown with.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Drops a value, and gives the panic of its `Drop`. Two that unwind at once would abort.
#[cold]
pub(crate) fn discard<T>(value: T) -> Option<Payload> {
    // Nothing of the value is looked at after a panic.
    catch_unwind(AssertUnwindSafe(|| drop(value))).err()
}

/// Drops a value. A panic of its `Drop` goes no further.
pub(crate) fn drop_caught<T>(value: T) {
    discard(value).into_iter().for_each(drop_payload);
}

/// Drops the payload of a panic. If that panics, the second payload is leaked.
pub(crate) fn drop_payload(payload: Payload) {
    if let Some(another) = discard(payload) {
        mem::forget(another);
    }
}

/// Lets the first of these panics go on, if there is one.
pub(crate) fn pass_on(panics: impl IntoIterator<Item = Option<Payload>>) {
    let mut panics = panics.into_iter().flatten();
    if let Some(first) = panics.next() {
        panics.for_each(drop_payload);
        resume_unwind(first);
    }
}
