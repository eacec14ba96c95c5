//! Opens the store of meters, and logs whether the Redis that nodes share fails.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::edge::clock::SystemClock;
use crate::edge::store::{Embedded, Fallback, Leases, Memory, Redis};
use crate::edge::telemetry::metrics::Metrics;
use crate::gate::{Clock as _, Meters, StoreError};

/// The label of the store of meters, as `tollgate_store_up` has it.
const METERS: &str = "meters";
/// The explanation that is logged with the reason when a Redis has lost its state.
const LOST_STATE: &str = "meters resume by themselves within a second after the operator has accepted the present \
                          state, since `on_store_error` decides meanwhile; keys, passwords and tokens in this Redis \
                          wait for a restart of each node, since revocations may be lost";
/// How often the Redis is checked.
const WATCH: Duration = Duration::from_secs(1);

/// The meters, and the leases on those that nodes share.
pub(super) type Opened = (Arc<dyn Meters>, Option<Arc<Leases>>);

/// Opens the store: the Redis if one is configured, else the data directory, or memory if the meters need not outlive the
/// process. The leases of a node are returned so that it can give them back when it stops.
///
/// # Errors
/// With the reason, if the store cannot be opened.
pub(super) fn open(settings: &Settings, metrics: &Metrics) -> Result<Opened, Box<dyn std::error::Error>> {
    if settings.meters_in_memory {
        return Ok((metrics.meters(METERS, Arc::new(Memory::default())), None));
    }
    let Some(options) = settings.redis() else {
        let embedded = Embedded::open(&settings.data, SystemClock.now())?;
        return Ok((fallback(metrics, metrics.meters(METERS, Arc::new(embedded))), None));
    };
    let redis = Arc::new(Redis::open(&options)?);
    watch(&redis)?;
    let leases = Arc::new(Leases::new(metrics.meters(METERS, redis)));
    Ok((fallback(metrics, Arc::clone(&leases) as Arc<dyn Meters>), Some(leases)))
}

/// `store`, with the node's own meters for the time that it fails.
fn fallback(metrics: &Metrics, store: Arc<dyn Meters>) -> Arc<dyn Meters> {
    let fallback = Arc::new(Fallback::new(store));
    super::metrics::fallback(metrics, &fallback);
    fallback
}

/// Logs that the Redis fails, with the remedy, and that it answers again. The server starts without it: `on_store_error` of
/// each limit decides meanwhile.
fn watch(redis: &Arc<Redis>) -> std::io::Result<()> {
    let (mut fails, mut is_lost) = (false, false);
    let mut look = move |redis: &Redis| match pollster::block_on(redis.check()) {
        Err(error @ StoreError::Lost(_)) if !is_lost => {
            tracing::error!(target: "tollgate::store", "the Redis of the meters failed: {error}; {LOST_STATE}");
            (fails, is_lost) = (true, true);
        }
        Err(error) if !fails => {
            tracing::warn!(target: "tollgate::store", "the Redis of the meters failed: {error}");
            fails = true;
        }
        Ok(()) if fails => {
            tracing::info!(target: "tollgate::store", "the Redis of the meters answers again");
            (fails, is_lost) = (false, false);
        }
        _ => {}
    };
    look(redis);
    let watched = Arc::downgrade(redis);
    let watching = move || {
        while let Some(redis) = watched.upgrade() {
            look(&redis);
            drop(redis);
            std::thread::sleep(WATCH);
        }
    };
    std::thread::Builder::new().name("redis-watch".to_owned()).spawn(watching).map(drop)
}
