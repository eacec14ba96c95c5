//! What providers that ask others share: how many questions may be out at once, and which credentials are nobody else's
//! to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::model::{KeyText, REFRESH_TOKEN_PREFIX, SecretText};

/// How many questions may be out at once: who guesses with many connections must not open as many more.
pub(super) struct AtOnce {
    out: Arc<AtomicUsize>,
    most: usize,
}

impl AtOnce {
    /// `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { out: Arc::default(), most }
    }

    /// A place for one question, given back however it ends; `None` where as many are out as may be.
    pub(super) fn take(&self) -> Option<Place> {
        let took =
            self.out.fetch_update(Ordering::AcqRel, Ordering::Acquire, |out| (out < self.most).then_some(out + 1));
        took.ok().map(|_| Place(Arc::clone(&self.out)))
    }
}

/// One of the questions that are out.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether the last request to the provider's backend got no answer.
#[derive(Clone, Default)]
pub(super) struct Away(Arc<AtomicBool>);

impl Away {
    pub(super) fn note(&self, away: bool) {
        self.0.store(away, Ordering::Release);
    }

    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether nobody else is asked about a credential: it is Tollgate's own, a refresh token or a key (unless keys of this
/// form are somebody else's), or it has white space in it, as no token has (RFC 6750, section 2.1), and may be one of those
/// behind a scheme.
pub(super) fn is_own(credential: &SecretText, own_keys: bool) -> bool {
    let text = credential.expose();
    let is_own = text.starts_with(REFRESH_TOKEN_PREFIX) || (own_keys && KeyText::is_meant(text));
    is_own || text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_out_than_may_be_and_a_place_comes_back() {
        let at_once = AtOnce::new(2);
        let (first, second) = (at_once.take(), at_once.take());
        assert!(first.is_some() && second.is_some() && at_once.take().is_none());
        drop(first);
        assert!(at_once.take().is_some());
    }

    #[test]
    fn keys_and_refresh_tokens_are_tollgates_own() {
        for (text, with_keys, without) in [
            ("tg_ci_x", true, false),
            ("tgr_x", true, true),
            ("tgx", false, false),
            ("Tg_ci_x", false, false),
            ("Basic tgr_x", true, true),
        ] {
            let text = SecretText::new(text);
            assert_eq!((is_own(&text, true), is_own(&text, false)), (with_keys, without));
        }
    }
}
