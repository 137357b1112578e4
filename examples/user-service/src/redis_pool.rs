//! Connections to Redis, shared by all threads, with a time limit on everything.

use std::time::Duration;

use r2d2::{ManageConnection, Pool};
use redis::{Client, Cmd, FromRedisValue, RedisError, RedisResult};

use crate::cache::CacheError;

/// A command takes a fraction of a millisecond, so a few connections are enough for many threads.
const CONNECTIONS: u32 = 8;

pub struct RedisPool(Pool<Manager>);

impl RedisPool {
    /// Does not connect yet, so that the service can start while Redis is down.
    ///
    /// `timeout` is how long to wait for a connection, and for each reply.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, CacheError> {
        let client = Client::open(url)?;
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(timeout)
            // The pool's own test would never end while Redis accepts connections but does not
            // reply: each connection that fails is replaced by a new one, which is tested next.
            .test_on_check_out(false)
            .build_unchecked(Manager { client, timeout });
        Ok(Self(pool))
    }

    /// Runs a command that may be repeated without harm.
    pub fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        let mut dead = 0;
        loop {
            let mut connection = self.0.get()?;
            match connection.query(command) {
                // A connection from before Redis was restarted is no reason to fail a caller. There
                // are only so many of them.
                Err(error) if error.is_connection_dropped() && dead < CONNECTIONS => dead += 1,
                result => return Ok(result?),
            }
        }
    }
}

struct Manager {
    client: Client,
    timeout: Duration,
}

struct Connection {
    redis: redis::Connection,
    broken: bool,
}

impl Connection {
    fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let result = command.query(&mut self.redis);
        // After a timeout, too: the reply may come later and be taken for the next command's.
        self.broken |= matches!(&result, Err(error) if error.is_io_error());
        result
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    fn connect(&self) -> Result<Connection, RedisError> {
        let redis = self.client.get_connection_with_timeout(self.timeout)?;
        redis.set_read_timeout(Some(self.timeout))?;
        redis.set_write_timeout(Some(self.timeout))?;
        let broken = false;
        Ok(Connection { redis, broken })
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        connection.query(&redis::cmd("PING"))
    }

    /// Called when a connection comes back. A broken one is dropped.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken
    }
}
