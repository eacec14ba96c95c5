//! Providers of identities: what looks at a credential and says whom it proves. A file each, none of which knows another.

#[cfg(feature = "passwords")]
mod passwords;
#[cfg(feature = "passwords")]
mod recent;
mod static_token;

#[cfg(feature = "passwords")]
pub use passwords::{BasicProvider, Htpasswd, HtpasswdError, PasswordOptions, hash};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
