//! The routes, and what they answer.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, ALLOW, CONNECTION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use shared_calls::{CallError, Role};

use crate::cache::Answer;
use crate::db::{DbError, User};
use crate::service::{LoadError, Service};
use crate::{metrics, watch};

/// Tells the client whether its request led or followed in its shared call.
pub const ROLE_HEADER: &str = "x-shared-call";
/// How long the call took.
pub const MICROS_HEADER: &str = "x-shared-call-micros";

pub type Response = hyper::Response<Full<Bytes>>;

pub enum Route {
    /// Answered at once.
    Ready(Response),
    /// Needs a thread, because it may block.
    Load(Load),
}

pub enum Load {
    Get(i64),
    Put(User),
}

/// hyper answers HEAD as GET, but sends no body.
pub fn route(head: &Parts, body: &[u8], service: &Service) -> Route {
    let read = head.method == Method::GET || head.method == Method::HEAD;
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    Route::Ready(match segments.as_slice() {
        ["users", id] if read || head.method == Method::PUT => match parse_id(id) {
            None => error(400, "the id must be a positive number"),
            Some(id) if read => return Route::Load(Load::Get(id)),
            Some(id) => match parse_change(id, body) {
                Some(user) => return Route::Load(Load::Put(user)),
                None => error(400, "the body must be JSON with a name and an email"),
            },
        },
        ["users", _] => {
            let response = error(405, "only GET, HEAD and PUT are served");
            with(response, ALLOW, "GET, HEAD, PUT")
        }
        ["stats"] if read => {
            let json = serde_json::to_vec(&service.stats()).expect("numbers are valid JSON");
            response(200, "application/json", json)
        }
        ["metrics"] if read => response(200, metrics::CONTENT_TYPE, metrics::text(service)),
        ["in-flight"] if read => {
            let text = watch::in_flight(service.group());
            response(200, "text/plain; charset=utf-8", text)
        }
        ["stats" | "metrics" | "in-flight"] => {
            with(error(405, "only GET and HEAD are served"), ALLOW, "GET, HEAD")
        }
        _ => error(404, "no such page"),
    })
}

/// Only digits, and not too many: not "+1", and not a thousand zeros before a number.
pub fn parse_id(text: &str) -> Option<i64> {
    let plain = text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| plain)?;
    (id > 0).then_some(id)
}

fn parse_change(id: i64, body: &[u8]) -> Option<User> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        name: String,
        email: String,
    }
    // PostgreSQL cannot store a NUL, and both databases should accept the same.
    let good = |text: &str| !text.is_empty() && !text.contains('\0');
    let Change { name, email } = serde_json::from_slice(body).ok()?;
    (good(&name) && good(&email)).then_some(User { id, name, email })
}

impl Load {
    pub fn run(self, service: &Service) -> Response {
        let id = match self {
            Self::Get(id) => id,
            Self::Put(user) => return answer(service.change(&user)),
        };
        let began = Instant::now();
        let outcome = service.user(id);
        let micros = began.elapsed().as_micros().to_string();
        let role = match outcome.role {
            Role::Led => "led",
            Role::Followed => "followed",
        };
        let response = with(answer(outcome.result), ROLE_HEADER, role);
        with(response, MICROS_HEADER, &micros)
    }
}

fn answer(result: Result<Answer, CallError<LoadError>>) -> Response {
    match result {
        Ok(Answer::User(json)) => response(200, "application/json", Bytes::from_owner(json)),
        Ok(Answer::NoSuchUser) => error(404, "no such user"),
        Err(CallError::Panicked(_)) => panicked(),
        // The details are for the log, not for clients.
        Err(CallError::Failed(failed)) => match *failed {
            LoadError::Cache(_) => error(503, "the cache does not answer"),
            // The next attempt fails, too.
            LoadError::Database(DbError::Unreadable(_)) => error(500, "the user cannot be read"),
            LoadError::Database(_) => error(503, "the database does not answer"),
        },
        Err(CallError::TimedOut) => error(504, "the load takes too long"),
        Err(CallError::Overloaded) => error(503, "too many requests wait for this user"),
        // No answer now, but maybe later.
        Err(other) => error(503, &other.to_string()),
    }
}

/// The same for the leader and for its followers.
pub fn panicked() -> Response {
    error(500, "the load panicked")
}

/// For a request that was not read to its end, so that no other can follow.
pub fn refuse(status: u16, message: &str) -> Response {
    with(error(status, message), CONNECTION, "close")
}

pub fn error(status: u16, message: &str) -> Response {
    let json = serde_json::json!({ "error": message }).to_string();
    response(status, "application/json", json)
}

fn response(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a valid status");
    with(response, CONTENT_TYPE, content_type)
}

fn with(mut response: Response, name: impl hyper::header::IntoHeaderName, value: &str) -> Response {
    let value = HeaderValue::from_str(value).expect("plain text");
    response.headers_mut().insert(name, value);
    response
}
