//! The log of refused credentials: a line each while they are few, and a sum of them where somebody tries many.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::model::{Refusal, RefusalReason};

/// Lines of their own within [`WINDOW`]; all others are summed up at its end.
const MOST_LINES: u32 = 20;
/// For how long they are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// What was told lately, and what is still to be told.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    lines: u32,
    untold: [u64; RefusalReason::ALL.len()],
}

impl RefusalLog {
    /// A credential proved nobody.
    pub(super) fn tell(&self, refusal: &Refusal, source: Option<IpAddr>, now: Instant) {
        let mut state = self.lock();
        let open = state.began.is_some_and(|began| now.saturating_duration_since(began) < WINDOW);
        if !open {
            (state.began, state.lines) = (Some(now), 0);
        }
        if state.lines < MOST_LINES {
            state.lines += 1;
            drop(state);
            return log(refusal, source);
        }
        let first = state.untold.iter().all(|count| *count == 0);
        let at = RefusalReason::ALL.iter().position(|known| *known == refusal.reason);
        if let Some(count) = at.and_then(|at| state.untold.get_mut(at)) {
            *count += 1;
        }
        drop(state);
        if first {
            let shared = Self(Arc::clone(&self.0));
            tokio::spawn(async move {
                tokio::time::sleep(WINDOW).await;
                shared.sum_up();
            });
        }
    }

    fn sum_up(&self) {
        let untold = std::mem::take(&mut self.lock().untold);
        let refused: u64 = untold.iter().sum();
        if let Some(text) = sum(&untold) {
            tracing::info!(target: "tollgate::identity", refused, "{text}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

fn log(refusal: &Refusal, source: Option<IpAddr>) {
    tracing::info!(
        target: "tollgate::identity",
        reason = refusal.reason.as_str(),
        source = source.map(display),
        about = refusal.about.as_deref(),
        "refused a credential",
    );
}

/// `refused 12 more credentials: wrong 10, expired 2`.
fn sum(untold: &[u64]) -> Option<String> {
    let all: u64 = untold.iter().sum();
    if all == 0 {
        return None;
    }
    let mut text = format!("refused {all} more credentials");
    let counted = RefusalReason::ALL.iter().zip(untold).filter(|(_, count)| **count > 0);
    for (number, (reason, count)) in counted.enumerate() {
        let between = if number == 0 { ":" } else { "," };
        let _ = write!(text, "{between} {} {count}", reason.as_str());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_summed_up() {
        let mut untold = [0; RefusalReason::ALL.len()];
        assert_eq!(sum(&untold), None);
        (untold[2], untold[6]) = (10, 2);
        assert_eq!(sum(&untold).as_deref(), Some("refused 12 more credentials: wrong 10, expired 2"));
    }
}
