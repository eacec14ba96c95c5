//! `client_certificate:` and `forwarded_certificate:`, whom the names in a certificate prove.
//!
//! ```yaml
//! - client_certificate:
//!     mappings:
//!       - spiffe: "spiffe://acme.example/ns/{namespace}/sa/{name}"
//!         principal: 'Service::"{namespace}/{name}"'
//! ```

use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use super::roles;
use crate::edge::identity::{Grants, Mapping, NameKind};
use crate::model::{EntityUid, Network};

/// Most mappings of a provider.
const MAX_MAPPINGS: usize = 1_000;
/// Most networks that proxies are in.
const MAX_NETWORKS: usize = 100;

/// Client certificates that a proxy tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedCertificates {
    /// Where proxies are that are trusted to tell.
    pub from: Vec<Network>,
    /// Whom the names prove; the first that fits decides.
    pub mappings: Vec<Mapping>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whom which names prove; the first that fits.
    mappings: Vec<RawMapping>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct RawForwarded {
    /// Networks of the proxies that are believed.
    from: Vec<String>,
    /// Whom which names prove; the first that fits.
    mappings: Vec<RawMapping>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawMapping {
    /// A SPIFFE id, or a pattern: `spiffe://acme.example/ns/{namespace}/sa/{name}`.
    spiffe: Option<String>,
    /// A DNS name among the alternative names, or a pattern.
    dns: Option<String>,
    /// An address among the alternative names, or a pattern.
    email: Option<String>,
    /// The subject's common name, or a pattern.
    common_name: Option<String>,
    /// Whom it proves: `Service::"{name}"`, with what the pattern took.
    principal: String,
    /// Teams that it is in besides.
    #[serde(default)]
    teams: Vec<SmolStr>,
    /// Orgs that it is in besides.
    #[serde(default)]
    orgs: Vec<SmolStr>,
    /// Roles that it has besides.
    #[serde(default)]
    roles: Vec<SmolStr>,
    /// Tags that it has besides.
    #[serde(default)]
    tags: Vec<SmolStr>,
}

impl Raw {
    pub(super) fn checked(self) -> Result<Vec<Mapping>, String> {
        mappings(self.mappings)
    }
}

impl RawForwarded {
    pub(super) fn checked(self) -> Result<ForwardedCertificates, String> {
        if self.from.is_empty() || self.from.len() > MAX_NETWORKS {
            return Err(format!("`from` takes 1 to {MAX_NETWORKS} networks: where the proxies are that may tell"));
        }
        let network = |text: String| {
            Network::parse(&text).ok_or_else(|| format!("`from`: `{text}` is no network such as 10.0.0.0/8"))
        };
        let from = self.from.into_iter().map(network).collect::<Result<_, _>>()?;
        Ok(ForwardedCertificates { from, mappings: mappings(self.mappings)? })
    }
}

fn mappings(raw: Vec<RawMapping>) -> Result<Vec<Mapping>, String> {
    if raw.is_empty() || raw.len() > MAX_MAPPINGS {
        return Err(format!("`mappings` takes 1 to {MAX_MAPPINGS} mappings"));
    }
    raw.into_iter().map(RawMapping::checked).collect()
}

impl RawMapping {
    fn checked(self) -> Result<Mapping, String> {
        let principal: EntityUid = self.principal.parse().map_err(|error| format!("`principal`: {error}"))?;
        let mut said = [
            (NameKind::Spiffe, self.spiffe),
            (NameKind::Dns, self.dns),
            (NameKind::Email, self.email),
            (NameKind::CommonName, self.common_name),
        ]
        .into_iter()
        .filter_map(|(kind, pattern)| Some((kind, pattern?)));
        let (Some((kind, pattern)), None) = (said.next(), said.next()) else {
            return Err("a mapping has one of `spiffe`, `dns`, `email`, `common_name`".to_owned());
        };
        roles::check(&self.roles)?;
        let (teams, orgs) = (self.teams.into(), self.orgs.into());
        let grants = Grants { principal, teams, orgs, roles: self.roles.into(), tags: self.tags.into() };
        Mapping::new(kind, &pattern, &grants).map_err(|error| format!("`mappings`: {error}"))
    }
}
