//! Why a call has no value.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::thread::Thread;

use crate::sync::Arc;

/// Why a call has no value.
///
/// Cheap to clone whatever `E` is, because the function's error is held by one [`Arc`] that all
/// callers of the flight share. So `E` need not be `Clone`: [`std::io::Error`] and `anyhow::Error`
/// work. (`CallError<E>` is an [`Error`] if `E` is; `anyhow::Error` and `Box<dyn Error>` are none
/// themselves: take them out with [`into_failed`](Self::into_failed), which works while nobody else
/// holds the same error, or print [`failed`](Self::failed).)
///
/// Through two flights, the function of one calling the other, an error is wrapped twice: the outer
/// function gets the `Arc` of the inner flight, and cannot give up what others hold. Where that
/// happens let `E` be cheap to clone, an enum of `Arc`s say, and return a clone.
///
/// More ways to fail will be added; match with a wildcard arm.
///
/// `Display` includes the function's error, so that `{error}` in a log line is enough;
/// [`source`](Error::source) gives that error, too. A reporter that prints the whole chain shows it
/// twice: give it [`failed`](Self::failed) instead.
///
/// ```
/// use shared_calls::{CallError, FlightGroup};
/// use std::io;
///
/// let group = FlightGroup::<String, io::Error>::new();
/// let error = group
///     .call("motd", || std::fs::read_to_string("/no/such/file"))
///     .unwrap_err();
/// match error {
///     CallError::Failed(e) => assert_eq!(e.kind(), io::ErrorKind::NotFound),
///     other => panic!("unexpected: {other}"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The function returned this error. One allocation, shared by all callers of the flight.
    Failed(Arc<E>),
    /// The leader's function panicked. Followers get this; the leader itself unwinds with the
    /// original payload.
    Panicked(Panicked),
    /// The leader went away without an outcome: its [`Leader`](crate::Leader) was dropped, or its
    /// [`Job`](crate::Job) was dropped unrun.
    Abandoned,
    /// This caller's patience as a follower ended before its flight did. The flight goes on.
    TimedOut,
    /// To wait would have closed a circle of threads that wait for each other, for ever (G9). The
    /// others of the circle go on.
    Deadlock(Deadlock),
}

impl<E> CallError<E> {
    /// The function's own error, if that is why the call failed.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<(), &str>::new();
    /// let error = group.call("k", || Err("no route")).unwrap_err();
    /// assert_eq!(error.failed(), Some(&"no route"));
    /// ```
    #[must_use]
    pub fn failed(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Takes the function's own error out.
    ///
    /// A call without followers can always do so, a [ticket](crate::Ticket) once the thread that
    /// ran its job has let go of it. Where the flight was shared, the last holder of the error can.
    ///
    /// # Errors
    ///
    /// Gives `self` back when this is no [`Failed`](Self::Failed), or when another caller still
    /// holds the same error.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<(), String>::new();
    /// let error = group.call("k", || Err("no route".to_owned())).unwrap_err();
    /// assert_eq!(error.into_failed().unwrap(), "no route");
    /// ```
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Arc::try_unwrap(error).map_err(Self::Failed),
            other => Err(other),
        }
    }

    /// Puts another error in the place of the function's own, and leaves every other way to fail as
    /// it is: for whoever calls on behalf of somebody with errors of another type.
    ///
    /// What `f` gets is shared by all callers of the flight; what it makes of that is this caller's.
    ///
    /// ```
    /// use shared_calls::CallError;
    ///
    /// let group = shared_calls::FlightGroup::<(), String>::new();
    /// let error = group.call("k", || Err("no route".to_owned())).unwrap_err();
    /// let error: CallError<usize> = error.map_failed(|error| error.len());
    /// assert_eq!(error.failed(), Some(&8));
    /// ```
    pub fn map_failed<F>(self, f: impl FnOnce(Arc<E>) -> F) -> CallError<F> {
        match self {
            Self::Failed(error) => CallError::Failed(Arc::new(f(error))),
            Self::Panicked(panicked) => CallError::Panicked(panicked),
            Self::Abandoned => CallError::Abandoned,
            Self::TimedOut => CallError::TimedOut,
            Self::Deadlock(deadlock) => CallError::Deadlock(deadlock),
        }
    }
}

// By hand, because a derive would ask for `E: Clone`.
impl<E> Clone for CallError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(panicked) => Self::Panicked(panicked.clone()),
            Self::Abandoned => Self::Abandoned,
            Self::TimedOut => Self::TimedOut,
            Self::Deadlock(deadlock) => Self::Deadlock(deadlock.clone()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => {
                f.write_str("the shared call failed: ")?;
                error.fmt(f) // With the caller's flags: `{:#}` says more of an `anyhow::Error`.
            }
            Self::Panicked(panicked) => panicked.fmt(f),
            Self::Abandoned => {
                f.write_str("the leader of the shared call went away without an outcome")
            }
            Self::TimedOut => f.write_str("timed out waiting for the leader of the shared call"),
            Self::Deadlock(deadlock) => deadlock.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    /// The function's own error, for [`Failed`](Self::Failed).
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failed().map(|error| error as _)
    }
}

