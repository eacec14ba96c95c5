//! The last net: what should never happen is an error that tells nothing, and ends neither the server nor the connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use super::app::App;
use super::errors::{ApiError, ErrorCode};

/// Polls `work` to its end; a panic is an error.
pub(super) async fn guarded_async<T>(
    app: &App,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))).unwrap_or_else(|_| Poll::Ready(Err(panicked(app))))
    })
    .await
}

/// Counts a panic, and makes the error for its client.
pub(super) fn panicked(app: &App) -> ApiError {
    app.metrics.panicked();
    ApiError::new(ErrorCode::Unavailable, "no decision could be made; the server's log says why")
}
