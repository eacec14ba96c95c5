//! Providers of identities: what looks at a credential and says whom it proves. A file each, none of which knows another.

#[cfg(feature = "certificates")]
mod certificate;
#[cfg(feature = "tower")]
mod headers;
#[cfg(feature = "passwords")]
mod passwords;
#[cfg(feature = "passwords")]
mod recent;
mod static_token;

#[cfg(feature = "certificates")]
pub use certificate::{CertificateProvider, ForwardedProvider, Grants, Mapping, MappingError, NameKind};
#[cfg(feature = "tower")]
pub use headers::{CredentialHeaders, HeadersError};
#[cfg(feature = "passwords")]
pub use passwords::{BasicProvider, Htpasswd, HtpasswdError, PasswordOptions, hash};
pub use static_token::{SameToken, StaticProvider, StaticSecret};
