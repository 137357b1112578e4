//! A blocking HTTP server: a fixed number of threads, each of which accepts a connection, answers
//! one request and closes it.
//!
//! Not tiny_http: of 200 clients that connect at once and keep their connections, its version 0.12
//! leaves some unread for as long as the others stay. What is needed of HTTP here is little, and
//! httparse, hyper's parser, does the delicate part.
//!
//! Nothing here grows under load. While all threads are busy, new connections wait in the kernel's
//! queue, which is bounded too; when that is full, connecting takes longer or times out at the
//! client's end. No request that was accepted is dropped.

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;
use shared_calls::{CallError, Role};
use socket2::{Domain, Socket, Type};

use crate::cache::Answer;
use crate::db::User;
use crate::service::{LoadError, Service};
use crate::{metrics, watch};

/// A caller that follows another blocks its thread while it waits. So a pool that is to let
/// several hundred callers of one flight wait at the same time needs as many threads; with fewer,
/// the rest would wait in the kernel's queue, and find the cache filled when their turn comes.
pub const THREADS: usize = 256;
/// How many connections the kernel may hold for us. The standard library's own choice would be too
/// few for 200 clients at once: the others would have to try again a second later.
const BACKLOG: i32 = 1024;
/// How long a client may take to send its request, and to take in the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest request that is read: its first line, headers and body.
const MAX_REQUEST: usize = 8 * 1024;

/// Tells the client which part its request played in its shared call.
pub const ROLE_HEADER: &str = "X-Shared-Call";
/// And how long that took.
pub const MICROS_HEADER: &str = "X-Shared-Call-Micros";

pub struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves until the server is dropped. With port 0 the system chooses a port.
    pub fn start(address: SocketAddr, service: Arc<Service>) -> io::Result<Self> {
        let listener = Arc::new(listen(address)?);
        let mut server = Self {
            address: listener.local_addr()?,
            stopping: Arc::default(),
            threads: Vec::new(),
        };
        for i in 0..THREADS {
            let (listener, service) = (Arc::clone(&listener), Arc::clone(&service));
            let stopping = Arc::clone(&server.stopping);
            let thread = thread::Builder::new()
                .name(format!("http-{i}"))
                .spawn(move || serve(&listener, &stopping, &service))?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Stops: requests that were accepted are answered, then the threads end.
impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // A thread blocked in `accept` sees that only after a connection, so it gets one.
        let wake = || drop(TcpStream::connect_timeout(&to_self(self.address), WAKE));
        self.threads.iter().for_each(|_| wake());
        // All have one now. Again for those whose turn was taken by a client.
        while !self.threads.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
            wake();
        }
    }
}

const WAKE: Duration = Duration::from_millis(100);

/// Where to reach a server that listens on all addresses.
fn to_self(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // What the standard library does, too: a restarted service gets its port back at once. (On
    // Windows the option means something else.)
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What each thread does.
fn serve(listener: &TcpListener, stopping: &AtomicBool, service: &Service) {
    while !stopping.load(Ordering::Acquire) {
        match listener.accept() {
            // A client that fails harms nobody but itself.
            Ok((stream, _)) => drop(exchange(&stream, service)),
            // Too many open files, for instance. That passes.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// One request, one response.
fn exchange(mut stream: &TcpStream, service: &Service) -> io::Result<()> {
    let response = match read_request(stream) {
        Ok(request) => route(&request, service),
        Err(error) if error.kind() == ErrorKind::InvalidData => Response::error(400, error),
        Err(error) => return Err(error),
    };
    let status = response.status;
    service
        .counters()
        .count(|stats| *stats.requests.entry(status).or_default() += 1);
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    response.write(stream)?;

    // Closing a socket with unread input resets the connection, and the client may lose the
    // answer. So say that this was all, and give the client a moment to close first.
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut rest = [0; 1024];
    for _ in 0..16 {
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
}

fn read_request(mut stream: &TcpStream) -> io::Result<Request> {
    let deadline = Instant::now() + CLIENT_TIMEOUT;
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    while bytes.len() < MAX_REQUEST {
        let left = deadline.saturating_duration_since(Instant::now());
        // Never zero, which the socket would refuse.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
        if let Some(request) = parse_request(&bytes)? {
            return Ok(request);
        }
    }
    Err(too_long())
}

/// `None` until all of it is there.
fn parse_request(bytes: &[u8]) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(invalid)?;
    let (httparse::Status::Complete(head), Some(method), Some(path)) =
        (parsed, request.method, request.path)
    else {
        return Ok(None);
    };
    let mut length = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("Content-Length") {
            let text = std::str::from_utf8(header.value).map_err(invalid)?;
            length = text.parse().map_err(invalid)?;
        }
    }
    let end = head.saturating_add(length);
    if end > MAX_REQUEST {
        return Err(too_long()); // Said before the client has sent it all.
    }
    Ok(bytes.get(head..end).map(|body| Request {
        method: method.to_owned(),
        path: path.to_owned(),
        body: body.to_owned(),
    }))
}

fn too_long() -> io::Error {
    invalid("the request is too long")
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn route(request: &Request, service: &Service) -> Response {
    let path = request.path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET" | "PUT", ["users", id]) => match (parse_id(id), request.method.as_str()) {
            (None, _) => Response::error(400, "the id must be a positive number"),
            (Some(id), "GET") => user(id, service),
            (Some(id), _) => change(id, &request.body, service),
        },
        ("GET", ["stats"]) => {
            let json = serde_json::to_vec(&service.stats()).expect("numbers are valid JSON");
            Response::json(200, Arc::from(json))
        }
        ("GET", ["metrics"]) => Response::text(metrics::CONTENT_TYPE, metrics::text(service)),
        ("GET", ["in-flight"]) => Response::text(
            "text/plain; charset=utf-8",
            watch::in_flight(service.group()),
        ),
        (_, ["users", _]) => {
            Response::error(405, "only GET and PUT are served").with("Allow", "GET, PUT")
        }
        (_, ["stats" | "metrics" | "in-flight"]) => {
            Response::error(405, "only GET is served").with("Allow", "GET")
        }
        _ => Response::error(404, "no such page"),
    }
}

/// Only digits, and not too many: neither "+1" nor "0001" followed by a thousand zeros.
fn parse_id(text: &str) -> Option<i64> {
    let plain = text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| plain)?;
    (id > 0).then_some(id)
}

fn user(id: i64, service: &Service) -> Response {
    let began = Instant::now();
    // A leader whose load panics unwinds; its followers get `CallError::Panicked`. Caught here,
    // because a thread that died would be missing from the pool for ever.
    let outcome = catch_unwind(AssertUnwindSafe(|| service.user(id)));
    let micros = began.elapsed().as_micros();

    let Ok(outcome) = outcome else {
        return panicked().with_call("led", micros);
    };
    let role = match outcome.role {
        Role::Led => "led",
        Role::Followed => "followed",
    };
    answer(outcome.result).with_call(role, micros)
}

/// What a client may say about a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: String,
    email: String,
}

