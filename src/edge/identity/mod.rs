//! Providers of identities: what looks at a credential and says whom it proves. A file or folder each, none of which knows
//! another; what several need (`claims`, `jose`, `recent`) knows none of them.

#[cfg(feature = "jwt")]
pub mod claims;
#[cfg(feature = "jwt")]
pub mod introspection;
#[cfg(feature = "jwt")]
pub mod jose;
#[cfg(feature = "jwt")]
pub mod jwt;
mod keys;
#[cfg(feature = "passwords")]
mod passwords;
#[cfg(any(feature = "jwt", feature = "passwords"))]
mod recent;
mod static_token;
#[cfg(all(feature = "jwt", feature = "sqlite"))]
pub mod tokens;

pub use keys::{KeyOptions, KeyProvider};
#[cfg(feature = "passwords")]
pub use passwords::{BasicProvider, Htpasswd, HtpasswdError, PasswordOptions, hash};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
