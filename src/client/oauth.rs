//! An OAuth issuer, as a client sees it: where its endpoints are (OpenID discovery), and tokens from them (RFC 6749).
//!
//! What is sent to an issuer goes to the host that its own document names, over TLS; what comes back is bounded, and no
//! secret of it is ever part of an error.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::credentials::CredentialError;
use super::renew::{Renew, Tokens};
use crate::edge::clock::SystemClock;
use crate::edge::outgoing::{self, Address, ClientOptions, Outgoing, Proxy};
use crate::gate::Clock as _;
use crate::model::{SecretText, Timestamp};

/// For an issuer to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer.
const MOST_BYTES: usize = 1024 * 1024;
/// Longest that a token is taken to live.
const MOST_SECONDS: i64 = 366 * 86_400;

/// Why whoever hands out tokens, an issuer or a server of Tollgate's, hands out none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// Its address, or one in its document, is none.
    #[error("`{0}` is no address of who hands out tokens: it begins with https://, or is on this machine")]
    Address(String),
    /// It does not answer.
    #[error("no answer from {0}: {1}")]
    NoAnswer(String, String),
    /// Its document is not its own.
    #[error("the issuer {0} calls itself `{1}`")]
    Another(String, String),
    /// It has no such endpoint.
    #[error("the issuer {0} has no {1}")]
    Lacks(String, &'static str),
    /// What it answers is not what such issuers answer.
    #[error("{0} answers what cannot be read")]
    Form(String),
    /// It refuses: one of the codes of RFC 6749, section 5.2, or RFC 8628, section 3.5.
    #[error("{by} refuses: {code}{}", about(description))]
    Refused {
        /// Who refuses: the issuer, or the server.
        by: String,
        /// The code.
        code: String,
        /// What it says besides.
        description: String,
    },
}

fn about(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!(" ({description})") }
}

/// An issuer whose document was read.
#[derive(Debug, Clone)]
pub struct Issuer {
    name: String,
    token_endpoint: Address,
    device_endpoint: Option<Address>,
    proxy: Proxy,
}

impl Issuer {
    /// Reads the document of an issuer.
    ///
    /// # Errors
    /// Where it cannot be had, or is not this issuer's.
    pub async fn discover(name: &str) -> Result<Self, OAuthError> {
        Self::discover_through(name, &Proxy::none()).await
    }

    /// Reads the document of an issuer through a proxy, as all later requests to this issuer.
    ///
    /// # Errors
    /// As [`Issuer::discover`].
    pub async fn discover_through(name: &str, proxy: &Proxy) -> Result<Self, OAuthError> {
        let base = name.trim_end_matches('/');
        let place = address(&format!("{base}/.well-known/openid-configuration"))?;
        let client = outgoing::Client::new(place, ClientOptions::new(TIMEOUT, MOST_BYTES).through(proxy));
        let client = client.map_err(|error| OAuthError::NoAnswer(name.to_owned(), error.to_string()))?;
        let what = Outgoing { method: Method::GET, headers: accepting(), body: Bytes::new() };
        let (status, document) = ask(name, &client, what).await?;
        if status != StatusCode::OK {
            return Err(OAuthError::NoAnswer(name.to_owned(), format!("its document is a {}", status.as_u16())));
        }
        let said = |member: &str| document.get(member).and_then(Value::as_str);
        let issuer = said("issuer").unwrap_or_default();
        if issuer != name {
            return Err(OAuthError::Another(name.to_owned(), issuer.chars().take(200).collect()));
        }
        let token = said("token_endpoint").ok_or_else(|| OAuthError::Lacks(name.to_owned(), "token endpoint"))?;
        let device = said("device_authorization_endpoint").map(address).transpose()?;
        Ok(Self {
            name: name.to_owned(),
            token_endpoint: address(token)?,
            device_endpoint: device,
            proxy: proxy.clone(),
        })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device_endpoint(&self) -> Result<&Address, OAuthError> {
        let lacks = || OAuthError::Lacks(self.name.clone(), "device authorization endpoint");
        self.device_endpoint.as_ref().ok_or_else(lacks)
    }

    /// Posts a form to one of its endpoints.
    pub(super) async fn post(
        &self,
        endpoint: &Address,
        form: &[(&str, &str)],
        client: Option<(&str, &SecretText)>,
    ) -> Result<Value, OAuthError> {
        let mut headers = accepting();
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")));
        if let Some((id, secret)) = client {
            let pair = zeroize::Zeroizing::new(format!("{}:{}", encoded(id), encoded(secret.expose())));
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            let mut value = value.map_err(|_| OAuthError::Form(self.name.clone()))?;
            value.set_sensitive(true);
            headers.push((AUTHORIZATION, value));
        }
        let body = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&");
        let sender =
            outgoing::Client::new(endpoint.clone(), ClientOptions::new(TIMEOUT, MOST_BYTES).through(&self.proxy));
        let sender = sender.map_err(|error| OAuthError::NoAnswer(self.name.clone(), error.to_string()))?;
        let what = Outgoing { method: Method::POST, headers, body: Bytes::from(body) };
        match ask(&self.name, &sender, what).await? {
            (StatusCode::OK, answer) => Ok(answer),
            (_, answer) => Err(refused(&self.name, &answer)),
        }
    }

    /// Tokens for a form.
    pub(super) async fn tokens(
        &self,
        form: &[(&str, &str)],
        client: Option<(&str, &SecretText)>,
    ) -> Result<Tokens, OAuthError> {
        let answer = self.post(&self.token_endpoint, form, client).await?;
        tokens(&answer, SystemClock.now()).ok_or_else(|| OAuthError::Form(self.name.clone()))
    }

    /// The next tokens, by a refresh token.
    ///
    /// # Errors
    /// Where the issuer takes it no longer.
    pub async fn refresh(&self, client_id: &str, refresh: &SecretText) -> Result<Tokens, OAuthError> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose()), ("client_id", client_id)];
        let mut tokens = self.tokens(&form, None).await?;
        // Where it stays the same it is not told again.
        tokens.refresh = tokens.refresh.or_else(|| Some(refresh.clone()));
        Ok(tokens)
    }
}

