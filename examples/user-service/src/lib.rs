//! A user-information service: the story that go-zero's `SharedCalls` was written for.
//!
//! `GET /users/{id}` reads a cache, and on a miss the database, and fills the cache. When the
//! entry of a much-asked-for user expires, all who ask at that moment miss together. Here one of
//! them asks the database and the others wait for its answer. `PUT /users/{id}` changes a user.
//!
//! Read on in this order:
//!
//! - [`service`]: the read through the cache, all inside one shared call, and the change. The heart.
//! - [`cache`] with [`redis_pool`], [`db`] with [`sqlite_pool`] and [`postgres_pool`]: what is read.
//!   Each may fail; each is bounded in time.
//! - [`http`]: the server, its threads and its routes.
//! - [`watch`], [`metrics`] and [`trace`]: what is to be seen from outside: what is in flight, figures
//!   for Prometheus, and the log.
//! - [`config`]: puts the parts together.
//! - [`demo`] and [`picture`]: 200 clients at one user, with and without sharing.

#![forbid(unsafe_code)]

pub mod cache;
pub mod config;
pub mod db;
pub mod demo;
pub mod http;
pub mod metrics;
pub mod picture;
pub mod postgres_pool;
pub mod redis_pool;
pub mod service;
pub mod sqlite_pool;
pub mod stats;
pub mod trace;
pub mod watch;
