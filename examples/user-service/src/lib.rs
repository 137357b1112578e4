//! A user-information service: the story that go-zero's `SharedCalls` was written for.
//!
//! `GET /users/{id}` reads a cache, and on a miss the database, and fills the cache. When the entry
//! of a popular user expires, all requests of that moment miss together. Here one of them asks the
//! database and the others wait for its answer. `PUT /users/{id}` changes a user.
//!
//! Read in this order:
//!
//! - [`service`]: the read through the cache, all inside one shared call, and the change.
//! - [`cache`] with [`redis_pool`], [`db`] with [`sqlite_pool`] and [`postgres_pool`]: what is read.
//!   Each may fail, and each has time limits.
//! - [`http`] and [`routes`]: the server with its limits, and the pages.
//! - [`watch`], [`metrics`] and [`stats`]: the log, what is in flight, and figures for Prometheus.
//! - [`config`]: builds the service.
//! - [`demo`] and [`picture`]: 200 clients ask for one user, with and without sharing.

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
pub mod routes;
pub mod service;
pub mod sqlite_pool;
pub mod stats;
pub mod watch;