fn accepting() -> Vec<(HeaderName, HeaderValue)> {
    vec![(ACCEPT, HeaderValue::from_static("application/json"))]
}

fn address(text: &str) -> Result<Address, OAuthError> {
    Address::parse(text).map_err(|_| OAuthError::Address(text.chars().take(200).collect()))
}

async fn ask(name: &str, client: &outgoing::Client, what: Outgoing) -> Result<(StatusCode, Value), OAuthError> {
    let reply = client.send(what).await.map_err(|error| OAuthError::NoAnswer(name.to_owned(), error.to_string()))?;
    let body = serde_json::from_slice(&reply.body).map_err(|_| OAuthError::Form(name.to_owned()))?;
    Ok((reply.status, body))
}

/// What an issuer says instead of tokens, as far as it may be shown.
fn refused(name: &str, answer: &Value) -> OAuthError {
    let shown = |member: &str| {
        let text = answer.get(member).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|next| !next.is_control()).take(200).collect::<String>()
    };
    let code = shown("error");
    if code.is_empty() {
        return OAuthError::Form(name.to_owned());
    }
    OAuthError::Refused { by: name.to_owned(), code, description: shown("error_description") }
}

/// Reads what a token endpoint answers.
pub(super) fn tokens(answer: &Value, now: Timestamp) -> Option<Tokens> {
    let text = |member: &str| answer.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("token_type")?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let seconds = answer.get("expires_in").and_then(Value::as_i64).map(|seconds| seconds.clamp(0, MOST_SECONDS));
    Some(Tokens {
        access: SecretText::new(text("access_token")?),
        refresh: text("refresh_token").map(SecretText::new),
        identity: text("id_token").map(SecretText::new),
        since: now,
        expires_at: seconds.map(|seconds| Timestamp::from_millis(now.as_millis() + seconds * 1_000)),
    })
}

/// As forms and queries have it.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// A client with a secret, and what it wants of its issuer.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The issuer, exactly as it calls itself.
    pub issuer: String,
    /// What the client is called there.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretText,
    /// Scopes, with spaces between.
    pub scope: Option<String>,
    /// Whom the token is for, where the issuer wants that said.
    pub audience: Option<String>,
}

impl ClientCredentials {
    /// The same, asking the issuer through a proxy; for [`super::Credentials::renewed`].
    #[must_use]
    pub fn through(self, proxy: Proxy) -> impl Renew {
        ThroughProxy { client: self, proxy }
    }

    async fn tokens(&self, proxy: &Proxy) -> Result<Tokens, CredentialError> {
        let issuer = Issuer::discover_through(&self.issuer, proxy).await?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        Ok(issuer.tokens(&form, Some((&self.client_id, &self.client_secret))).await?)
    }
}

impl Renew for ClientCredentials {
    fn renew(&self, _: Option<Tokens>) -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>> {
        Box::pin(async move { self.tokens(&Proxy::none()).await })
    }
}

struct ThroughProxy {
    client: ClientCredentials,
    proxy: Proxy,
}

impl Renew for ThroughProxy {
    fn renew(&self, _: Option<Tokens>) -> Pin<Box<dyn Future<Output = Result<Tokens, CredentialError>> + Send + '_>> {
        Box::pin(self.client.tokens(&self.proxy))
    }
}
