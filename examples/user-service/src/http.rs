//! The HTTP server: hyper, with a limit on everything that a client can use up.
//!
//! Connections are tasks of tokio, so that a slow or idle client costs a little memory and holds up
//! nobody. Loads run on threads, because a shared call blocks the thread that makes it.
//!
//! Not a server that gives each connection a thread, as tiny_http, oxhttp and astra do: idle
//! connections then take the threads away from the requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{copy, sink, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::{watch, Semaphore};
use tokio::task::{spawn_blocking, JoinHandle};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::routes::{self, Response, Route};
use crate::service::Service;

/// A follower blocks its thread while it waits. So several hundred callers of one flight need as
/// many threads. With fewer, the others would wait for a thread and then find the cache filled.
pub const THREADS: usize = 256;
/// How many may follow one flight, so that one slow key leaves threads to the others.
pub const MAX_FOLLOWERS: usize = THREADS - 32;
/// How many clients may be connected at a time, if the system allows so many open files.
const CONNECTIONS: u64 = 10_000;
/// Open files for everything else: databases, caches, the log.
const OTHER_FILES: u64 = 100;
/// How many connections the kernel holds until they are accepted. The default of the standard
/// library is too small for 200 clients at once: some would have to try again a second later.
const BACKLOG: u32 = 1024;
/// The longest first line and headers, together.
pub const MAX_HEAD: usize = 8 * 1024;
/// The longest body.
pub const MAX_BODY: usize = 8 * 1024;
/// How much of what a client still sends is read and ignored after the last answer, and for how
/// long. To close a socket with unread input resets the connection, and the client may lose the
/// answer.
const LINGER: (u64, Duration) = (64 * 1024, Duration::from_millis(100));

/// How long clients and requests may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A client to send the next request's headers, to send the body, and to read on.
    pub client: Duration,
    /// A request to get a thread, before it is answered 503.
    pub thread: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let client = Duration::from_secs(5);
        let thread = Duration::from_secs(5);
        Self { client, thread }
    }
}

pub struct Server {
    address: SocketAddr,
    runtime: Runtime,
    stop: watch::Sender<()>,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves until the server is dropped. With port 0 the system chooses a port.
    pub fn start(address: SocketAddr, service: Arc<Service>) -> io::Result<Self> {
        Self::with_timeouts(address, service, Timeouts::default())
    }

    pub fn with_timeouts(
        address: SocketAddr,
        service: Arc<Service>,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        // Many systems allow a process 1024 open files at first, and more if it asks.
        let files = rlimit::increase_nofile_limit(CONNECTIONS + OTHER_FILES)?;
        let connections = files.saturating_sub(OTHER_FILES).clamp(1, CONNECTIONS);

        let number = AtomicUsize::new(0);
        let name = move || format!("http-{}", number.fetch_add(1, Ordering::Relaxed));
        let runtime = Builder::new_multi_thread()
            .thread_name_fn(name)
            .max_blocking_threads(THREADS)
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            listen(address)?
        };
        let address = listener.local_addr()?;
        let handler =
            Arc::new(Handler { service, timeouts, threads: Arc::new(Semaphore::new(THREADS)) });
        let (stop, stopping) = watch::channel(());
        let serving = runtime.spawn(accept(listener, connections as u32, handler, stopping));
        Ok(Self { address, runtime, stop, serving: Some(serving) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Stops: accepts no more, closes idle connections, and answers all requests that it has begun to
/// read.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(serving) = self.serving.take() {
            // An error means that it has panicked, and has stopped.
            let _ = self.runtime.block_on(serving);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the standard library does: a restarted service gets its port back at once. (On Windows the
    // option has another meaning.)
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(
    listener: TcpListener,
    limit: u32,
    handler: Arc<Handler>,
    mut stopping: watch::Receiver<()>,
) {
    let connections = Arc::new(Semaphore::new(limit as usize));
    loop {
        let next = async {
            let connection = Arc::clone(&connections).acquire_owned().await;
            (connection, listener.accept().await)
        };
        let (connection, accepted) = select! {
            next = next => next,
            _ = stopping.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (handler, stopping) = (Arc::clone(&handler), stopping.clone());
                tokio::spawn(async move {
                    handler.serve_connection(stream, stopping).await;
                    drop(connection);
                });
            }
            // Too many open files, for example. That passes.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    drop(listener);
    // All of them together means that no connection is left.
    let _ = connections.acquire_many(limit).await;
}

struct Handler {
    service: Arc<Service>,
    timeouts: Timeouts,
    threads: Arc<Semaphore>,
}

impl Handler {
    /// Serves a client until it leaves, fails, or exceeds a limit.
    async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        mut stopping: watch::Receiver<()>,
    ) {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        let limit = self.timeouts.client;
        stream.as_mut().set_write_timeout_pinned(Some(limit));
        let service = service_fn(|request| Box::pin(self.respond(request)));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Of the first request, and of the next one on an idle connection.
            .header_read_timeout(limit)
            .max_buf_size(MAX_HEAD)
            // A client may close its side and still read the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        // A client that fails harms nobody else, so errors are ignored.
        let stop = select! {
            _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => false,
            _ = stopping.changed() => true,
        };
        if stop {
            Pin::new(&mut connection).graceful_shutdown();
            let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        }
        let mut stream = connection.into_parts().io.into_inner();
        let (most, longest) = LINGER;
        let linger = async {
            stream.shutdown().await?;
            copy(&mut stream.take(most), &mut sink()).await
        };
        let _ = timeout(longest, linger).await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let (head, body) = request.into_parts();
        let response = match self.read_body(body).await {
            Ok(body) => self.run(routes::route(&head, &body, &self.service)).await,
            Err(refusal) => refusal,
        };
        let status = response.status().as_u16();
        self.service.counters().count(|stats| *stats.requests.entry(status).or_default() += 1);
        Ok(response)
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, Response> {
        let too_long = || routes::refuse(413, "the body is too long");
        // Before the client has sent it all.
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_long());
        }
        let body = Limited::new(body, MAX_BODY).collect();
        match timeout(self.timeouts.client, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
            Ok(Err(_)) => Err(routes::refuse(400, "the body cannot be read")),
            Err(_) => Err(routes::refuse(408, "the body takes too long")),
        }
    }

    async fn run(&self, route: Route) -> Response {
        let load = match route {
            Route::Ready(response) => return response,
            Route::Load(load) => load,
        };
        let thread = Arc::clone(&self.threads).acquire_owned();
        let Ok(thread) = timeout(self.timeouts.thread, thread).await else {
            return routes::error(503, "too many requests are waiting");
        };
        let service = Arc::clone(&self.service);
        let response = spawn_blocking(move || {
            let response = load.run(&service);
            drop(thread);
            response
        });
        // A leader whose load panics unwinds to here. Its followers get `CallError::Panicked`.
        response.await.unwrap_or_else(|_| routes::panicked())
    }
}