fn change(id: i64, body: &[u8], service: &Service) -> Response {
    // PostgreSQL can't keep a NUL; and what one database takes, the other is to take, too.
    let good = |text: &str| !text.is_empty() && !text.contains('\0');
    let user = match serde_json::from_slice(body) {
        Ok(Change { name, email }) if good(&name) && good(&email) => User { id, name, email },
        _ => return Response::error(400, "the body must be JSON with a name and an email"),
    };
    // Caught for the reason given in `user`.
    match catch_unwind(AssertUnwindSafe(|| service.change(&user))) {
        Ok(result) => answer(result),
        Err(_) => panicked(),
    }
}

fn answer(result: Result<Answer, CallError<LoadError>>) -> Response {
    match result {
        Ok(Answer::User(json)) => Response::json(200, json),
        Ok(Answer::NoSuchUser) => Response::error(404, "no such user"),
        Err(CallError::Panicked(_)) => panicked(),
        // What exactly went wrong is for the log, not for strangers.
        Err(CallError::Failed(error)) => match *error {
            LoadError::Cache(_) => Response::error(503, "the cache does not answer"),
            LoadError::Database(_) => Response::error(503, "the database does not answer"),
        },
        Err(CallError::TimedOut) => Response::error(504, "the load takes too long"),
        // Abandoned, and whatever may be added: no answer now, maybe later.
        Err(error) => Response::error(503, error),
    }
}

/// The same for the leader and for those who followed it.
fn panicked() -> Response {
    Response::error(500, "the load panicked")
}

struct Response {
    status: u16,
    content_type: &'static str,
    headers: String,
    body: Arc<[u8]>,
}

impl Response {
    fn json(status: u16, body: Arc<[u8]>) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: String::new(),
            body,
        }
    }

    fn text(content_type: &'static str, text: String) -> Self {
        Self {
            content_type,
            ..Self::json(200, Arc::from(text.into_bytes()))
        }
    }

    fn error(status: u16, message: impl ToString) -> Self {
        let json = serde_json::json!({ "error": message.to_string() }).to_string();
        Self::json(status, Arc::from(json.into_bytes()))
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    fn with_call(self, role: &str, micros: u128) -> Self {
        self.with(ROLE_HEADER, role).with(MICROS_HEADER, micros)
    }

    fn write(&self, stream: &TcpStream) -> io::Result<()> {
        let mut writer = BufWriter::new(stream);
        write!(
            writer,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Connection: close\r\n{}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
            self.headers,
        )?;
        writer.write_all(&self.body)?;
        writer.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::parse_id;

    #[test]
    fn ids_are_positive_numbers() {
        assert_eq!(parse_id("42"), Some(42));
        assert_eq!(parse_id("9223372036854775807"), Some(i64::MAX));
        let too_long = "0".repeat(1000) + "1";
        let bad = [
            "",
            "0",
            "-1",
            "+1",
            "1.0",
            "abc",
            "1%30",
            "9223372036854775808",
            &too_long,
        ];
        for id in bad {
            assert_eq!(parse_id(id), None, "{id:?}");
        }
    }
}
