//! Signals that the server handles.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::engine::Engine;

/// How long a SIGHUP waits before the reload continues in the background.
const RELOAD_WAIT: Duration = Duration::from_secs(30);

/// The signals that stop the server: SIGTERM and SIGINT.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!(target: "tollgate::server", "stopping: no new connections are accepted, requests in flight finish");
    }
}

/// Reloads the bundle at each SIGHUP.
pub(super) async fn follow_hangups(engine: Engine, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        let engine = engine.clone();
        // The result is logged like that of any load.
        let _logged = tokio::task::spawn_blocking(move || engine.reload(RELOAD_WAIT)).await;
    }
}
