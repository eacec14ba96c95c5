//! Providers of identities: what looks at a credential and says whom it proves. A file each, none of which knows another.

mod delegated;
mod digest;
#[cfg(feature = "passwords")]
mod passwords;
mod recent;
mod static_token;
mod watched;

pub use delegated::{Attributes, DelegatedOptions, DelegatedProvider};
pub use digest::{DigestFile, DigestProvider};
#[cfg(feature = "passwords")]
pub use passwords::{BasicProvider, Htpasswd, PasswordOptions, hash};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
pub use watched::FileError;
