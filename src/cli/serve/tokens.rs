//! Where what must last of Tollgate's own tokens is kept: in the Redis that keeps the meters, if there is one, else in the
//! data directory.

use std::error::Error;
use std::sync::Arc;

use crate::config::{KeySettings, Settings, TokenSettings};
use crate::edge::store::{Pepper, RedisTokens, TokenFile};
use crate::gate::TokenStore;

/// Opens the store; `None` where nobody wished for tokens and nothing could seal what signs them.
///
/// # Errors
/// With the reason, where it cannot be had.
pub(super) fn open(settings: &Settings, tokens: &TokenSettings) -> Result<Option<Arc<dyn TokenStore>>, Box<dyn Error>> {
    let Some(redis) = settings.redis() else { return Ok(Some(Arc::new(TokenFile::open(&settings.data)?))) };
    let keys = settings.identity.keys().cloned().unwrap_or_default();
    let KeySettings { pepper_file, max_stale, .. } = keys;
    match tokens.pepper_file.clone().or(pepper_file) {
        Some(pepper) => Ok(Some(Arc::new(RedisTokens::open(&redis, &Pepper::read(&pepper)?, max_stale)?))),
        None if !tokens.wished_for => Ok(None),
        None => Err("`identity.tokens` with a Redis wants a `pepper_file`, the same on every node: it seals the keys that \
                     sign tokens, so that whoever reads the Redis cannot sign; `head -c 32 /dev/urandom > FILE` makes one"
            .into()),
    }
}
