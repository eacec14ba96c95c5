//! The threads that calls of the decision service run on.
//!
//! A check runs on the thread that serves the connection, since it takes microseconds. An explanation takes milliseconds
//! and runs on a thread of its own. A call that counts runs to its end even if the client goes away, since no one else
//! would know what it reserved.

use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tracing::{Instrument as _, Span};

use super::app::App;
use super::errors::{ApiError, ErrorCode};
use super::guard;
use crate::pdp::{Answer, AuthorizeCall, Pdp};

/// Decides one call.
pub(super) async fn authorize(app: &Arc<App>, call: AuthorizeCall) -> Result<Answer, ApiError> {
    if call.explain {
        let runtime = Handle::current();
        let work = run_blocking(app, move |app| runtime.block_on(app.pdp().authorize(call)));
        return Box::pin(work).await?.map_err(ApiError::from);
    }
    if call.counts() {
        return Box::pin(run_uncancelled(app, |pdp| async move { Ok(pdp.authorize(call).await?) })).await;
    }
    Ok(app.pdp().authorize(call).await?)
}

/// Decides several calls.
pub(super) async fn authorize_batch(app: &Arc<App>, calls: Vec<AuthorizeCall>) -> Result<Vec<Answer>, ApiError> {
    if calls.iter().any(|call| call.explain) {
        let runtime = Handle::current();
        let work = move |app: &App| runtime.block_on(app.pdp().authorize_batch(calls));
        return run_blocking(app, work).await?.map_err(ApiError::from);
    }
    if calls.iter().any(AuthorizeCall::counts) {
        return run_uncancelled(app, |pdp| async move { Ok(pdp.authorize_batch(calls).await?) }).await;
    }
    Ok(app.pdp().authorize_batch(calls).await?)
}

/// Runs `work` to its end even if its caller stops waiting. Work that completes at its first poll needs no task.
pub(super) async fn run_uncancelled<T, W>(app: &Arc<App>, work: impl FnOnce(Pdp) -> W) -> Result<T, ApiError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let mut work = Box::pin(work(app.pdp().clone()));
    let first = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(done) => done,
        Poll::Pending => tokio::spawn(work.in_current_span()).await.map_err(|error| not_completed(app, &error))?,
    }
}

/// Runs `work` on a thread that serves no connections. As many run at once as there are cores.
pub(super) async fn run_blocking<T, F>(app: &Arc<App>, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&App) -> T + Send + 'static,
{
    run_blocking_with(app, &app.explaining, work).await
}

/// Runs `work` on a thread that serves no connections, with a permit of `pool`.
pub(super) async fn run_blocking_with<T, F>(app: &Arc<App>, pool: &Arc<Semaphore>, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&App) -> T + Send + 'static,
{
    let permit = Arc::clone(pool).acquire_owned().await.map_err(|_| shutting_down())?;
    let (shared, span) = (Arc::clone(app), Span::current());
    // The work holds the permit, since it goes on if its client goes away.
    let holding = move || {
        let _permit = permit;
        span.in_scope(|| work(&shared))
    };
    tokio::task::spawn_blocking(holding).await.map_err(|error| not_completed(app, &error))
}

/// The error for work of another task or thread that did not complete.
fn not_completed(app: &App, error: &JoinError) -> ApiError {
    if error.is_panic() { guard::panicked(app) } else { shutting_down() }
}

fn shutting_down() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the server is about to end")
}
