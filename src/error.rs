//! Why a call has no value.

use std::{any::Any, error::Error, fmt, thread::Thread};

use crate::sync::Arc;

/// Why a call has no value.
///
/// Cheap to clone whatever `E` is, because all callers of a flight share the function's error in one
/// [`Arc`]. So `E` need not be `Clone`: [`std::io::Error`] and `anyhow::Error` work.
///
/// `CallError<E>` is an [`Error`] if `E` is. [`Failed`](Self::Failed) is transparent: it displays as
/// the function's error, and its [`source`](Error::source) is that error's source. `anyhow::Error`
/// and `Box<dyn Error + Send + Sync>` are no `Error` themselves: for those use
/// [`into_std`](Self::into_std).
///
/// Through two flights, the function of one calling the other, an error is wrapped twice: the outer
/// function gets the `Arc` of the inner flight and cannot give up what others hold. Where that
/// happens let `E` be cheap to clone, an enum of `Arc`s for example, and return a clone.
///
/// More variants will be added. Match with a wildcard arm.
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
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The function returned this error. One allocation, shared by all callers of the flight.
    Failed(Arc<E>),
    /// The leader's function panicked. Followers get this. The leader itself unwinds with the
    /// original payload.
    Panicked(Panicked),
    /// The leader went away without an outcome: its [`Leader`](crate::Leader) was dropped, or its
    /// [`Job`](crate::Job) was dropped unrun.
    Abandoned,
    /// This caller's time limit passed before it had an outcome. The flight goes on.
    TimedOut,
    /// The wait would have closed a cycle of threads that wait for each other (G9). The others of
    /// the cycle go on.
    Deadlock(Deadlock),
    /// As many callers as [`max_followers`](crate::Request::max_followers) allows were waiting for
    /// the flight already (G13).
    Overloaded,
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
            Self::Overloaded => CallError::Overloaded,
        }
    }

    /// Wraps this in a type that is an [`Error`], for an `E` that is none itself: `anyhow::Error` or
    /// `Box<dyn Error + Send + Sync>`. So `?` works in a function that returns such an error:
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    /// use std::error::Error;
    ///
    /// type BoxError = Box<dyn Error + Send + Sync>;
    ///
    /// fn port(group: &FlightGroup<u16, BoxError>, text: &str) -> Result<u16, BoxError> {
    ///     let port = group.call(text, || Ok(text.parse()?)).map_err(CallError::into_std)?;
    ///     Ok(port)
    /// }
    ///
    /// let group = FlightGroup::new();
    /// assert_eq!(port(&group, "80")?, 80);
    /// assert_eq!(port(&group, "http").unwrap_err().to_string(), "invalid digit found in string");
    /// # Ok::<(), BoxError>(())
    /// ```
    pub fn into_std(self) -> StdError<E>
    where
        E: AsRef<dyn Error + Send + Sync>,
    {
        StdError(self)
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
            Self::Overloaded => Self::Overloaded,
        }
    }
}

impl<E> CallError<E> {
    /// Displays all but the function's own error, of which the caller knows how.
    fn fmt_with(
        &self,
        f: &mut fmt::Formatter<'_>,
        failed: impl FnOnce(&E, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> fmt::Result {
        match self {
            Self::Failed(error) => failed(error, f),
            Self::Panicked(panicked) => fmt::Display::fmt(panicked, f),
            Self::Abandoned => f.write_str("the shared call was abandoned by its leader"),
            Self::TimedOut => f.write_str("timed out waiting for the shared call"),
            Self::Deadlock(deadlock) => fmt::Display::fmt(deadlock, f),
            Self::Overloaded => f.write_str("too many callers are waiting for the shared call"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_with(f, E::fmt)
    }
}

impl<E: Error> Error for CallError<E> {
    /// For [`Failed`](Self::Failed) the source of the function's error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failed().and_then(E::source)
    }
}

/// A [`CallError`] as a [`std::error::Error`], from [`CallError::into_std`].
///
/// [`CallError::Failed`] is transparent, as in `CallError` itself. Error types that hold any error
/// give this one back by downcasting:
///
/// ```
/// use shared_calls::{CallError, FlightGroup, StdError};
/// use std::error::Error;
/// use std::time::Duration;
///
/// type BoxError = Box<dyn Error + Send + Sync>;
///
/// let group = FlightGroup::<u32, BoxError>::new();
/// let leader = group.join("k");
/// let late = group.request("k").timeout(Duration::ZERO).call(|| Ok(1));
/// let error: BoxError = late.map_err(CallError::into_std).unwrap_err().into();
/// let error = error.downcast_ref::<StdError<BoxError>>().unwrap();
/// assert!(matches!(error.call_error(), CallError::TimedOut));
/// # drop(leader);
/// ```
pub struct StdError<E>(CallError<E>);

impl<E> StdError<E> {
    /// What this was made from.
    ///
    /// See [`StdError`] for an example.
    #[must_use]
    pub fn call_error(&self) -> &CallError<E> {
        &self.0
    }

    /// Gives back what this was made from.
    ///
    /// ```
    /// use shared_calls::CallError;
    ///
    /// let error = CallError::<Box<dyn std::error::Error + Send + Sync>>::TimedOut.into_std();
    /// assert!(matches!(error.into_call_error(), CallError::TimedOut));
    /// ```
    #[must_use]
    pub fn into_call_error(self) -> CallError<E> {
        self.0
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> fmt::Debug for StdError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .fmt_with(f, |error, f| fmt::Debug::fmt(error.as_ref(), f))
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> fmt::Display for StdError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .fmt_with(f, |error, f| fmt::Display::fmt(error.as_ref(), f))
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> Error for StdError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.failed().and_then(|error| error.as_ref().source())
    }
}

/// Why a caller does not get a flight's outcome.
#[derive(Clone)]
pub(crate) enum Refusal {
    TimedOut,
    Deadlock(Deadlock),
    Overloaded,
}

impl<E> From<Refusal> for CallError<E> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TimedOut => Self::TimedOut,
            Refusal::Deadlock(deadlock) => Self::Deadlock(deadlock),
            Refusal::Overloaded => Self::Overloaded,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// From the payload that [`catch_unwind`](std::panic::catch_unwind) gives.
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

/// Threads that would have waited for each other for ever.
///
/// Displayed as "deadlock: thread 'main' would wait for thread 'worker', which waits for thread
/// 'main'". Only waits that this crate knows of are part of it: see
/// [what is detected](crate#deadlocks).
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

    /// The threads of the cycle: each waits for a call that the next one leads, and the last for one
    /// that the first leads. The first is the caller that was refused. One thread alone would have
    /// waited for itself, directly or through other keys.
    ///
    /// See [`Deadlock`] for an example.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadlock: ")?;
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

impl PartialEq for Deadlock {
    /// The same threads in the same order.
    fn eq(&self, other: &Self) -> bool {
        let ids = |deadlock: &Self| deadlock.threads.iter().map(Thread::id).collect::<Vec<_>>();
        ids(self) == ids(other)
    }
}

impl Eq for Deadlock {}

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
