//! A client of a running server: decisions, reservations, standings, with a credential that stays fresh.
//!
//! What is hard about it: an answer that gets lost. What counts (a reservation, usage) is sent under a key of its own, so
//! that sending it again counts once; what cannot be sent again is not.
//!
//! ```no_run
//! use tollgate::client::{Amounts, Client, Credentials, Question};
//!
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://tollgate.acme.example")
//!     .credentials(Credentials::file("/run/secrets/tollgate-token"))
//!     .build()?;
//! let question = Question::new(r#"User::"alice""#.parse()?, "chat", r#"Model::"openai-main/gpt-4o""#.parse()?);
//! let answer = client.reserve(&question, Amounts::tokens(900, 500)).await?;
//! if let Some(reservation) = &answer.reservation {
//!     client.settle(&reservation.id, Amounts::tokens(870, 312)).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod credentials;
mod device;
mod exchange;
mod oauth;
mod question;
mod renew;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

pub use answer::{Answer, Candidate, Principal, Reservation};
pub use credentials::{CredentialError, CredentialSource, Credentials};
pub use device::{DeviceLogin, SignedIn, Step};
pub use exchange::{Exchange, Grant};
pub use oauth::{ClientCredentials, Issuer, OAuthError};
pub use question::{Amounts, Question};
pub use renew::{Renew, Renewing, Tokens};

use crate::edge::outgoing::{self, Address, AddressError, ClientOptions, ClientTls, Outgoing, Reply};
pub use crate::edge::outgoing::{Proxy, ProxyError};
use crate::model::{EntityUid, SecretText};

/// For an answer, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Connections that are kept.
const KEPT: usize = 16;
/// How often what may be sent again is sent.
const ATTEMPTS: u32 = 3;
/// The pause after the first attempt; each one after that is four times as long.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer. Never a decision: whoever gets one must not let the request through.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is none.
    #[error("`{0}` is no address of a server: {1}")]
    Address(String, AddressError),
    /// It does not answer.
    #[error("no answer from {0}: {1}")]
    NoAnswer(String, outgoing::ClientError),
    /// It refuses to.
    #[error("{message}")]
    Refused {
        /// The status.
        status: u16,
        /// The error's code; empty where it is none of Tollgate's.
        code: String,
        /// Its message.
        message: String,
        /// The member that is wrong.
        param: Option<String>,
    },
    /// What answers is something else.
    #[error("what answers at {0} is not Tollgate")]
    NotTollgate(String),
    /// There is no credential to ask with.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

/// Asks a server. Cheap to clone; every clone shares connections and credential.
#[derive(Clone)]
pub struct Client {
    transport: outgoing::Client,
    credentials: Option<Arc<dyn CredentialSource>>,
}

/// How a client is to be set up.
#[must_use]
pub struct ClientBuilder {
    server: String,
    credentials: Option<Arc<dyn CredentialSource>>,
    timeout: Duration,
    tls: ClientTls,
    proxy: Proxy,
}

impl ClientBuilder {
    /// Who asks. Without one, who the connection's certificate names, or nobody.
    pub fn credentials(mut self, credentials: impl CredentialSource + 'static) -> Self {
        self.credentials = Some(Arc::new(credentials));
        self
    }

    /// For each attempt to get an answer; 10 seconds where nothing is said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Trusts the authorities in this PEM file, and not the machine's.
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.authorities = Some(path.into());
        self
    }

    /// Shows this certificate, with its key, both in PEM.
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Sends requests through this proxy. The library reads no environment: without this, they go to the server directly.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// Where the server's address is none, or TLS cannot be had.
    pub fn build(self) -> Result<Client, ClientError> {
        let wrong = |error| ClientError::Address(self.server.clone(), error);
        let address = Address::parse(&self.server).map_err(wrong)?;
        if !address.is_bare() {
            return Err(wrong(AddressError::Form));
        }
        let bounds = ClientOptions::new(self.timeout, MOST_BYTES);
        let options = ClientOptions { tls: self.tls, proxy: self.proxy, kept: KEPT, ..bounds };
        let transport = outgoing::Client::new(address, options);
        let transport = transport.map_err(|error| ClientError::NoAnswer(self.server.clone(), error))?;
        Ok(Client { transport, credentials: self.credentials })
    }
}