/// Why a caller has no flight's outcome.
#[derive(Clone)]
pub(crate) enum Missed {
    TimedOut,
    Deadlock(Deadlock),
}

impl<E> From<Missed> for CallError<E> {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::TimedOut => Self::TimedOut,
            Missed::Deadlock(deadlock) => Self::Deadlock(deadlock),
        }
    }
}

/// The leader's function panicked.
///
/// What a follower learns of a panic in another thread: [`message`](Self::message), where the
/// panic carried text. The payload itself goes on unwinding through the leader.
///
/// ```
/// use shared_calls::{CallError, FlightGroup, Joined};
/// use std::panic::{catch_unwind, AssertUnwindSafe};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// std::thread::scope(|s| {
///     let (begun_tx, begun) = std::sync::mpsc::channel();
///     let (go, go_rx) = std::sync::mpsc::channel::<()>();
///     let leader = s.spawn(|| {
///         let led = catch_unwind(AssertUnwindSafe(|| {
///             group.call("k", move || {
///                 begun_tx.send(()).unwrap();
///                 go_rx.recv().unwrap();
///                 panic!("disk on fire")
///             })
///         }));
///         assert_eq!(*led.unwrap_err().downcast::<&str>().unwrap(), "disk on fire");
///     });
///     begun.recv().unwrap();
///     let Joined::Follower(follower) = group.join("k") else { unreachable!() };
///     go.send(()).unwrap();
///     match follower.wait().result {
///         Err(CallError::Panicked(p)) => assert_eq!(p.message(), Some("disk on fire")),
///         other => panic!("unexpected: {other:?}"),
///     }
///     leader.join().unwrap();
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Panicked {
    message: Option<Arc<str>>,
}

impl Panicked {
    /// For another implementation of [`SharedCalls`](crate::SharedCalls) that knows of a panic, in
    /// another process say.
    ///
    /// ```
    /// use shared_calls::{CallError, Panicked};
    ///
    /// let error = CallError::<std::io::Error>::Panicked(Panicked::new("disk on fire"));
    /// assert_eq!(error.to_string(), "the leader of the shared call panicked: disk on fire");
    /// ```
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into().into()),
        }
    }

    /// What there is to say of the payload that [`catch_unwind`](std::panic::catch_unwind) gives.
    ///
    /// ```
    /// use shared_calls::Panicked;
    ///
    /// let payload = std::panic::catch_unwind(|| panic!("disk on fire")).unwrap_err();
    /// assert_eq!(Panicked::of(&*payload).message(), Some("disk on fire"));
    /// ```
    #[must_use]
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            message: text.map(Arc::from),
        }
    }

    /// The panic's message, if its payload was text (as that of `panic!` is).
    ///
    /// See [`Panicked`] for an example.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the leader of the shared call panicked")?;
        match self.message() {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl Error for Panicked {}

/// Who would have waited for whom, for ever.
///
/// `Display` tells it: "to wait for the shared call would never end: thread 'main' would wait for
/// thread 'worker', which waits for thread 'main'". Only waits that this crate knows of are part of
/// it; see [what is detected](crate#deadlocks).
///
/// ```
/// use shared_calls::{CallError, Deadlock, FlightGroup};
///
/// let group = FlightGroup::<u32, Deadlock>::new();
/// let outer = group.call("k", || match group.call("k", || Ok(1)) {
///     Err(CallError::Deadlock(refused)) => Err(refused), // it asked for its own key
///     other => panic!("unexpected: {other:?}"),
/// });
/// let refused = outer.unwrap_err().into_failed().unwrap();
/// assert_eq!(refused.threads().len(), 1);
/// assert!(refused.to_string().ends_with("would wait for itself"));
/// ```
#[derive(Clone, Debug)]
pub struct Deadlock {
    threads: Arc<[Thread]>,
}

impl Deadlock {
    /// Each of them waits for the next one, the last for the first; the first is the caller that
    /// was refused.
    pub(crate) fn new(threads: Vec<Thread>) -> Self {
        Self {
            threads: threads.into(),
        }
    }

    /// The threads of the circle: each waits for a call that the next one leads, and the last for
    /// one that the first leads. The first is the caller that was refused. One thread alone would
    /// have waited for itself, directly or through other keys.
    ///
    /// See [`Deadlock`] for an example.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to wait for the shared call would never end: ")?;
        let [first, others @ ..] = &*self.threads else {
            return Ok(());
        };
        write!(f, "{} would wait for ", Named(first))?;
        for other in others {
            write!(f, "{}, which waits for ", Named(other))?;
        }
        match others {
            [] => f.write_str("itself"),
            _ => Named(first).fmt(f),
        }
    }
}

impl Error for Deadlock {}

/// A thread, by its name if it has one.
pub(crate) struct Named<'a>(pub(crate) &'a Thread);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => write!(f, "thread '{name}'"),
            None => write!(f, "thread {:?}", self.0.id()),
        }
    }
}
