//! The names in a certificate, and for how long it holds.

use smol_str::SmolStr;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::mapping::NameKind;
use super::spiffe;
use crate::model::{Refusal, RefusalReason, Timestamp};

/// Largest certificate that is read.
const MAX_BYTES: usize = 64 * 1024;
/// Most names of one.
const MAX_NAMES: usize = 128;

/// Why a certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// It is no certificate.
    #[error("the client certificate cannot be read")]
    Form,
    /// A name in it is broken, or there are more than anybody needs.
    #[error("the client certificate has names that cannot be read")]
    Names,
    /// It is an authority's, which vouches for others and is no client.
    #[error("the client certificate is that of an authority")]
    Authority,
    /// Its SPIFFE id is none (SPIFFE ID, section 2), or not its only URI (X.509-SVID, section 2).
    #[error("the client certificate has no one valid SPIFFE id")]
    Spiffe,
}

impl From<NamesError> for Refusal {
    fn from(error: NamesError) -> Self {
        Self::new(RefusalReason::Malformed, error.to_string())
    }
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// URIs among its alternative names.
    pub uris: Vec<SmolStr>,
    /// DNS names, in small letters.
    pub dns: Vec<SmolStr>,
    /// Email addresses.
    pub emails: Vec<SmolStr>,
    /// The common name of its subject, where there is exactly one.
    pub common_name: Option<SmolStr>,
    /// When it begins to hold.
    pub not_before: Option<Timestamp>,
    /// When it ends to.
    pub not_after: Option<Timestamp>,
}

impl Names {
    /// Those of a certificate in DER. Whether anybody vouches for it is not looked at.
    ///
    /// # Errors
    /// Where it cannot be read, to its last byte.
    pub fn of(certificate: &[u8]) -> Result<Self, NamesError> {
        if certificate.len() > MAX_BYTES {
            return Err(NamesError::Form);
        }
        let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| NamesError::Form)?;
        if !rest.is_empty() {
            return Err(NamesError::Form);
        }
        if certificate.is_ca() {
            return Err(NamesError::Authority);
        }
        let mut common_names = certificate.subject().iter_common_name();
        let common_name = common_names.next().filter(|_| common_names.next().is_none());
        let instant = |seconds: i64| seconds.checked_mul(1_000).map(Timestamp::from_millis);
        let mut names = Self {
            common_name: common_name.and_then(|name| name.as_str().ok()).map(SmolStr::new),
            not_before: instant(certificate.validity().not_before.timestamp()),
            not_after: instant(certificate.validity().not_after.timestamp()),
            ..Self::default()
        };
        let alternative = certificate.subject_alternative_name().map_err(|_| NamesError::Names)?;
        let alternative = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        if alternative.len() > MAX_NAMES {
            return Err(NamesError::Names);
        }
        for name in alternative {
            match name {
                GeneralName::URI(uri) => names.uris.push(SmolStr::new(uri)),
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase().into()),
                GeneralName::RFC822Name(email) => names.emails.push(SmolStr::new(email)),
                GeneralName::Invalid(..) => return Err(NamesError::Names),
                _ => {}
            }
        }
        Ok(names)
    }

    /// Refuses what calls itself a SPIFFE id and is none, also where no mapping looks at it.
    pub(super) fn check_spiffe(&self) -> Result<(), NamesError> {
        let claims = |uri: &SmolStr| uri.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:"));
        if !self.uris.iter().any(claims) {
            return Ok(());
        }
        match self.uris.as_slice() {
            [only] if spiffe::is_workload(only) => Ok(()),
            _ => Err(NamesError::Spiffe),
        }
    }

    /// The names of a kind.
    pub(super) fn of_kind(&self, kind: NameKind) -> &[SmolStr] {
        match kind {
            NameKind::Spiffe => &self.uris,
            NameKind::Dns => &self.dns,
            NameKind::Email => &self.emails,
            NameKind::CommonName => self.common_name.as_slice(),
        }
    }

    /// A name for the log.
    pub(super) fn any(&self) -> Option<&SmolStr> {
        self.uris.iter().chain(&self.dns).chain(&self.emails).chain(&self.common_name).next()
    }
}
