//! Alerts to whoever wants them, as signed posts: from a queue that is bounded, by a task of its own, so that no request
//! ever waits for it. What is not taken is sent again, later each time, and in the end given up and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::sync::Notify;

use super::client::{Client, ClientError, Outgoing};
use super::secret::Secret;
use crate::edge::random;
use crate::gate::{Clock, Notice};
use crate::model::hex;

/// The header of the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-tollgate-signature");
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How alerts are sent.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// What they are signed with.
    pub secret: Secret,
    /// What this server is called in them.
    pub node: String,
    /// How often each is sent at most.
    pub attempts: usize,
    /// The pause after the first attempt; each one after that is twice as long.
    pub pause: Duration,
}

/// What became of alerts.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    retried: AtomicU64,
}

impl Counts {
    /// Those that were taken, given up, pushed out of a full queue, and how often one was sent again.
    #[must_use]
    pub fn read(&self) -> [u64; 4] {
        [&self.delivered, &self.failed, &self.dropped, &self.retried].map(|count| count.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Alerts that wait to be sent; when it is full, the oldest makes room.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<Waiting>,
    most: usize,
    /// Something came.
    came: Notify,
    /// Nothing is left.
    emptied: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    /// Whether one is being sent.
    sending: bool,
}

impl Outbox {
    /// One with room for `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let (state, counts) = (Mutex::default(), Counts::default());
        Self { state, most: most.max(1), came: Notify::new(), emptied: Notify::new(), counts }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock()
    }

    /// Puts one in; never waits.
    pub fn put(&self, notice: Notice) {
        let mut state = self.lock();
        if state.notices.len() >= self.most {
            state.notices.pop_front();
            count(&self.counts.dropped);
        }
        state.notices.push_back(notice);
        drop(state);
        self.came.notify_one();
    }

    /// What became of them.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many are waiting, the one that is being sent among them.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.notices.len() + usize::from(state.sending)
    }

    /// How many may wait.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.most
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Until none is.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }

    async fn next(&self) -> Notice {
        loop {
            {
                let mut state = self.lock();
                let next = state.notices.pop_front();
                state.sending = next.is_some();
                if let Some(next) = next {
                    return next;
                }
            }
            self.emptied.notify_one();
            self.came.notified().await;
        }
    }
}

/// Sends what is in an outbox.
pub struct Webhook {
    outbox: Arc<Outbox>,
    client: Client,
    options: WebhookOptions,
    clock: Arc<dyn Clock>,
    begin_attempt: Option<BeginAttempt>,
}

/// Called when an attempt begins; the result is called when it ends, with the status of the response if there was one.
pub type BeginAttempt = Box<dyn Fn() -> EndAttempt + Send + Sync>;
/// See [`BeginAttempt`].
pub type EndAttempt = Box<dyn FnOnce(Option<u16>) + Send>;

#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    /// The same each time that the same alert is sent.
    id: String,
    limit: &'a str,
    meter: Option<&'a str>,
    percent: u8,
    unit: &'static str,
    amounts: Amounts,
    resets_at: Option<String>,
    at: String,
    revision: &'a str,
    node: &'a str,
}

#[derive(Serialize)]
struct Amounts {
    limit: String,
    used: String,
    held: String,
    remaining: String,
}

impl Webhook {
    /// Sends from `outbox` by `client`.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, client: Client, options: WebhookOptions, clock: Arc<dyn Clock>) -> Self {
        Self { outbox, client, options, clock, begin_attempt: None }
    }

    /// Calls `begin` for each attempt to send an alert.
    #[must_use]
    pub fn on_attempt(self, begin: BeginAttempt) -> Self {
        Self { begin_attempt: Some(begin), ..self }
    }

    /// Sends, one after the other, for as long as it is let.
    pub async fn run(self) {
        loop {
            let notice = self.outbox.next().await;
            let counts = self.outbox.counts();
            match self.deliver(&notice).await {
                Ok(()) => count(&counts.delivered),
                Err(reason) => {
                    count(&counts.failed);
                    let (limit, percent) = (&notice.alert.limit, notice.alert.percent);
                    tracing::warn!(
                        target: "tollgate::alerts",
                        limit = limit.as_str(),
                        percent,
                        "the alert that limit {limit} reached {percent} % was not taken: {reason}",
                    );
                }
            }
        }
    }

    async fn deliver(&self, notice: &Notice) -> Result<(), String> {
        let body: Arc<[u8]> = self.body(notice).into();
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
            count(&self.outbox.counts().retried);
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

    fn body(&self, notice: &Notice) -> Vec<u8> {
        let (alert, standing) = (&notice.alert, &notice.alert.standing);
        let show = |amount| alert.unit.show(amount).to_string();
        let body = Body {
            event: "limit_warning",
            id: format!("a-{}", hex::encode(&random::bytes::<16>())),
            limit: &alert.limit,
            meter: alert.subject.as_deref(),
            percent: alert.percent,
            unit: alert.unit.as_str(),
            amounts: Amounts {
                limit: show(standing.cap),
                used: show(standing.used),
                held: show(standing.held),
                remaining: show(standing.remaining()),
            },
            resets_at: standing.resets_at.map(|at| at.to_string()),
            at: notice.at.to_string(),
            revision: &notice.revision,
            node: &self.options.node,
        };
        // Texts and numbers always become JSON.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Whether the same may be taken later.
fn may_change(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Up to so much, so that many servers do not come back at once.
fn some_of(most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::from_le_bytes(random::bytes()).checked_rem(nanos).unwrap_or(0))
}
