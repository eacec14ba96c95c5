//! Keys whose owner the bundle no longer declares. They are always refused. They are also marked, so that an operator
//! sees them, and revoked after a while, so that they do not become valid when another person gets the same id.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{details, next};
use crate::edge::http::services::{KeyService, KeyServiceOptions};
use crate::edge::identity::is_known_owner;
use crate::engine::Engine;
use crate::gate::{KeyWrite, KeyWriteError};
use crate::model::{KeyRecord, Revocation, Timestamp};
use crate::policy::Snapshot;

/// How often to check whether another bundle is active.
const LOOK: Duration = Duration::from_secs(1);
/// All keys are checked after this many looks even if the bundle is unchanged, since other nodes make keys and time
/// passes.
const LOOKS: u32 = 60;

/// Marks and revokes for as long as the server runs.
pub(in crate::edge::http) async fn follow(service: KeyService, engine: Engine) {
    let (mut seen, mut looks) = (Weak::<Snapshot>::new(), 0_u32);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(snapshot) = engine.snapshot() else { continue };
        looks += 1;
        if seen.as_ptr() == Arc::as_ptr(&snapshot) && looks < LOOKS {
            continue;
        }
        (seen, looks) = (Arc::downgrade(&snapshot), 0);
        sweep(&service, snapshot, engine.facts().now).await;
    }
}

/// The action to take on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Marked,
    Revoked,
    Freed,
}

async fn sweep(service: &KeyService, snapshot: Arc<Snapshot>, now: Timestamp) {
    let (keys, options) = (Arc::clone(&service.keys), service.options);
    // The keys are read on a thread that may block.
    let looked = tokio::task::spawn_blocking(move || {
        let mut found: Vec<(Arc<KeyRecord>, Fate)> = Vec::new();
        keys.each(&mut |key| {
            found.extend(fate(key, &snapshot, options, now).map(|fate| (Arc::clone(key), fate)));
        });
        found
    });
    for (key, fate) in looked.await.unwrap_or_default() {
        let mut changed = next(&key);
        let what = match fate {
            Fate::Marked => {
                details(&mut changed).orphaned_at = Some(now);
                "is no longer that of a declared owner"
            }
            Fate::Freed => {
                details(&mut changed).orphaned_at = None;
                "is that of a declared owner again"
            }
            Fate::Revoked => {
                let days = options.orphaned_for.as_secs() / (24 * 60 * 60);
                let reason = Some(format!("its owner has not been declared for {days} days").into());
                details(&mut changed).revoked = Some(Revocation { at: now, by: None, reason });
                "was revoked: its owner is no longer declared"
            }
        };
        match service.keys.write(KeyWrite::Change(changed)).await {
            Ok(()) => tell(&key, what),
            // Another writer, perhaps another node, has changed the key. The next look sees its new state.
            Err(KeyWriteError::Changed) => {}
            // The store fails: the next look tries again.
            Err(_) => return,
        }
    }
}

fn fate(key: &KeyRecord, snapshot: &Snapshot, options: KeyServiceOptions, now: Timestamp) -> Option<Fate> {
    if key.details().revoked.is_some() {
        return None;
    }
    let since = key.details().orphaned_at;
    if options.unknown_owners || is_known_owner(snapshot, &key.owner) {
        return since.map(|_| Fate::Freed);
    }
    let Some(since) = since else { return Some(Fate::Marked) };
    let waited = now.as_millis().saturating_sub(since.as_millis());
    let is_due = i128::from(waited) >= i128::try_from(options.orphaned_for.as_millis()).unwrap_or(i128::MAX);
    is_due.then_some(Fate::Revoked)
}

/// For the log.
fn tell(key: &KeyRecord, what: &str) {
    let (id, owner) = (key.id.as_str(), &key.owner);
    tracing::info!(target: "tollgate::identity", key = id, %owner, "the key {id} of {owner} {what}");
}
