//! Signing in on another device (RFC 8628): a code is shown, somebody types it where they are signed in, and tokens come.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

use super::credentials::CredentialError;
use super::oauth::{Issuer, OAuthError};
use super::renew::{Renew, Tokens};
use crate::model::SecretText;

/// How often is asked, where the issuer does not say.
const INTERVAL: Duration = Duration::from_secs(5);
/// And the least, whatever it says.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// By how much it grows when the issuer says `slow_down`.
const SLOWER: Duration = Duration::from_secs(5);
/// How long a code is waited for at most.
const MOST: Duration = Duration::from_secs(30 * 60);

/// A code that somebody is to type.
#[derive(Debug)]
pub struct DeviceLogin {
    issuer: Issuer,
    client_id: String,
    device_code: SecretText,
    /// Where it is typed.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// What is typed.
    pub user_code: String,
    interval: Duration,
    /// For how long it holds.
    pub expires_in: Duration,
}

/// What comes after an answer that is no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To be asked again, after so long.
    Wait(Duration),
    /// It is over.
    Over(OAuthError),
}

impl Step {
    /// After `error`, where `interval` was the pause so far.
    #[must_use]
    pub fn after(error: OAuthError, interval: Duration) -> Self {
        match &error {
            OAuthError::Refused { code, .. } => match code.as_str() {
                "authorization_pending" => Self::Wait(interval),
                "slow_down" => Self::Wait(interval + SLOWER),
                _ => Self::Over(error),
            },
            // The network may come back while the code holds; to be asked less often until then.
            OAuthError::NoAnswer(..) => Self::Wait(interval * 2),
            _ => Self::Over(error),
        }
    }
}

impl DeviceLogin {
    /// Asks an issuer for a code.
    ///
    /// # Errors
    /// Where it has none to give.
    pub async fn begin(issuer: Issuer, client_id: &str, scope: &str) -> Result<Self, OAuthError> {
        let endpoint = issuer.device_endpoint()?.clone();
        let answer = issuer.post(&endpoint, &[("client_id", client_id), ("scope", scope)], None).await?;
        let unreadable = || OAuthError::Form(issuer.name().to_owned());
        let text = |member: &str| answer.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
        let seconds = |member: &str| answer.get(member).and_then(Value::as_u64).map(Duration::from_secs);
        let (code, user_code) = (text("device_code"), text("user_code"));
        // Google called it otherwise before the RFC.
        let uri = text("verification_uri").or_else(|| text("verification_url"));
        let (Some(code), Some(user_code), Some(uri)) = (code, user_code, uri) else { return Err(unreadable()) };
        Ok(Self {
            client_id: client_id.to_owned(),
            device_code: SecretText::new(code),
            verification_uri: uri.to_owned(),
            verification_uri_complete: text("verification_uri_complete").map(str::to_owned),
            user_code: user_code.to_owned(),
            interval: seconds("interval").unwrap_or(INTERVAL).clamp(LEAST_INTERVAL, MOST),
            expires_in: seconds("expires_in").unwrap_or(MOST).min(MOST),
            issuer,
        })
    }

    /// Waits until somebody has typed the code.
    ///
    /// # Errors
    /// Where nobody does in time, or it is refused.
    pub async fn wait(&self) -> Result<Tokens, OAuthError> {
        let by = || self.issuer.name().to_owned();
        let ended = || OAuthError::Refused { by: by(), code: "expired_token".to_owned(), description: String::new() };
        tokio::time::timeout(self.expires_in, self.poll()).await.map_err(|_| ended())?
    }

    async fn poll(&self) -> Result<Tokens, OAuthError> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", self.device_code.expose()),
            ("client_id", self.client_id.as_str()),
        ];
        let mut interval = self.interval;
        loop {
            tokio::time::sleep(interval).await;
            match self.issuer.tokens(&form, None).await {
                Ok(tokens) => return Ok(tokens),
                Err(error) => match Step::after(error, interval) {
                    Step::Wait(next) => interval = next,
                    Step::Over(error) => return Err(error),
                },
            }
        }
    }
}

/// Somebody who signed in: the first tokens, and those after them.
#[derive(Debug)]
pub struct SignedIn {
    issuer: Issuer,
    client_id: String,
    first: Tokens,
}

impl SignedIn {
    /// With the tokens that [`DeviceLogin::wait`] handed out.
    #[must_use]
    pub fn new(login: DeviceLogin, first: Tokens) -> Self {
        Self { issuer: login.issuer, client_id: login.client_id, first }
    }
}

impl Renew for SignedIn {
    fn renew(
        &self,
        last: Option<Tokens>,
    ) -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>> {
        Box::pin(async move {
            let Some(last) = last else { return Ok(self.first.clone()) };
            let ended = || OAuthError::Refused {
                by: self.issuer.name().to_owned(),
                code: "invalid_grant".to_owned(),
                description: "no refresh token came; sign in again".to_owned(),
            };
            let refresh = last.refresh.ok_or_else(ended)?;
            Ok(self.issuer.refresh(&self.client_id, &refresh).await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_wants_it_is_asked_less_often() {
        let refused = |code: &str| {
            let (by, description) = ("i".to_owned(), String::new());
            OAuthError::Refused { by, code: code.to_owned(), description }
        };
        let second = Duration::from_secs(1);
        assert_eq!(Step::after(refused("authorization_pending"), second), Step::Wait(second));
        assert_eq!(Step::after(refused("slow_down"), second), Step::Wait(6 * second));
        let away = OAuthError::NoAnswer("i".to_owned(), "x".to_owned());
        assert_eq!(Step::after(away, second), Step::Wait(2 * second));
        for code in ["access_denied", "expired_token", "invalid_client", "Slow_Down"] {
            assert_eq!(Step::after(refused(code), second), Step::Over(refused(code)));
        }
    }
}
