//! Why a call has no value.

use std::{any::Any, error::Error, fmt, thread::Thread};

use crate::sync::Arc;

/// Why a call has no value.
///
/// It is cheap to clone, because all callers of a flight share the function's error in one [`Arc`].
/// So `E` need not be `Clone`: [`std::io::Error`] and `anyhow::Error` work.
///
/// `CallError<E>` is an [`Error`] if `E` is. [`Failed`](Self::Failed) is transparent: it displays as
/// the function's error, and its [`source`](Error::source) is that error's source. `anyhow::Error`
/// and `Box<dyn Error + Send + Sync>` do not implement `Error`; for those use
/// [`into_std`](Self::into_std).
///
/// A shared function that calls another flight and returns that flight's error gets it in an `Arc`,
/// which other callers may hold. For such functions choose an `E` that is cheap to clone, such as an
/// enum of `Arc`s, and return a clone.
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
    /// This works if no other caller holds the error: for a call without followers, for the last
    /// caller of a shared flight that holds it, and for a [ticket](crate::Ticket) once the thread
    /// that ran the job has dropped it.
    ///
    /// # Errors
    ///
    /// Returns `self` if this is not [`Failed`](Self::Failed), or if another caller still holds the
    /// error.
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

    /// Converts the function's own error, and leaves every other variant as it is. For a caller whose
    /// own errors are of another type.
    ///
    /// `f` gets the error that all callers of the flight share.
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

    /// Wraps this in a type that implements [`Error`], for an `E` that does not: `anyhow::Error` or
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

    /// Displays every variant but the function's own error, which `failed` displays.
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

// By hand, because a derive would ask for `E: Clone`.
impl<E> Clone for StdError<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> fmt::Debug for StdError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_with(f, |error, f| fmt::Debug::fmt(error.as_ref(), f))
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> fmt::Display for StdError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_with(f, |error, f| fmt::Display::fmt(error.as_ref(), f))
    }
}

impl<E: AsRef<dyn Error + Send + Sync>> Error for StdError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.failed().and_then(|error| error.as_ref().source())
    }
}

/// The leader's function panicked.
///
/// A follower gets the panic's [`message`](Self::message), if it has one. The payload itself goes on
/// unwinding in the leader's thread.
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
    /// For other implementations of [`SharedCalls`](crate::SharedCalls), which may learn of a panic in
    /// another way, such as from another process.
    ///
    /// ```
    /// use shared_calls::{CallError, Panicked};
    ///
    /// let error = CallError::<std::io::Error>::Panicked(Panicked::new("disk on fire"));
    /// assert_eq!(error.to_string(), "the leader of the shared call panicked: disk on fire");
    /// ```
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: Some(message.into().into()) }
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
        let string = || payload.downcast_ref::<String>().map(String::as_str);
        let text = payload.downcast_ref::<&str>().copied().or_else(string);
        Self { message: text.map(Arc::from) }
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

/// Threads that would have waited for each other forever.
///
/// Displayed as "deadlock: thread 'main' would wait for thread 'worker', which waits for thread
/// 'main'". See [what is detected](crate#deadlocks).
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
    pub(crate) fn new(threads: impl IntoIterator<Item = Thread>) -> Self {
        Self { threads: threads.into_iter().collect() }
    }

    /// The threads of the cycle. The first is the caller that was refused. Each waits for a call that
    /// the next one leads, and the last waits for one that the first leads. A single thread would
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
        let names: Vec<_> = self.threads.iter().map(name).collect();
        match &*names {
            [] => f.write_str("deadlock: "),
            [caller] => write!(f, "deadlock: {caller} would wait for itself"),
            [caller, others @ ..] => {
                let others = others.join(", which waits for ");
                write!(f, "deadlock: {caller} would wait for {others}, which waits for {caller}")
            }
        }
    }
}

impl Error for Deadlock {}

impl PartialEq for Deadlock {
    /// The same threads in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.threads.iter().map(Thread::id).eq(other.threads.iter().map(Thread::id))
    }
}

impl Eq for Deadlock {}

/// What a thread is displayed as: its name, or its id if it has none.
pub(crate) fn name(thread: &Thread) -> String {
    match thread.name() {
        Some(name) => format!("thread '{name}'"),
        None => format!("thread {:?}", thread.id()),
    }
}
