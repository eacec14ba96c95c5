//! Tollgate's own short-lived tokens: a key or password is shown once, and then only what came for it (`POST /v1/token`).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::credentials::CredentialError;
use super::oauth::{OAuthError, tokens};
use super::renew::{Renew, Tokens};
use crate::edge::clock::SystemClock;
use crate::edge::outgoing::{Address, Client, ClientOptions, Outgoing, Proxy};
use crate::gate::Clock as _;
use crate::model::SecretText;

/// Where tokens are handed out.
const PATH: &str = "/v1/token";
/// For an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer.
const MOST_BYTES: usize = 1024 * 1024;

/// What is exchanged for tokens.
#[derive(Debug, Clone)]
pub enum Grant {
    /// A key.
    ApiKey(SecretText),
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: SecretText,
    },
    /// Nothing but the last tokens.
    Refresh,
}

/// Exchanges with a server.
#[derive(Debug, Clone)]
pub struct Exchange {
    client: Client,
    grant: Grant,
}

impl Exchange {
    /// With the server at `server`.
    ///
    /// # Errors
    /// Where that is no address, or TLS cannot be had.
    pub fn new(server: &str, grant: Grant) -> Result<Self, OAuthError> {
        Self::through(server, grant, &Proxy::none())
    }

    /// With the server at `server`, through a proxy.
    ///
    /// # Errors
    /// As [`Exchange::new`].
    pub fn through(server: &str, grant: Grant, proxy: &Proxy) -> Result<Self, OAuthError> {
        let address = Address::parse(server).map_err(|_| OAuthError::Address(server.chars().take(200).collect()))?;
        let client = Client::new(address, ClientOptions::new(TIMEOUT, MOST_BYTES).through(proxy));
        let client = client.map_err(|error| OAuthError::NoAnswer(server.to_owned(), error.to_string()))?;
        Ok(Self { client, grant })
    }

    /// The first tokens, by what is exchanged.
    ///
    /// # Errors
    /// Where the server refuses.
    pub async fn first(&self) -> Result<Tokens, OAuthError> {
        self.post(&match &self.grant {
            Grant::ApiKey(key) => json!({ "grant_type": "api_key", "api_key": key.expose() }),
            Grant::Password { username, password } => {
                json!({ "grant_type": "password", "username": username, "password": password.expose() })
            }
            Grant::Refresh => {
                let description = "the session has ended; sign in again".to_owned();
                let by = self.client.address().to_string();
                return Err(OAuthError::Refused { by, code: "invalid_grant".to_owned(), description });
            }
        })
        .await
    }

    /// The next tokens, by a refresh token, which is used once.
    ///
    /// # Errors
    /// Where the server takes it no longer.
    pub async fn next(&self, refresh: &SecretText) -> Result<Tokens, OAuthError> {
        self.post(&json!({ "grant_type": "refresh_token", "refresh_token": refresh.expose() })).await
    }

    async fn post(&self, body: &Value) -> Result<Tokens, OAuthError> {
        let server = self.client.address().to_string();
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let what = Outgoing { method: Method::POST, headers, body: Bytes::from(body.to_string()) };
        let reply = self.client.send_to(PATH, what).await;
        let reply = reply.map_err(|error| OAuthError::NoAnswer(server.clone(), error.to_string()))?;
        let answer: Value = serde_json::from_slice(&reply.body).map_err(|_| OAuthError::Form(server.clone()))?;
        if reply.status == StatusCode::OK {
            return tokens(&answer, SystemClock.now()).ok_or(OAuthError::Form(server));
        }
        let said = |member: &str| {
            let text = answer.pointer(&format!("/error/{member}")).and_then(Value::as_str).unwrap_or_default();
            text.chars().filter(|next| !next.is_control()).take(200).collect::<String>()
        };
        Err(OAuthError::Refused { by: server, code: said("code"), description: said("message") })
    }
}

impl Renew for Exchange {
    fn renew(
        &self,
        last: Option<Tokens>,
    ) -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>> {
        Box::pin(async move {
            match last.and_then(|last| last.refresh) {
                None => Ok(self.first().await?),
                Some(refresh) => match self.next(&refresh).await {
                    // It has ended, or somebody else used it: what it came for is exchanged again.
                    Err(OAuthError::Refused { .. }) => Ok(self.first().await?),
                    other => Ok(other?),
                },
            }
        })
    }
}
