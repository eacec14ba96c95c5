//! `static:`, fixed tokens for development: whoever has one is the principal that stands beside it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::roles;
use crate::config::WatchedFile;
use crate::config::scalars::ConfigPath;
use crate::edge::identity::StaticSecret;
use crate::model::{EntityUid, RESERVED_ROLE_PREFIX, SecretText};

/// Fewest bytes of a token.
const MIN_BYTES: usize = 16;
/// Fewest bytes of one that may do what the server does, or that other machines may show.
const MIN_BYTES_OF_MASTER: usize = 32;
/// Fewest different characters of any.
const MIN_CHARACTERS: usize = 6;
/// What the samples of other gateways have in them, in small letters, with `-` for `_`.
const SAMPLES: [&str; 8] = [
    "changeme",
    "change-me",
    "change-in-production",
    "not-use-in-production",
    "your-super-secret",
    "insecure",
    "sk-1234",
    "0123456789abcdef0123456789abcdef",
];
/// Most tokens.
const MAX_TOKENS: usize = 100;

/// Fixed tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTokens {
    /// The tokens, or the files that hold them, with whom each proves.
    pub tokens: Vec<StaticSecret>,
    /// Whether they hold where other machines reach the server.
    pub anywhere: bool,
}

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
    token_file: Option<ConfigPath>,
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
    /// The files that hold tokens.
    pub(super) fn files(&self) -> Vec<WatchedFile> {
        let paths = self.tokens.iter().filter_map(|token| token.token_file.as_ref());
        paths.map(|path| WatchedFile::secret("`static`: `token_file`", &path.0)).collect()
    }

    pub(super) fn checked(self) -> Result<StaticTokens, String> {
        if self.tokens.is_empty() || self.tokens.len() > MAX_TOKENS {
            return Err(format!("`static` takes 1 to {MAX_TOKENS} tokens"));
        }
        let anywhere = self.anywhere;
        let checked = |token: RawToken| token.checked(anywhere);
        let tokens = self.tokens.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        StaticSecret::all_differ(&tokens).map_err(|same| same.to_string())?;
        Ok(StaticTokens { tokens, anywhere })
    }
}

impl RawToken {
    fn checked(self, anywhere: bool) -> Result<StaticSecret, String> {
        let principal: EntityUid = self.principal.parse().map_err(|error| format!("`principal`: {error}"))?;
        if !matches!(principal.kind(), "User" | "Service") {
            return Err(format!("`principal`: a token proves a User or a Service, not `{principal}`"));
        }
        roles::check(&self.roles)?;
        let token = match (self.token, self.token_file) {
            (Some(token), None) => SecretText::new(token),
            (None, Some(ConfigPath(path))) => {
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|error| format!("`token_file` {}: {error}", path.display()))?;
                SecretText::new(text.trim())
            }
            _ => return Err("a token is said by `token`, or by `token_file`".to_owned()),
        };
        let is_master = self.roles.iter().any(|role| role.starts_with(RESERVED_ROLE_PREFIX));
        let least = if is_master || anywhere { MIN_BYTES_OF_MASTER } else { MIN_BYTES };
        guessable(token.expose(), least)?;
        Ok(StaticSecret { token, principal, roles: self.roles })
    }
}

/// Refuses what others may know or guess.
fn guessable(token: &str, least: usize) -> Result<(), String> {
    let way_out = "`openssl rand -hex 32` makes a good one";
    if token.len() < least {
        let which = if least > MIN_BYTES { " that gives a role of Tollgate's, or holds `anywhere`," } else { "" };
        return Err(format!("a token{which} has {least} bytes at least; {way_out}"));
    }
    let characters: std::collections::HashSet<char> = token.chars().collect();
    let small = token.to_ascii_lowercase().replace('_', "-");
    if characters.len() < MIN_CHARACTERS || SAMPLES.iter().any(|sample| small.contains(sample)) {
        return Err(format!("this token stands in somebody's documentation, or is as easy to guess; {way_out}"));
    }
    Ok(())
}
