//! `identity:`, who may be whom: the providers in their order, as written and then as meant.
//!
//! ```yaml
//! identity:
//!   loopback: open            # or closed: callers on this machine prove themselves too
//!   key_headers: [x-api-key, api-key]
//!   admin_policies: on        # or off: the bundle alone says who manages keys
//!   providers:                # left out: keys alone
//!     - keys: { unknown_owners: refuse }
//!     - static: { tokens: [{ token_file: /run/secrets/dev, principal: 'User::"alice"' }] }
//! ```

mod keys;
mod static_token;

use std::sync::Arc;

use hyper::header::HeaderName;
use serde::Deserialize;

use super::node::{self, NodeError};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::yaml::{self, Node};

pub use keys::{FirstKey, KeySettings};
pub use static_token::{StaticToken, StaticTokens};

/// Most providers.
const MAX_PROVIDERS: usize = 32;
/// What a variable or file that says all of it is called in messages.
const SECTION: &str = "identity";

/// Who may be whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether callers on loopback prove themselves too.
    pub loopback_closed: bool,
    /// Headers that hold a caller's key, besides `Authorization`.
    pub key_headers: Vec<HeaderName>,
    /// Whether the policies that ship say who manages keys where the bundle does not.
    pub admin_policies: bool,
    /// Providers, in the order in which they are asked.
    pub providers: Vec<Provider>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        let key_headers = ["x-api-key", "api-key"].map(HeaderName::from_static).into();
        let providers = vec![Provider::Keys(KeySettings::default())];
        Self { loopback_closed: false, key_headers, admin_policies: true, providers }
    }
}

/// A provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// API keys.
    Keys(KeySettings),
    /// Fixed tokens, for development.
    Static(StaticTokens),
}

/// As written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    loopback: Option<Loopback>,
    key_headers: Option<Vec<String>>,
    admin_policies: Option<Switch>,
    providers: Option<Vec<RawProvider>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Loopback {
    Open,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawProvider {
    Keys(keys::Raw),
    Static(static_token::Raw),
}

impl IdentitySettings {
    /// Reads the section; what is wrong comes with its place.
    pub(super) fn read(node: &Node) -> Result<Self, NodeError> {
        let raw: Raw = node::read(node)?;
        Self::checked(raw).map_err(|message| NodeError { place: Some(node.place), message })
    }

    /// Reads the section from a text of its own, which may say all of it.
    pub(super) fn read_text(name: &Arc<str>, text: &str) -> Result<Self, Vec<Problem>> {
        let reading = yaml::read(name, text);
        if reading.problems.iter().any(Problem::is_error) {
            return Err(reading.problems);
        }
        let Some(root) = &reading.root else { return Ok(Self::default()) };
        Self::read(root).map_err(|error| vec![problem(name, &error)])
    }

    fn checked(raw: Raw) -> Result<Self, String> {
        let mut settings = Self { loopback_closed: raw.loopback == Some(Loopback::Closed), ..Self::default() };
        if let Some(names) = raw.key_headers {
            let header = |name: String| name.parse().map_err(|_| format!("`{name}` is no name of a header"));
            settings.key_headers = names.into_iter().map(header).collect::<Result<_, _>>()?;
        }
        settings.admin_policies = raw.admin_policies != Some(Switch::Off);
        let Some(providers) = raw.providers else { return Ok(settings) };
        if providers.len() > MAX_PROVIDERS {
            return Err(format!("there may be {MAX_PROVIDERS} providers at most"));
        }
        settings.providers = providers.into_iter().map(Provider::checked).collect::<Result<_, _>>()?;
        let keys = |provider: &&Provider| matches!(provider, Provider::Keys(_));
        if settings.providers.iter().filter(keys).count() > 1 {
            return Err("`keys` is there once, since there is one store of them".to_owned());
        }
        Ok(settings)
    }
}

impl Provider {
    fn checked(raw: RawProvider) -> Result<Self, String> {
        match raw {
            RawProvider::Keys(raw) => raw.checked().map(Self::Keys),
            RawProvider::Static(raw) => raw.checked().map(Self::Static),
        }
    }
}

/// What is wrong with the section, as a problem of the file it stands in.
pub(super) fn problem(name: &Arc<str>, error: &NodeError) -> Problem {
    let place = error.place.unwrap_or_default();
    let message = format!("`{SECTION}`: {}", error.message);
    Problem::error(ProblemCode::InvalidValue, name, place, message).with_help("docs/identity.md has every setting")
}
