//! The server from outside: the real binary, asked over sockets, byte by byte where it matters.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]
#![cfg(all(unix, feature = "server"))]
mod additional;
mod alerts;
mod answers;
mod config;
mod connections;
mod cors;
mod description;
mod health;
mod hosts;
mod lifecycle;
mod logs;
mod malformed;
mod metrics;
mod normal;
mod private;
#[allow(dead_code, reason = "the tests of the decision log use the rest of it")]
mod receiver;
#[allow(dead_code, reason = "the tests of the stores use the rest of it")]
#[path = "../stores/redis_server.rs"]
mod redis_server;
mod rollback;
mod routing;
mod schema;
mod standing;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod support;
