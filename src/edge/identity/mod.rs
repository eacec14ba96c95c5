//! Providers of identities: what looks at a credential and says whom it proves. A file each, none of which knows another.

mod static_token;

pub use static_token::{SameToken, StaticProvider, StaticSecret};