impl Client {
    /// For a server: `https://…`, or `http://` on this machine.
    pub fn builder(server: impl Into<String>) -> ClientBuilder {
        let (tls, proxy) = (ClientTls::default(), Proxy::none());
        ClientBuilder { server: server.into(), credentials: None, timeout: TIMEOUT, tls, proxy }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// Where there is no decision. A forbid is one.
    pub async fn is_authorized(&self, question: &Question) -> Result<Answer, ClientError> {
        self.answered("/is_authorized", &question.body(), question.may_be_sent_again()).await
    }

    /// Asks about a list of models; with a router as the question's resource, about those of that router.
    ///
    /// # Errors
    /// As [`Client::is_authorized`].
    pub async fn candidates(&self, question: &Question, candidates: &[EntityUid]) -> Result<Answer, ClientError> {
        let body = question.about(candidates);
        self.answered("/is_authorized", &body, question.may_be_sent_again()).await
    }

    /// Asks many questions, all answered by one bundle and in their order.
    ///
    /// # Errors
    /// As [`Client::is_authorized`], where one of them is none.
    pub async fn batch(&self, questions: &[Question]) -> Result<Vec<Answer>, ClientError> {
        let body = json!({ "requests": questions.iter().map(Question::body).collect::<Vec<_>>() });
        let again = questions.iter().all(Question::may_be_sent_again);
        let mut answered = self.send(Method::POST, "/is_authorized/batch", Some(&body), again).await?;
        match answered.get_mut("responses").map(Value::take) {
            Some(Value::Array(all)) if all.len() == questions.len() => {
                all.into_iter().map(|one| Answer::read(one).ok_or_else(|| self.stranger())).collect()
            }
            _ => Err(self.stranger()),
        }
    }

    /// Asks, and holds what the request will use, where it is permitted. Without a key of its own the question gets one,
    /// so that an answer that gets lost holds nothing twice.
    ///
    /// # Errors
    /// As [`Client::is_authorized`].
    pub async fn reserve(&self, question: &Question, amounts: Amounts) -> Result<Answer, ClientError> {
        let question = question.clone().reserving(amounts).with_a_key();
        self.answered("/is_authorized", &question.body(), true).await
    }

    /// Charges what a reservation used; the same again counts once.
    ///
    /// # Errors
    /// Where it is unknown, or was closed otherwise.
    pub async fn settle(&self, reservation: &str, usage: Amounts) -> Result<Value, ClientError> {
        let body = json!({ "reservation": reservation, "usage": usage.body() });
        self.send(Method::POST, "/settle", Some(&body), true).await
    }

    /// Gives back what a reservation held.
    ///
    /// # Errors
    /// As [`Client::settle`].
    pub async fn release(&self, reservation: &str) -> Result<Value, ClientError> {
        self.send(Method::POST, "/release", Some(&json!({ "reservation": reservation })), true).await
    }

    /// Lets a reservation live for so long from now.
    ///
    /// # Errors
    /// As [`Client::settle`].
    pub async fn extend(&self, reservation: &str, ttl: Duration) -> Result<Value, ClientError> {
        let body = json!({ "reservation": reservation, "ttl_seconds": ttl.as_secs() });
        self.send(Method::POST, "/extend", Some(&body), true).await
    }

    /// Notes what was used without a reservation, once for its key: the question's, or one that it gets.
    ///
    /// # Errors
    /// Where it is no such usage.
    pub async fn usage(&self, question: &Question, usage: Amounts) -> Result<Value, ClientError> {
        let body = question.clone().with_a_key().used(usage);
        self.send(Method::POST, "/usage", Some(&body), true).await
    }

    /// Reads one of the server's paths, `/limits?principal=…` say.
    ///
    /// # Errors
    /// Where there is no such answer.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, path, None, true).await
    }

    async fn answered(&self, path: &str, body: &Value, again: bool) -> Result<Answer, ClientError> {
        let answer = self.send(Method::POST, path, Some(body), again).await?;
        Answer::read(answer).ok_or_else(|| self.stranger())
    }

    fn stranger(&self) -> ClientError {
        ClientError::NotTollgate(self.transport.address().to_string())
    }

    /// Sends, again where that may be and may help.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>, again: bool) -> Result<Value, ClientError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (mut attempt, mut pause) = (1, PAUSE);
        let mut refused: Option<SecretText> = None;
        loop {
            let credential = match &self.credentials {
                Some(source) => Some(source.authorization(refused.as_ref()).await?),
                None => None,
            };
            let what = outgoing(method.clone(), &body, credential.as_ref())?;
            let answered = self.transport.send_to(path, what).await;
            if again && attempt < ATTEMPTS && may_pass(&answered) {
                tokio::time::sleep(pause).await;
                (attempt, pause) = (attempt + 1, pause * 4);
                continue;
            }
            let told = |error| ClientError::NoAnswer(self.transport.address().to_string(), error);
            let reply = answered.map_err(told)?;
            // Nothing was done yet; a newer credential may be had.
            if let Some(shown) = credential.filter(|_| reply.status == StatusCode::UNAUTHORIZED && refused.is_none()) {
                let source = self.credentials.as_ref().filter(|source| source.renews());
                if source.is_some() {
                    refused = Some(shown);
                    continue;
                }
            }
            return self.read(&reply);
        }
    }

    fn read(&self, reply: &Reply) -> Result<Value, ClientError> {
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        match body {
            Some(body) if reply.status == StatusCode::OK => Ok(body),
            None if reply.status == StatusCode::OK => Err(self.stranger()),
            body => {
                let server = self.transport.address();
                let said = |name: &str| body.as_ref()?.get("error")?.get(name)?.as_str().map(str::to_owned);
                let status = reply.status.as_u16();
                let message = said("message").unwrap_or_else(|| format!("{server} answered with {status}"));
                Err(ClientError::Refused {
                    status,
                    code: said("code").unwrap_or_default(),
                    message,
                    param: said("param"),
                })
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", self.transport.address()).finish_non_exhaustive()
    }
}

fn outgoing(method: Method, body: &str, credential: Option<&SecretText>) -> Result<Outgoing, CredentialError> {
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    }
    if let Some(credential) = credential {
        let mut value = HeaderValue::from_str(credential.expose()).map_err(|_| CredentialError::Form)?;
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
    }
    Ok(Outgoing { method, headers, body: Bytes::copy_from_slice(body.as_bytes()) })
}

/// Whether it may be otherwise in a moment: nothing came back, or whoever answers cannot do so now.
fn may_pass(answered: &Result<Reply, outgoing::ClientError>) -> bool {
    use outgoing::ClientError as Lack;
    match answered {
        Ok(reply) => matches!(reply.status.as_u16(), 502..=504),
        Err(Lack::Connect(_) | Lack::Proxy(_) | Lack::Http(_) | Lack::Late(_)) => true,
        Err(_) => false,
    }
}
