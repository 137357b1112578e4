//! Clients that are slow, idle, many or wrong, over plain sockets.

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{error, request, until, user, Reply, Site, PATIENCE};
use shared_calls::Unshared;
use user_service::cache::Cache;
use user_service::db::When;
use user_service::http::{Server, Timeouts, MAX_BODY, MAX_HEAD, THREADS};
use user_service::service::Expiry;

const ADA: &str = r#"{"name":"Ada","email":"ada@example.com"}"#;
/// More than there are threads.
const CROWD: usize = THREADS + 44;

fn connect(server: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    // So that a test ends, should the server never answer.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    stream
}

/// Sends something and reads until the server closes.
fn converse(server: SocketAddr, sent: &str) -> String {
    let mut reply = String::new();
    connect(server, sent).read_to_string(&mut reply).unwrap();
    reply
}

/// The head and the body of one answer.
fn read_answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let mut body = vec![0; content_length(&head)];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn content_length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.expect("a length").parse().unwrap()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).expect("a status line").parse().unwrap()
}

/// A second server for the same service, with time limits of its own.
fn server(site: &Site, client: Duration, thread: Duration) -> Server {
    let address = ([127, 0, 0, 1], 0).into();
    let timeouts = Timeouts { client, thread };
    Server::with_timeouts(address, Arc::clone(&site.service), timeouts).unwrap()
}

#[test]
fn a_chunked_body_is_read() {
    let site = Site::plain();
    let (first, second) = ADA.split_at(10);
    let put = format!(
        "PUT /users/501 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:X};extension=1\r\n{second}\r\n0\r\nTrailer: yes\r\n\r\n",
        first.len(),
        second.len()
    );
    let reply = converse(site.server.address(), &put);
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with(r#"{"id":501,"name":"Ada","email":"ada@example.com"}"#), "{reply}");
    let body = r#"{"id":501,"name":"Ada","email":"ada@example.com"}"#.to_owned();
    assert_eq!(site.get(501), Reply { status: 200, body });
}

#[test]
fn a_chunked_body_that_is_wrong_or_too_long_is_refused() {
    let site = Site::plain();
    let put = "PUT /users/502 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let wrong = "ten\r\n0123456789\r\n0\r\n\r\n";
    for (body, status, message) in
        [(wrong, 400, "the body cannot be read"), (&*chunk.repeat(3), 413, "the body is too long")]
    {
        let reply = converse(site.server.address(), &format!("{put}{body}"));
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        assert!(reply.ends_with(&error(status, message).body), "{reply}");
    }
    assert_eq!(site.get(502), user(502));
}

/// Two lengths are how requests are smuggled past a proxy.
#[test]
fn a_request_with_two_lengths_is_not_read_twice() {
    let site = Site::plain();
    let inner = "PUT /users/503 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    let put = format!(
        "PUT /users/503 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nContent-Length: 3\r\n\r\n",
        inner.len()
    );
    let reply = converse(site.server.address(), &format!("{put}{inner}"));
    assert_eq!(status(&reply), 400, "{reply}");
    assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{reply}");
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let site = Site::plain();
    let server = site.server.address();
    for path in ["/users/504", "/users/0", "/nowhere", "/in-flight", "/stats", "/metrics"] {
        let ask = |method| {
            let ask = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let reply = converse(server, &ask);
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        };
        let (head, nothing) = ask("HEAD");
        let (same, body) = ask("GET");
        assert_eq!(nothing, "", "{path}");
        assert_eq!(status(&head), status(&same), "{path}");
        // The figures on two pages have changed since, and one page is empty.
        if body.starts_with('{') && path != "/stats" {
            assert_eq!(content_length(&head), body.len(), "{path}");
        }
    }
    assert_eq!(site.stats().database_queries, 1);
}

#[test]
fn a_connection_serves_several_requests() {
    let site = Site::plain();
    let get = "GET /users/505 HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "HEAD /users/505 HTTP/1.1\r\nHost: x\r\n\r\n";
    let put =
        format!("PUT /users/505 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{ADA}", ADA.len());
    let mut stream = BufReader::new(connect(site.server.address(), get));
    assert_eq!(read_answer(&mut stream).1, user(505).body);
    // Two at once.
    let both = format!("{put}{get}");
    stream.get_mut().write_all(both.as_bytes()).unwrap();
    let (_, changed) = read_answer(&mut stream);
    assert!(changed.contains("Ada"), "{changed}");
    assert_eq!(read_answer(&mut stream).1, changed);
    // After a HEAD the next answer begins where it should.
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    stream.get_mut().write_all(get.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).1, changed);
}

