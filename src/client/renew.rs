//! Tokens that are renewed before they end: one renewal at a time, whoever waits for it, and to its end, whoever does so no
//! longer. A refresh token is used once; one whose answer nobody read would be lost with all that came from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::credentials::{CredentialError, CredentialSource, bearer};
use crate::gate::{Clock, Later};
use crate::model::{SecretText, Timestamp};

/// How long before its end a token is renewed at most.
const MARGIN_MS: i64 = 60_000;
/// For which a renewal that failed is not tried again, as long as the token still holds.
const PATIENCE_MS: i64 = 5_000;

/// What an issuer handed out.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What proves the client.
    pub access: SecretText,
    /// What gets the next ones.
    pub refresh: Option<SecretText>,
    /// Who it is, in OpenID's words.
    pub identity: Option<SecretText>,
    /// When `access` came.
    pub since: Timestamp,
    /// When it ends, where that is told.
    pub expires_at: Option<Timestamp>,
}

impl Tokens {
    /// Whether it holds for long enough to be shown.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| {
            let life = end.as_millis().saturating_sub(self.since.as_millis());
            now.as_millis() < end.as_millis().saturating_sub(MARGIN_MS.min(life / 5))
        })
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// How tokens are renewed.
pub trait Renew: Send + Sync + 'static {
    /// The next tokens, by the last ones if there are any.
    fn renew(&self, last: Option<Tokens>)
    -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>>;
}

/// Tokens that are renewed when they are asked for.
pub struct Renewing<R> {
    shared: Arc<Shared<R>>,
}

struct Shared<R> {
    how: R,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tokens: Option<Tokens>,
    failed_at: Option<Timestamp>,
}

impl<R: Renew> Renewing<R> {
    /// None yet; the first are fetched when they are asked for.
    pub fn new(how: R, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { how, clock, state: Arc::default() }) }
    }
}

impl<R: Renew> CredentialSource for Renewing<R> {
    fn authorization(&self, refused: Option<&SecretText>) -> Later<Result<SecretText, CredentialError>> {
        let (shared, refused) = (Arc::clone(&self.shared), refused.cloned());
        Later::pending(async move { shared.authorization(refused).await })
    }
}

impl<R: Renew> Shared<R> {
    async fn authorization(self: Arc<Self>, refused: Option<SecretText>) -> Result<SecretText, CredentialError> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let now = self.clock.now();
        if let Some(tokens) = &state.tokens {
            let shown = bearer(&tokens.access);
            let is_refused = refused.is_some_and(|refused| refused.is(&shown));
            let waits = state.failed_at.is_some_and(|at| now.as_millis() - at.as_millis() < PATIENCE_MS);
            if !is_refused && (tokens.is_fresh(now) || (waits && tokens.holds(now))) {
                return Ok(shown);
            }
        }
        let renewing = tokio::spawn(async move {
            let renewed = self.how.renew(state.tokens.clone()).await;
            let now = self.clock.now();
            match renewed {
                Ok(tokens) => {
                    let shown = bearer(&tokens.access);
                    *state = State { tokens: Some(tokens), failed_at: None };
                    Ok(shown)
                }
                Err(error) => {
                    state.failed_at = Some(now);
                    match state.tokens.as_ref().filter(|tokens| tokens.holds(now)) {
                        Some(tokens) => Ok(bearer(&tokens.access)),
                        None => Err(error),
                    }
                }
            }
        });
        renewing.await.map_err(|_| CredentialError::Ended)?
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct At(AtomicI64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    /// Hands out tokens of 100 seconds; each refresh token is taken once.
    struct Issuer {
        clock: Arc<At>,
        handed: AtomicUsize,
        away: std::sync::atomic::AtomicBool,
    }

    impl Renew for Arc<Issuer> {
        fn renew(
            &self,
            last: Option<Tokens>,
        ) -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if self.away.load(Ordering::Relaxed) {
                    return Err(CredentialError::Ended);
                }
                let number = self.handed.fetch_add(1, Ordering::Relaxed);
                let expected = (number > 0).then(|| format!("refresh-{}", number - 1));
                assert_eq!(last.and_then(|last| last.refresh).map(|text| text.expose().to_owned()), expected);
                let since = self.clock.now();
                Ok(Tokens {
                    access: SecretText::new(format!("access-{number}")),
                    refresh: Some(SecretText::new(format!("refresh-{number}"))),
                    identity: None,
                    since,
                    expires_at: Some(Timestamp::from_millis(since.as_millis() + 100_000)),
                })
            })
        }
    }

    #[test]
    fn many_ask_and_one_renews() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = Arc::new(At::default());
        let issuer = Arc::new(Issuer { clock: Arc::clone(&clock), handed: AtomicUsize::new(0), away: false.into() });
        let source = Arc::new(Renewing::new(Arc::clone(&issuer), Arc::clone(&clock) as Arc<dyn Clock>));
        let ask = |refused: Option<SecretText>| {
            let source = Arc::clone(&source);
            async move { source.authorization(refused.as_ref()).await.map(|text| text.expose().to_owned()) }
        };
        runtime.block_on(async {
            let all: Vec<_> = (0..50).map(|_| tokio::spawn(ask(None))).collect();
            for one in all {
                assert_eq!(one.await.unwrap().unwrap(), "Bearer access-0");
            }
            // Whoever stops waiting stops no renewal.
            clock.0.store(80_000, Ordering::Relaxed);
            let gone = tokio::spawn(ask(None));
            tokio::task::yield_now().await;
            gone.abort();
            assert_eq!(ask(None).await.unwrap(), "Bearer access-1");
            // One that was refused is renewed, and renewed once where many were refused the same.
            let refused = || Some(SecretText::new("Bearer access-1"));
            assert_eq!(ask(refused()).await.unwrap(), "Bearer access-2");
            assert_eq!(ask(refused()).await.unwrap(), "Bearer access-2");
            // An issuer that is away is no harm while the last one holds, and then there is none.
            issuer.away.store(true, Ordering::Relaxed);
            clock.0.store(170_000, Ordering::Relaxed);
            assert_eq!(ask(None).await.unwrap(), "Bearer access-2");
            clock.0.store(180_000, Ordering::Relaxed);
            assert!(ask(None).await.is_err());
        });
    }
}
