//! The connection: one to a single Redis, or those to a cluster. It comes back by itself, and nobody waits for longer
//! than the timeout.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{Cmd, RedisError as Failure, RedisResult, Value};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::{RedisError, RedisOptions};
use crate::gate::StoreError;

/// How a Redis is reached.
pub(super) struct Link {
    reach: Reach,
    pub(super) timeout: Duration,
}

enum Reach {
    Single(ConnectionManager),
    Cluster(Box<Cluster>),
}

struct Cluster {
    client: ClusterClient,
    connection: Mutex<Option<ClusterConnection>>,
}

impl Link {
    /// A connection with a thread of its own, called `name`, which it lives on. Connects to nothing yet.
    ///
    /// # Errors
    /// Where the address is none, or there is no thread.
    pub(super) fn on_thread(options: &RedisOptions, name: &str) -> Result<(Self, Runtime), RedisError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name(name).enable_all().build();
        let runtime = built.map_err(|error| RedisError::Thread(error.to_string()))?;
        let link = {
            let _on = runtime.enter();
            Self::new(options)?
        };
        Ok((link, runtime))
    }

    /// Within the runtime that the connection is to live on.
    fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        let wrong = |error: Failure| RedisError::Url(error.to_string());
        let timeout = options.timeout;
        let reach = if options.cluster {
            let urls = options.url.expose().split(',').map(str::trim).filter(|url| !url.is_empty());
            let client = ClusterClient::builder(urls)
                .connection_timeout(timeout)
                .response_timeout(timeout)
                // What timed out may have been done: it is not sent again, except where it went astray.
                .retries(2)
                .build()
                .map_err(wrong)?;
            Reach::Cluster(Box::new(Cluster { client, connection: Mutex::new(None) }))
        } else {
            let client = ::redis::Client::open(options.url.expose()).map_err(wrong)?;
            // For an answer `send` waits no longer than the timeout.
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(None)
                .set_max_delay(timeout)
                .set_number_of_retries(1);
            Reach::Single(ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?)
        };
        Ok(Self { reach, timeout })
    }

    /// Sends a command and waits for what comes back, but not for long.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        match tokio::time::timeout(self.timeout, self.sent(command)).await {
            Ok(Ok(value)) => value.extract_error().map_err(|failure| Trouble::of(&failure)),
            Ok(Err(failure)) => Err(Trouble::of(&failure)),
            Err(_elapsed) => {
                Err(Trouble::Store(StoreError::Away(format!("nothing within {} ms", self.timeout.as_millis()).into())))
            }
        }
    }

    async fn sent(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.reach {
            Reach::Single(manager) => manager.clone().req_packed_command(command).await,
            Reach::Cluster(cluster) => {
                let mut known = cluster.connection.lock().await;
                let mut connected = match &*known {
                    Some(connected) => connected.clone(),
                    None => known.insert(cluster.client.get_async_connection().await?).clone(),
                };
                drop(known);
                connected.req_packed_command(command).await
            }
        }
    }
}

/// What went wrong with a command.
pub(super) enum Trouble {
    /// The script is not there: it has to be sent.
    NoScript,
    /// The user is not allowed to run the command, or the command is disabled.
    Forbidden(Arc<str>),
    /// Anything else.
    Store(StoreError),
}

impl Trouble {
    fn of(failure: &Failure) -> Self {
        let told: Arc<str> = failure.to_string().into();
        match failure.code() {
            Some("NOSCRIPT") => Self::NoScript,
            Some("NOPERM") => Self::Forbidden(told),
            _ if told.contains("unknown command") => Self::Forbidden(told),
            Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS") => Self::Store(StoreError::NotWritten(told)),
            _ => Self::Store(StoreError::Away(told)),
        }
    }

    /// For commands that are no scripts.
    pub(super) fn into_store(self) -> StoreError {
        match self {
            Self::NoScript => StoreError::Away("it forgets scripts at once".into()),
            Self::Forbidden(told) => StoreError::Away(told),
            Self::Store(error) => error,
        }
    }
}
