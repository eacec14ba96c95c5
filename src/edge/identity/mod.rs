//! Providers of identities: what looks at a credential and says whom it proves. A file each, none of which knows another.

mod keys;
mod static_token;

pub use keys::{KeyOptions, KeyProvider};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
