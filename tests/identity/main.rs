//! Who is asking, from outside: the real binary is shown credentials, in questions and in headers, and says whom they
//! prove or why nobody.

#![allow(
    missing_docs,
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

mod alike;
mod authority;
mod bounds;
mod callers;
mod certificates;
mod client;
mod delegated;
mod digest;
mod exchange;
mod failures;
mod fresh;
mod in_code;
mod introspection;
mod issuer;
mod jose;
mod key_rules;
mod keys;
mod keys_command;
mod layer;
mod linking;
mod login;
mod mapping;
mod oidc;
mod own_answers;
mod panics;
mod passwords;
mod proxy;
mod recalled;
mod recipes;
mod redis;
mod secret_files;
mod settings;
mod shown;
mod stored_passwords;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "shared with the tests of HTTP")]
mod support;
mod tls;
mod tokens;
mod unavailable;
mod validate;
mod wycheproof;
