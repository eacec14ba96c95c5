//! `static:`, fixed tokens for development: whoever has one is the principal that stands beside it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::roles;
use crate::model::{EntityUid, SecretText};

/// Fewest bytes of a token.
const MIN_BYTES: usize = 16;
/// Most tokens.
const MAX_TOKENS: usize = 100;

/// Fixed tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTokens {
    /// The tokens, or the files that hold them, with whom each proves.
    pub tokens: Vec<StaticToken>,
    /// Whether they hold where other machines reach the server.
    pub anywhere: bool,
}

/// One token.
#[derive(Debug, Clone)]
pub struct StaticToken {
    /// The token, read from its file where it has one.
    pub token: SecretText,
    /// Whom it proves.
    pub principal: EntityUid,
    /// Roles that it gives, Tollgate's own among them: `tollgate:administrator` makes it the master key.
    pub roles: Vec<String>,
}

impl PartialEq for StaticToken {
    fn eq(&self, other: &Self) -> bool {
        self.token.is(&other.token) && self.principal == other.principal && self.roles == other.roles
    }
}

impl Eq for StaticToken {}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// The tokens.
    tokens: Vec<RawToken>,
    /// Whether they hold where other machines reach the server. Default: false.
    #[serde(default)]
    anywhere: bool,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawToken {
    /// The token, of 16 bytes at least.
    token: Option<String>,
    /// The file that holds it.
    token_file: Option<PathBuf>,
    /// Whom it proves: `User::"alice"`.
    principal: String,
    /// Roles that it gives, Tollgate's own among them.
    #[serde(default)]
    roles: Vec<String>,
}

impl std::fmt::Debug for RawToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawToken").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Raw {
    pub(super) fn checked(self) -> Result<StaticTokens, String> {
        if self.tokens.is_empty() || self.tokens.len() > MAX_TOKENS {
            return Err(format!("`static` takes 1 to {MAX_TOKENS} tokens"));
        }
        let tokens = self.tokens.into_iter().map(RawToken::checked).collect::<Result<Vec<_>, _>>()?;
        for (at, one) in tokens.iter().enumerate() {
            if let Some(other) = tokens.iter().skip(at + 1).find(|other| other.token.is(&one.token)) {
                return Err(format!("the tokens of `{}` and `{}` are the same", one.principal, other.principal));
            }
        }
        Ok(StaticTokens { tokens, anywhere: self.anywhere })
    }
}

impl RawToken {
    fn checked(self) -> Result<StaticToken, String> {
        let principal: EntityUid = self.principal.parse().map_err(|error| format!("`principal`: {error}"))?;
        if !matches!(principal.kind(), "User" | "Service") {
            return Err(format!("`principal`: a token proves a User or a Service, not `{principal}`"));
        }
        roles::check(&self.roles)?;
        let token = match (self.token, self.token_file) {
            (Some(token), None) => SecretText::new(token),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|error| format!("`token_file` {}: {error}", path.display()))?;
                SecretText::new(text.trim())
            }
            _ => return Err("a token is said by `token`, or by `token_file`".to_owned()),
        };
        if token.expose().len() < MIN_BYTES {
            return Err(format!("a token has {MIN_BYTES} bytes at least; `openssl rand -hex 32` makes a good one"));
        }
        Ok(StaticToken { token, principal, roles: self.roles })
    }
}
