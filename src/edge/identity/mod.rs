//! Providers of identities: what looks at a credential and says whom it proves. A file or folder each, none of which knows
//! another; what several need (`asking`, `claims`, `jose`, `named`, `recent`, `unlinked`)
//! knows none of them.

mod asking;
#[cfg(feature = "certificates")]
mod certificate;
#[cfg(feature = "jwt")]
pub mod claims;
mod delegated;
mod digest;
#[cfg(feature = "tower")]
mod headers;
#[cfg(feature = "jwt")]
pub mod introspection;
#[cfg(feature = "jwt")]
pub mod jose;
#[cfg(feature = "jwt")]
pub mod jwt;
mod keys;
mod named;
#[cfg(feature = "passwords")]
mod passwords;
mod recent;
mod static_token;
#[cfg(feature = "jwt")]
pub mod tokens;
mod unlinked;
mod watched;

#[cfg(feature = "certificates")]
pub use certificate::{CertificateProvider, ForwardedProvider, Grants, Mapping, MappingError, NameKind};
pub use delegated::{Attributes, DelegatedOptions, DelegatedProvider, is_secret_name};
pub use digest::{DigestFile, DigestProvider};
#[cfg(feature = "tower")]
pub use headers::{CredentialHeaders, HeadersError, after_bearer};
pub use keys::{KeyOptions, KeyProvider};
#[cfg(feature = "server")]
pub(crate) use keys::{identity_of_key, is_known_owner};
#[cfg(feature = "passwords")]
pub use passwords::{
    BasicProvider, Htpasswd, MAX_PASSWORD_BYTES, MIN_PASSWORD_BYTES, PasswordOptions, PasswordPlace, hash,
};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
pub use watched::FileError;
