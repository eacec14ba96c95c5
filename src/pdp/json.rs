//! The JSON form of answers (`POST /is_authorized`), written from borrowed data. The core's types are not serializable,
//! so the wire form changes only here. The store keeps the answer of a keyed reservation in the same form.
//!
//! Nearly every response is written here, so it is written byte by byte into one buffer: that takes a third of the time
//! of a serializer.

use std::fmt::{self, Write as _};

use crate::gate::{CandidatesDecision, DecisionId as Id};
use crate::model::json_text::escape;
use crate::model::{CandidateDecision, Decision, EntityUid, EvaluationError, LimitStanding, Refusal, RuleReference};

/// Writes the answer about one resource.
pub(super) fn write(out: &mut Vec<u8>, id: Id, decision: &Decision) {
    let mut json = Json(out);
    json.raw(r#"{"decision":""#).raw(decision.outcome.as_str());
    json.id(id).raw(r#","revision":"#).text(&decision.revision);
    json.who(&decision.principal, decision.key.as_ref(), &decision.action);
    json.raw(r#","resource":"#).uid(&decision.resource);
    json.raw(r#","rules":"#).list(&decision.rules, Json::rule);
    json.raw(r#","code":""#).raw(decision.code.as_str()).raw(r#"","message":"#).message(Some(decision));
    json.limits(Some(decision));
    json.raw(r#","errors":"#).list(&decision.errors, Json::error);
    json.end(decision.hint.as_deref());
}

/// Writes the answer about a list.
pub(super) fn write_candidates(out: &mut Vec<u8>, id: Id, decision: &CandidatesDecision, hint: Option<&str>) {
    let deciding = decision.deciding();
    let all = decision.router.iter().chain(decision.candidates.iter().map(|one| &one.decision));
    let mut json = Json(out);
    json.raw(r#"{"decision":""#).raw(decision.outcome.as_str());
    json.id(id).raw(r#","revision":"#).text(&decision.revision);
    json.who(&decision.principal, decision.key.as_ref(), &decision.action);
    if let Some(router) = &decision.router {
        json.raw(r#","resource":"#).uid(&router.resource);
    }
    json.raw(r#","permitted":"#).list(decision.permitted(), Json::uid);
    json.raw(r#","candidates":"#).list(&decision.candidates, Json::candidate);
    json.raw(r#","rules":"#).list(deciding.map_or(&[][..], |deciding| &deciding.rules), Json::rule);
    json.raw(r#","code":""#).raw(decision.code.as_str()).raw(r#"","message":"#).message(deciding);
    json.limits(deciding);
    json.raw(r#","errors":"#).list(all.flat_map(|one| &one.errors), Json::error);
    json.end(hint);
}

/// The question of a caller whose credential was refused.
pub(super) struct RefusedQuestion<'a> {
    pub(super) action: &'a str,
    /// The resource; of a list of candidates, its router.
    pub(super) resource: Option<&'a EntityUid>,
    pub(super) candidates: Option<&'a [EntityUid]>,
}

/// Writes the answer to a refused credential.
pub(super) fn write_refused(
    out: &mut Vec<u8>,
    id: Id,
    revision: &str,
    question: &RefusedQuestion<'_>,
    refusal: &Refusal,
) {
    let code = refusal.reason.code().as_str();
    let mut json = Json(out);
    json.raw(r#"{"decision":"forbid"#).id(id).raw(r#","revision":"#).text(revision);
    json.raw(r#","principal":null,"action":"#).text(question.action);
    if let Some(resource) = question.resource {
        json.raw(r#","resource":"#).uid(resource);
    }
    if let Some(candidates) = question.candidates {
        json.raw(r#","permitted":[],"candidates":"#).list(candidates, |json, candidate| {
            json.raw(r#"{"resource":"#).uid(candidate);
            json.raw(r#","decision":"forbid","code":""#).raw(code).raw(r#"","rules":[]}"#);
        });
    }
    json.raw(r#","rules":[],"code":""#).raw(code).raw(r#"","message":"#).text(&refusal.message);
    json.raw(r#","limits":[],"not_held":[]"#).retry_after(refusal.retry_after_seconds);
    json.raw(r#","errors":[]}"#);
}

/// JSON at the end of a buffer. What is written as [`fmt::Write`] stands within a text.
struct Json<'o>(&'o mut Vec<u8>);

impl Json<'_> {
    /// What is JSON as it stands.
    fn raw(&mut self, text: &'static str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        escape(text, self.0);
        self.0.push(b'"');
        self
    }

    fn shown(&mut self, what: impl fmt::Display) -> &mut Self {
        // Writing to a buffer does not fail.
        let _written = write!(self, "{what}");
        self
    }

    fn id(&mut self, id: Id) -> &mut Self {
        self.raw(r#"","id":""#).shown(id).raw("\"")
    }

    fn who(&mut self, principal: &EntityUid, key: Option<&EntityUid>, action: &str) {
        self.raw(r#","principal":"#).uid(principal);
        if let Some(key) = key {
            self.raw(r#","key":"#).uid(key);
        }
        self.raw(r#","action":"#).text(action);
    }

    fn uid(&mut self, uid: &EntityUid) {
        self.raw(r#"{"type":"#).text(uid.kind()).raw(r#","id":"#).text(uid.id()).raw("}");
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut Self, T)) -> &mut Self {
        self.raw("[");
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.raw(",");
            }
            one(self, item);
        }
        self.raw("]")
    }

    fn rule(&mut self, rule: &RuleReference) {
        self.raw(r#"{"id":"#).text(&rule.id);
        self.raw(r#","effect":""#).raw(rule.effect.as_str()).raw("\"").place(rule).raw("}");
    }

    fn error(&mut self, error: &EvaluationError) {
        self.raw(r#"{"rule":"#).text(&error.rule.id).place(&error.rule);
        self.raw(r#","message":"#).text(&error.message).raw("}");
    }

    fn place(&mut self, rule: &RuleReference) -> &mut Self {
        self.raw(r#","file":"#).text(&rule.file).raw(r#","line":"#).shown(rule.line)
    }

    fn candidate(&mut self, one: &CandidateDecision) {
        self.raw(r#"{"resource":"#).uid(&one.resource);
        self.raw(r#","decision":""#).raw(one.decision.outcome.as_str());
        self.raw(r#"","code":""#).raw(one.decision.code.as_str());
        self.raw(r#"","rules":"#).list(&one.decision.rules, Json::rule).raw("}");
    }

    fn message(&mut self, decision: Option<&Decision>) -> &mut Self {
        self.raw("\"");
        let _written = decision.map(|decision| decision.write_message(self));
        self.raw("\"")
    }

    /// Where the limits stand, and what is held or is not.
    fn limits(&mut self, decision: Option<&Decision>) {
        self.raw(r#","limits":"#).list(decision.map_or(&[][..], |decision| &decision.limits), Json::limit);
        self.raw(r#","not_held":"#);
        self.list(decision.map_or(&[][..], |decision| &decision.not_held), |json, id| {
            json.text(id);
        });
        if let Some(reservation) = decision.and_then(|decision| decision.reservation.as_ref()) {
            self.raw(r#","reservation":{"id":"#).text(&reservation.id);
            self.raw(r#","expires_at":""#).shown(reservation.expires_at).raw("\"}");
        }
        self.retry_after(decision.and_then(|decision| decision.retry_after_seconds));
    }

    fn retry_after(&mut self, seconds: Option<u64>) {
        if let Some(seconds) = seconds {
            self.raw(r#","retry_after_seconds":"#).shown(seconds);
        }
    }

    fn limit(&mut self, one: &LimitStanding) {
        self.raw(r#"{"id":"#).text(&one.id).raw(r#","meter":"#);
        match &one.meter {
            Some(meter) => self.text(meter),
            None => self.raw("null"),
        };
        self.raw(r#","unit":""#).raw(one.unit.as_str()).raw("\"");
        let amounts = [
            (r#","limit":""#, one.limit),
            (r#"","used":""#, one.used),
            (r#"","held":""#, one.held),
            (r#"","remaining":""#, one.remaining()),
        ];
        for (name, amount) in amounts {
            self.raw(name).shown(one.unit.show(amount));
        }
        match one.resets_at {
            Some(resets_at) => self.raw(r#"","resets_at":""#).shown(resets_at).raw("\"}"),
            None => self.raw(r#"","resets_at":null}"#),
        };
    }

    fn end(&mut self, hint: Option<&str>) {
        if let Some(hint) = hint {
            self.raw(r#","hint":"#).text(hint);
        }
        self.raw("}");
    }
}

impl fmt::Write for Json<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_it_was() {
        let every: String = (0..0x300).filter_map(char::from_u32).collect();
        for text in ["", "plain", "a \"b\" \\ c", "日本語 😀", &every] {
            let mut out = Vec::new();
            Json(&mut out).text(text);
            assert_eq!(serde_json::from_slice::<String>(&out).ok().as_deref(), Some(text));
        }
    }
}
