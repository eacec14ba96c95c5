//! The services that the HTTP server answers with. The caller of [`Server::bind`](super::Server::bind) builds them, so
//! that a service exists before the server and can be shared with other parts of the process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::edge::identity::{BasicProvider, identity_of_key};
use crate::edge::outgoing::Outbox;
use crate::edge::telemetry::metrics::Metrics;
use crate::engine::Engine;
use crate::gate::{Checkpoint, Keys, Manager, Notice, Passwords, StoreError, Tokens};
use crate::model::{EntityUid, Facts, Identity};
use crate::policy::Snapshot;

/// The services of the routes. A route without its service answers 404.
#[derive(Clone)]
pub struct Services {
    /// Makes the decisions.
    pub engine: Engine,
    /// The metrics of `/metrics`. A server registers its routes and pools, so two servers must not share them.
    pub metrics: Arc<Metrics>,
    /// Manages API keys: `/v1/keys`.
    pub keys: Option<KeyService>,
    /// Sets passwords: `/v1/users/{user}/password`. Callers are authorized as for keys, so this requires `keys`.
    pub passwords: Option<PasswordService>,
    /// The queue of alerts, which `/metrics` reports on.
    pub outbox: Option<Arc<Outbox<Notice>>>,
    /// The checkpoints of the decision log that wait to be sent, if a webhook receives them.
    pub checkpoints: Option<Arc<Outbox<Checkpoint>>>,
    /// Issues Tollgate's own tokens: `/v1/token`.
    pub tokens: Option<Arc<dyn Tokens>>,
}

impl Services {
    /// The services of a server that only decides.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            metrics: Arc::default(),
            keys: None,
            passwords: None,
            outbox: None,
            checkpoints: None,
            tokens: None,
        }
    }
}

/// Manages API keys.
#[derive(Clone)]
pub struct KeyService {
    /// The store.
    pub keys: Arc<dyn Keys>,
    /// The rules for new keys.
    pub options: KeyServiceOptions,
    /// Held while the keys of an owner are counted and another key is created.
    pub(super) creating: Arc<Mutex<()>>,
}

/// The rules for managed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyServiceOptions {
    /// Whether a key may have an owner that the bundle does not declare.
    pub unknown_owners: bool,
    /// The longest lifetime of a key that a person creates or prolongs with a token.
    pub session_key: Duration,
    /// How long after its owner was last declared a key is revoked.
    pub orphaned_for: Duration,
}

impl KeyService {
    /// A service for the keys of this store.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>, options: KeyServiceOptions) -> Self {
        Self { keys, options, creating: Arc::default() }
    }

    /// The rights of `identity` to manage keys, by this snapshot, at this instant and from this address.
    pub(super) fn manager<'a>(
        &self,
        snapshot: &'a Snapshot,
        facts: &'a Facts,
        identity: &'a Arc<Identity>,
        peer: Option<IpAddr>,
    ) -> Manager<'a> {
        let session_key_ms = i64::try_from(self.options.session_key.as_millis()).unwrap_or(i64::MAX);
        Manager { snapshot, facts, identity, peer, session_key_ms }
    }

    /// The identity of the key that `principal` names, even if the key is revoked or expired; `None` if the store has no
    /// such key.
    pub(super) fn identity(&self, principal: &EntityUid) -> Result<Option<Arc<Identity>>, StoreError> {
        let found = self.keys.find(principal.id())?.filter(|_| principal.kind() == "ApiKey");
        Ok(found.map(|record| Arc::new(identity_of_key(&record))))
    }
}

/// Sets and removes passwords.
#[derive(Clone)]
pub struct PasswordService {
    /// The store.
    pub passwords: Arc<dyn Passwords>,
    /// The providers that verify passwords: the first one hashes new passwords, and each knows the names whose password
    /// is configured outside the store.
    pub providers: Vec<Arc<BasicProvider>>,
    /// Held while a new password is hashed.
    pub(super) hashing: Arc<Mutex<()>>,
}

impl PasswordService {
    /// A service for the passwords of this store, which these providers verify.
    #[must_use]
    pub fn new(passwords: Arc<dyn Passwords>, providers: Vec<Arc<BasicProvider>>) -> Self {
        Self { passwords, providers, hashing: Arc::default() }
    }
}
