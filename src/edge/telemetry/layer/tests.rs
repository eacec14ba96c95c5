#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::edge::telemetry::LogLevel;
use crate::model::Timestamp;

struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

/// What `work` logs.
fn logged(format: LogFormat, level: LogLevel, work: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    let options = LogOptions { format, level, colour: false };
    let output = move |line: &[u8]| shared.lock().unwrap().extend_from_slice(line);
    tracing::subscriber::with_default(subscriber(options, Arc::new(At(1_500)), output), work);
    let lines = lines.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

#[test]
fn a_line_has_time_level_message_and_the_fields_of_its_spans() {
    let work = || {
        let span = tracing::info_span!(target: "tollgate::http", "request", route = "/usage", trace_id = "4b", own = 1);
        let _within = span.enter();
        tracing::warn!(target: "tollgate::limits", limit = "spend", percent = 80_u64, own = 2, ok = true, "is full");
    };
    assert_eq!(
        logged(LogFormat::Text, LogLevel::Info, work),
        "1970-01-01T00:00:01.500Z warning: is full limit=spend percent=80 own=2 ok=true route=/usage trace_id=4b\n"
    );
    let line: Value = serde_json::from_str(&logged(LogFormat::Json, LogLevel::Info, work)).unwrap();
    let expected = json!({
        "timestamp": "1970-01-01T00:00:01.500Z", "level": "warn", "target": "tollgate::limits", "message": "is full",
        "limit": "spend", "percent": 80, "own": 2, "ok": true, "route": "/usage", "trace_id": "4b",
    });
    assert_eq!(line, expected);
}

/// For every value, a record is one line, and a JSON reader gets the value back.
#[test]
fn no_value_ends_a_line_or_reaches_a_terminal() {
    let evil = "a\r\nerror: forged \u{1b}[31mred\u{9b}0m \u{2028}\u{2029}\u{85}\u{7f}\0 \u{202e}\u{200b}\u{e0041} \"q\" \\ \t é 模型";
    let work = || tracing::error!(target: "tollgate::bundle", name = evil, "in the message: {evil}");
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(format, LogLevel::Info, work);
        let inside = line.strip_suffix('\n').unwrap();
        let is_harmless =
            |next: char| !next.is_control() && !matches!(next, '\u{2028}' | '\u{2029}' | '\u{202e}' | '\u{200b}');
        assert!(inside.chars().all(is_harmless), "{line}");
        assert!(inside.contains('é') && inside.contains("模型"), "what is seen stays: {line}");
    }
    let line: Value = serde_json::from_str(&logged(LogFormat::Json, LogLevel::Info, work)).unwrap();
    assert_eq!((&line["name"], &line["message"]), (&json!(evil), &json!(format!("in the message: {evil}"))));
}

#[test]
fn a_value_in_text_is_one_word_or_in_quotes() {
    let work = || {
        let (principal, forged, empty) = ("User::\"alice\"", "x level=error", "");
        tracing::info!(target: "tollgate::http", principal, forged, empty, quoted = "\"a\"", path = "C:\\x", "m");
    };
    let line = logged(LogFormat::Text, LogLevel::Info, work);
    let fields = r#"info: m principal=User::"alice" forged="x level=error" empty="" quoted="\"a\"" path="C:\\x""#;
    assert!(line.ends_with(&format!("{fields}\n")), "{line}");
}

#[test]
fn a_value_of_any_length_makes_a_line_of_bounded_length() {
    let long = "é".repeat(1 << 20);
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(format, LogLevel::Info, || {
            tracing::info!(target: "tollgate::http", text = &*long, shown = %long, debug = ?long, "m");
        });
        assert!(line.len() < 4 * crate::edge::telemetry::fields::MAX_TEXT_BYTES, "{}", line.len());
        assert_eq!(line.matches('…').count(), 3);
    }
}

/// Credentials may stand in what libraries below log of their requests.
#[test]
fn only_events_of_tollgate_at_the_level_are_logged() {
    let work = || {
        tracing::error!(target: "hyper::client", "not ours");
        tracing::error!(target: "tollgates", "not ours");
        tracing::error!(target: "tollgate::http", "at error");
        tracing::warn!(target: "tollgate::http", "at warn");
        tracing::info!(target: "tollgate::http", "at info");
        tracing::debug!(target: "tollgate::http", "at debug");
        tracing::trace!(target: "tollgate::http", "at trace");
    };
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    for (number, level) in levels.into_iter().enumerate() {
        let lines = logged(LogFormat::Json, level, work);
        let messages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<&str> = messages.iter().map(|line| line["message"].as_str().unwrap()).collect();
        let expected = ["at error", "at warn", "at info", "at debug", "at trace"];
        assert_eq!(messages, expected[..=number], "{level:?}");
    }
}

#[test]
fn a_request_is_named_by_the_lines_of_every_level() {
    let lines = logged(LogFormat::Text, LogLevel::Error, || {
        let span = tracing::info_span!(target: "tollgate::http", "request", decision_id = tracing::field::Empty);
        let _within = span.enter();
        crate::pdp::events::decision("d-1", "r1");
        crate::pdp::events::decision("d-2", "r1");
        tracing::error!(target: "tollgate::http", "m");
    });
    assert!(lines.ends_with("error: m decision_id=d-2\n"), "the newest counts, and no field is made up: {lines}");
}
