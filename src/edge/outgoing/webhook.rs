//! A webhook: sends the events of an outbox as signed POST requests, one after the other. An event that is not accepted is
//! sent again after growing pauses, and given up after the last attempt. No request waits for this.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::client::{Client, ClientError, Outgoing};
use super::outbox::Outbox;
use super::secret::Secret;
use crate::edge::random;
use crate::gate::Clock;

/// The header of the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-tollgate-signature");
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How events are sent.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// The secret that they are signed with.
    pub secret: Secret,
    /// The name of this server in them.
    pub node: String,
    /// The maximum number of attempts for each event.
    pub attempts: usize,
    /// The pause after the first attempt; each one after that is twice as long.
    pub pause: Duration,
}

/// An event that a webhook sends.
pub trait WebhookEvent: Send + Sync + 'static {
    /// The JSON body of its request, the same for every attempt. `node` is the name of this server.
    fn body(&self, node: &str) -> Vec<u8>;

    /// Logs that the event was given up for this reason.
    fn log_failure(&self, reason: &str);
}

/// Sends the events of an outbox.
pub struct Webhook<E> {
    outbox: Arc<Outbox<E>>,
    client: Client,
    options: WebhookOptions,
    clock: Arc<dyn Clock>,
    begin_attempt: Option<BeginAttempt>,
}

/// Called when an attempt begins; the result is called when it ends, with the status of the response if there was one.
pub type BeginAttempt = Box<dyn Fn() -> EndAttempt + Send + Sync>;
/// See [`BeginAttempt`].
pub type EndAttempt = Box<dyn FnOnce(Option<u16>) + Send>;

impl<E: WebhookEvent> Webhook<E> {
    /// Sends from `outbox` through `client`.
    #[must_use]
    pub fn new(outbox: Arc<Outbox<E>>, client: Client, options: WebhookOptions, clock: Arc<dyn Clock>) -> Self {
        Self { outbox, client, options, clock, begin_attempt: None }
    }

    /// Calls `begin` for each attempt to send an event.
    #[must_use]
    pub fn on_attempt(self, begin: BeginAttempt) -> Self {
        Self { begin_attempt: Some(begin), ..self }
    }

    /// Sends events, one after the other, until the future is dropped.
    pub async fn run(self) {
        loop {
            let event = self.outbox.next().await;
            let counts = self.outbox.counts();
            match self.deliver(&event).await {
                Ok(()) => counts.count_delivered(),
                Err(reason) => {
                    counts.count_failed();
                    event.log_failure(&reason);
                }
            }
        }
    }

    async fn deliver(&self, event: &E) -> Result<(), String> {
        let body: Arc<[u8]> = event.body(&self.options.node).into();
        let mut pause = self.options.pause;
        let mut attempt = 1;
        loop {
            let reason = match self.attempt(&body).await {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) if !may_change(status) => return Err(format!("it was answered with {}", status.as_u16())),
                Ok(status) => format!("it was answered with {}", status.as_u16()),
                Err(error) => error.to_string(),
            };
            if attempt >= self.options.attempts {
                return Err(format!("{reason} (attempt {attempt}, the last)"));
            }
            attempt += 1;
            self.outbox.counts().count_retried();
            tokio::time::sleep(pause + some_of(pause / 4)).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, body: &Arc<[u8]>) -> Result<StatusCode, ClientError> {
        let signature = self.options.secret.signature(self.clock.now().as_millis().div_euclid(1000), body);
        let signature = HeaderValue::from_str(&signature).map_err(|error| ClientError::Http(error.to_string()))?;
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json")), (SIGNATURE, signature)];
        let what = Outgoing { method: Method::POST, headers, body: body.to_vec().into() };
        let end = self.begin_attempt.as_ref().map(|begin| begin());
        let reply = self.client.send(what).await;
        if let Some(end) = end {
            end(reply.as_ref().ok().map(|reply| reply.status.as_u16()));
        }
        Ok(reply?.status)
    }
}

/// Whether the receiver may accept the event later.
fn may_change(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Up to so much, so that many servers do not come back at once.
fn some_of(most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::from_le_bytes(random::bytes()).checked_rem(nanos).unwrap_or(0))
}
