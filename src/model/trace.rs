//! The id of the trace to which a request belongs, according to its caller. [W3C Trace
//! Context](https://www.w3.org/TR/trace-context/#traceparent-header)

use std::fmt;

use super::hex;

/// The id of a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The parts of a `traceparent` header, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The id of the trace: 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The id of the caller's span: 16 hexadecimal digits.
    pub parent_id: &'a str,
}

impl<'a> TraceParent<'a> {
    /// Reads the value of the header; `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id) = (digits(parts.next()?, 2)?, digits(parts.next()?, 32)?);
        let (parent_id, _flags) = (digits(parts.next()?, 16)?, digits(parts.next()?, 2)?);
        // Later versions may have more parts; version 00 has exactly these, and `ff` is invalid.
        let is_whole = version != "ff" && (version != "00" || parts.next().is_none());
        let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        (is_whole && !is_zero(trace_id) && !is_zero(parent_id)).then_some(Self { trace_id, parent_id })
    }

    /// The id of the trace.
    #[must_use]
    pub fn id(&self) -> Option<TraceId> {
        hex::decode(self.trace_id).map(TraceId)
    }
}

/// `text` if it has exactly `length` lower-case hexadecimal digits.
fn digits(text: &str, length: usize) -> Option<&str> {
    hex::is_lower(text, length).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn an_id_is_shown_as_it_was_written() {
        for trace_id in ["4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000001"] {
            let text = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", trace_id);
            let id = TraceParent::parse(&text).and_then(|parent| parent.id());
            assert_eq!(id.map(|id| id.to_string()).as_deref(), Some(trace_id));
        }
    }

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let (trace_id, parent_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let later = GOOD.replace("00-4b", "01-4b") + "-more";
        for text in [GOOD, &GOOD.replace("00-4b", "fe-4b"), &later] {
            assert_eq!(TraceParent::parse(text), Some(TraceParent { trace_id, parent_id }), "{text}");
        }
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4b", "ff-4b"),
            &GOOD.replace("00-4b", "0-4b"),
            &GOOD.replace(trace_id, &"0".repeat(32)),
            &GOOD.replace(parent_id, &"0".repeat(16)),
            &GOOD.replace("736-", "73-"),
            &GOOD.replace("2b7-01", "2b7-0x"),
            &GOOD.replace("2b7-01", "2b7"),
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!(" {GOOD}"),
            &GOOD.replace('-', "_"),
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