#[test]
fn a_client_that_asks_first_is_told_to_send_its_body() {
    let site = Site::plain();
    let head = |length| {
        format!(
            "PUT /users/506 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut stream = connect(site.server.address(), &head(ADA.len()));
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    stream.write_all(ADA.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("HTTP/1.1 200 OK"), "{reply}");
    // Or that it need not.
    let reply = converse(site.server.address(), &head(MAX_BODY + 1));
    assert_eq!(status(&reply), 413, "{reply}");
}

#[test]
fn the_longest_requests() {
    let site = Site::plain();
    let server = site.server.address();
    let get = |length: usize| {
        let rest = "GET /users/507 HTTP/1.1\r\nConnection: close\r\nX: \r\n\r\n";
        let padding = "x".repeat(length - rest.len());
        converse(server, &rest.replace("X: ", &format!("X: {padding}")))
    };
    assert_eq!(status(&get(MAX_HEAD - 1)), 200);
    assert_eq!(status(&get(MAX_HEAD + 1)), 431);
    let put = |length: usize| {
        let body = format!(r#"{{"name":"Ada","email":"{}"}}"#, "e".repeat(length - 25));
        assert_eq!(body.len(), length);
        site.put(507, &body).status
    };
    assert_eq!(put(MAX_BODY), 200);
    assert_eq!(put(MAX_BODY + 1), 413);
}

/// More of each kind than there are threads, all patient, and the server is patient, too: the GET is
/// answered while they are there.
#[test]
fn slow_and_idle_clients_hold_up_nobody() {
    let site = Site::plain();
    let server = server(&site, PATIENCE, PATIENCE);
    let address = server.address();
    let mut clients = Vec::new();
    for sent in [
        "",
        "GET /users/508 HTTP/1.1\r\nHost:",
        "PUT /users/508 HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{",
        "PUT /users/508 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ] {
        clients.extend((0..CROWD).map(|_| connect(address, sent)));
    }
    let began = Instant::now();
    assert_eq!(request(address, "GET", "/users/508"), user(508));
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());

    // Not one of them has been sent away meanwhile.
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn clients_that_take_too_long_are_sent_away() {
    let site = Site::plain();
    let server = server(&site, Duration::from_millis(100), PATIENCE);
    let address = server.address();
    // Nothing to say, or not all of it.
    assert_eq!(converse(address, ""), "");
    let reply = converse(address, "GET /users/509 HTTP/1.1\r\nHost:");
    assert!(reply.is_empty() || status(&reply) == 408, "{reply}");
    for half in [
        "PUT /users/509 HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{",
        "PUT /users/509 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ] {
        let reply = converse(address, half);
        assert_eq!(status(&reply), 408, "{reply}");
        assert!(reply.ends_with(&error(408, "the body takes too long").body), "{reply}");
    }
    // Idle after an answer.
    let reply = converse(address, "GET /users/509 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(reply.ends_with(&user(509).body), "{reply}");
}

/// It asks again and again, until the server cannot send and then does not read any more.
#[test]
fn a_client_that_does_not_read_is_sent_away() {
    let site = Site::plain();
    let server = server(&site, Duration::from_millis(100), PATIENCE);
    let mut stream = connect(server.address(), "");
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let error = loop {
        if let Err(error) = stream.write_all(ask.as_bytes()) {
            break error.kind();
        }
    };
    let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(closed.contains(&error), "{error}");
}

/// While all threads wait for loads.
#[test]
fn when_all_threads_are_busy_requests_are_refused_and_pages_are_served() {
    let (entered, in_query) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let site = Site::start_with(
        Arc::new(Unshared),
        Cache::memory(),
        Expiry::default(),
        PATIENCE,
        move |when| {
            if when == When::Before {
                entered.send(()).unwrap();
                // Fails when the test has seen enough.
                let _ = released.lock().unwrap().recv();
            }
        },
    );
    let server = server(&site, PATIENCE, Duration::from_millis(50));
    let address = server.address();
    let get = "GET /users/510 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut clients: Vec<_> = (0..THREADS).map(|_| connect(address, get)).collect();
    in_query.recv().unwrap();
    until(|| site.stats().led + site.stats().cache_misses >= THREADS as u64);

    let busy = error(503, "too many requests are waiting");
    assert_eq!(request(address, "GET", "/users/511"), busy);
    for path in ["/stats", "/metrics", "/in-flight"] {
        assert_eq!(request(address, "GET", path).status, 200, "{path}");
    }

    drop(release);
    for client in &mut clients {
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        // The last ones may have waited too long for a connection to the database.
        assert!([200, 503].contains(&status(&reply)), "{reply}");
    }
    until(|| request(address, "GET", "/users/511") == user(511));
}

#[test]
fn stopping_does_not_wait_for_idle_clients() {
    let site = Site::plain();
    let server = server(&site, PATIENCE, PATIENCE);
    let address = server.address();
    let fresh: Vec<_> = (0..CROWD).map(|_| connect(address, "")).collect();
    let get = "GET /users/512 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut served = BufReader::new(connect(address, get));
    assert_eq!(read_answer(&mut served).1, user(512).body);

    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| drop(server));
        let served = served.into_inner();
        for mut client in fresh.into_iter().chain([served]) {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
    });
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
