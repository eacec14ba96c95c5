//! The subscriber of the server: a `tracing-subscriber` registry with one layer, which writes each event as one line.

use std::io::Write as _;
use std::sync::Arc;

use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use super::line::{self, Record};
use super::{LogFormat, LogOptions};
use crate::gate::Clock;

/// The prefix of all targets of Tollgate. Its dependencies may log the data that they send and receive, including
/// credentials.
const OURS: &str = "tollgate";

/// Takes a line with its end.
type Output = Box<dyn Fn(&[u8]) + Send + Sync>;

struct LogLayer {
    options: LogOptions,
    clock: Arc<dyn Clock>,
    output: Output,
}

/// Writes the events of this process to stderr from now on. An existing subscriber stays in place.
pub fn install(options: LogOptions, clock: Arc<dyn Clock>) {
    let output = |line: &[u8]| {
        // A stderr that is closed or full is no reason to stop or to panic.
        let _unread = std::io::stderr().lock().write_all(line);
    };
    let _first = tracing::subscriber::set_global_default(subscriber(options, clock, output));
}

/// A subscriber that hands each line to `output`.
pub fn subscriber(
    options: LogOptions,
    clock: Arc<dyn Clock>,
    output: impl Fn(&[u8]) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    Registry::default().with(LogLayer { options, clock, output: Box::new(output) })
}

impl LogLayer {
    /// Spans are kept at every level: a warning about a request names its trace, whatever else is left out.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let most = if metadata.is_span() { Level::INFO } else { Level::ERROR };
        let is_ours =
            metadata.target().strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        is_ours && *metadata.level() <= self.options.level.filter().max(most)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.options.level.filter().max(Level::INFO)))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let record = Record { at: self.clock.now(), level, target, fields };
        let line = match self.options.format {
            LogFormat::Text => line::text(&record, self.options.colour),
            LogFormat::Json => line::json(&record),
        };
        (self.output)(line.as_bytes());
    }
}

#[cfg(test)]
mod tests;
