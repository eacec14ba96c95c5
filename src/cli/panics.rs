//! What is told of a panic: where it was, and not with which values, since one of them may be a secret.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;

/// From now on panics of this process are told so, as long as nobody says otherwise. `RUST_BACKTRACE` adds the way there,
/// which has names of functions and no values.
pub fn tell_only_where() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
        let backtrace = Backtrace::capture();
        let way = match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        let told = format!("this should never happen, please report it: a panic at {place} (thread {thread})");
        if tracing::enabled!(target: "tollgate::panic", tracing::Level::ERROR) {
            let backtrace = Some(way.trim_start()).filter(|way| !way.is_empty());
            tracing::error!(target: "tollgate::panic", place, thread, backtrace, "{told}");
        } else {
            let _ = writeln!(std::io::stderr().lock(), "{told}{way}");
        }
    }));
}
