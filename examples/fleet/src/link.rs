//! Connections to Redis: each reply has a time limit, and while there is no Redis nobody tries.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Client, Connection, IntoConnectionInfo, RedisError, RedisResult};
use tracing::{info, warn};

use crate::check::Check;

/// More than this are not kept when they are not in use.
const IDLE: usize = 16;
/// After so many different messages, no further ones are logged.
const MESSAGES: usize = 100;

/// Redis is away, or it refused this command. Already logged.
#[derive(Clone, Copy, Debug)]
pub struct NoRedis;

pub struct Link {
    client: Client,
    idle: Mutex<Vec<Connection>>,
    /// Set to `false` by any command that Redis does not answer, and to `true` by the subscriber's
    /// thread alone, which keeps trying. So no call waits for a server that is known to be away.
    up: AtomicBool,
    reply: Duration,
    said: Mutex<HashSet<String>>,
}

impl Link {
    /// Does not connect yet, and is taken to be up until it is used. `reply` is how long a
    /// connection, and each reply, may take.
    pub fn new(url: &str, reply: Duration) -> RedisResult<Self> {
        let info = url.into_connection_info()?;
        // The client would tell its own name first, and wait for two replies to that.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self {
            client: Client::open(info.set_redis_settings(settings))?,
            idle: Mutex::default(),
            up: AtomicBool::new(true),
            reply,
            said: Mutex::default(),
        })
    }

    /// Runs a command that may be repeated without harm.
    pub fn run<T>(
        &self,
        command: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, NoRedis> {
        let mut idle = self.idle.lock().pop();
        while self.is_up() {
            let reused = idle.is_some();
            let connection = idle.take().map_or_else(|| self.connect(), Ok);
            // On an error the connection is dropped: a late reply to this command must not be taken
            // for the next one's.
            match connection.and_then(|mut it| Ok((command(&mut it)?, it))) {
                Ok((value, connection)) => {
                    let mut idle = self.idle.lock();
                    idle.push(connection);
                    idle.truncate(IDLE);
                    return Ok(value);
                }
                // Redis was restarted, or closes what is idle for long. That is no fault yet.
                Err(error) if reused && error.is_connection_dropped() => self.idle.lock().clear(),
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Err(NoRedis)
    }

    pub fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(self.reply)?;
        connection.set_read_timeout(Some(self.reply))?;
        connection.set_write_timeout(Some(self.reply))?;
        Ok(connection)
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// Goes on with a Redis that was checked, or without one that cannot be used.
    pub fn admit(&self, check: Check) -> Result<(), NoRedis> {
        if let Some(reason) = check.unusable {
            return Err(self.down("Redis cannot be used", &reason));
        }
        for note in check.notes {
            self.say_once(note);
        }
        if !self.up.swap(true, Ordering::SeqCst) {
            info!("Redis is back: calls are shared with other processes");
        }
        Ok(())
    }

    /// What an error means: that Redis is away, or that it does not do this one thing for us.
    pub fn fault(&self, error: &RedisError) -> NoRedis {
        if is_refusal(error) {
            // Other calls, of other keys, may fare better.
            let what = "Redis refuses a command: its call is not shared with other processes";
            self.say_once(format!("{what}: {error}"));
            return NoRedis;
        }
        self.down("no Redis", error)
    }

    pub fn say_once(&self, message: String) {
        let mut said = self.said.lock();
        if said.len() < MESSAGES && said.insert(message.clone()) {
            warn!("{message}");
        }
    }

    /// Said once, not for each call that would have used it.
    fn down(&self, what: &str, error: &dyn Display) -> NoRedis {
        if self.up.swap(false, Ordering::SeqCst) {
            self.idle.lock().clear();
            warn!(%error, "{what}: calls are shared within this process only");
        }
        NoRedis
    }
}

/// Redis has understood the command, and is there; but it does not do it, or not for this user.
pub fn is_refusal(error: &RedisError) -> bool {
    let (code, text) = (error.code().unwrap_or_default(), error.to_string());
    // For any error in a script, the code of Redis 6 is ERR.
    let away = ["OOM ", "READONLY ", "MISCONF "].map(|code| text.contains(code));
    !away.contains(&true) && ["ERR", "NOPERM", "NOSCRIPT", "WRONGTYPE"].contains(&code)
}
