//! The server from outside: the real binary, asked over sockets, byte by byte where it matters.
#![cfg(all(unix, feature = "server"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::string_slice,
    missing_docs
)]

mod additional;
mod answers;
mod config;
mod connections;
mod lifecycle;
mod malformed;
mod support;
