//! A record as a line of JSON, without its head (`v`, `seq`, `prev`), which the writer puts before it.

use smol_str::SmolStr;

use super::chain;
use super::json::Json;
use super::mask::Mask;
use crate::gate::{Decided, DecisionRecord, Reserve, Seen, Unproved};
use crate::model::hex;
use crate::model::{
    Decision, EntityUid, Identity, LimitStanding, Member, Narrowed, Request, RuleReference, Said, Told, Unit,
};

/// Longest record; of a longer one only what identifies it and its outcome is kept, with the digest of the rest.
const MAX_BYTES: usize = 64 * 1024;
/// Longest `additional_entities` that are written in full; of longer ones the digest is.
const MAX_ENTITIES_BYTES: usize = 16 * 1024;

/// Writes a record at the end of `out`: `"id":…}` and a newline.
pub(super) fn write(out: &mut Vec<u8>, record: &DecisionRecord<'_>, mask: &Mask) {
    let start = out.len();
    let mut line = Line { json: Json(out), mask, masked: Vec::new(), hidden: Vec::new() };
    line.head(record);
    line.question(record);
    line.outcome(record);
    line.end();
    let Some(written) = out.get(start..).filter(|written| written.len() > MAX_BYTES) else { return };
    let (bytes, digest) = (written.len(), hex::encode(&chain::leaf(written)));
    out.truncate(start);
    let mut line = Line { json: Json(out), mask, masked: Vec::new(), hidden: Vec::new() };
    line.head(record);
    line.json.raw(r#","truncated":{"bytes":"#).plain(bytes).raw(r#","sha256":"#).text(&digest).raw("}");
    line.end();
}

struct Line<'o, 'r> {
    json: Json<'o>,
    mask: &'r Mask,
    /// The paths of the members that were left out.
    masked: Vec<SmolStr>,
    /// Texts that were left out: a meter that is named by one is left out too.
    hidden: Vec<&'r str>,
}

impl<'r> Line<'_, 'r> {
    fn head(&mut self, record: &DecisionRecord<'r>) {
        let json = &mut self.json;
        json.raw(r#""id":"#).shown(record.id).raw(r#","at":"#).shown(record.at);
        json.raw(r#","revision":"#).text(record.revision).raw(r#","via":"#).text(record.via.as_str());
        json.raw(r#","decision":"#).text(record.outcome().as_str());
        json.raw(r#","code":"#).text(record.code().as_str());
        if let Some(reservation) = record.reservation() {
            json.raw(r#","reservation":"#).text(reservation);
        }
        let (principal, key, action) = match record.decided {
            Decided::One(_, decision) => (Some(&decision.principal), decision.key.as_ref(), &*decision.action),
            Decided::Candidates(_, decision) => (Some(&decision.principal), decision.key.as_ref(), &*decision.action),
            Decided::Refused(unproved) => (None, None, unproved.action),
        };
        json.raw(r#","principal":"#);
        match principal {
            Some(principal) => json.uid(principal),
            None => json.raw("null"),
        };
        if let Some(key) = key {
            json.raw(r#","key":"#).uid(key);
        }
        json.raw(r#","action":"#).text(action);
    }

    fn question(&mut self, record: &DecisionRecord<'r>) {
        match record.decided {
            Decided::One(request, decision) => {
                self.json.raw(r#","resource":"#).uid(&decision.resource);
                if decision.resource != request.resource {
                    self.json.raw(r#","requested_resource":"#).uid(&request.resource);
                }
                self.identity(request.identity.as_deref());
                self.context(&request.context);
                self.additional_entities(request);
            }
            Decided::Candidates(request, _) => {
                if let Some(router) = &request.router {
                    self.json.raw(r#","resource":"#).uid(router);
                }
                self.json.raw(r#","requested_candidates":"#).list(&request.candidates, uid);
                self.identity(request.identity.as_deref());
                self.context(&request.context);
            }
            Decided::Refused(unproved) => self.unproved(&unproved),
        }
        if let Some(reserve) = record.reserve {
            self.reserve(reserve);
        }
        if let Some(charging) = record.charging {
            self.json.raw(r#","charge":{"#);
            if let Some(bytes) = charging.body_bytes {
                self.json.raw(r#""body_bytes":"#).plain(bytes);
            }
            self.json.raw("}");
        }
    }

    fn outcome(&mut self, record: &DecisionRecord<'r>) {
        if !record.seen.is_empty() {
            self.json.raw(r#","condition_limits":["#);
            for (number, seen) in record.seen.iter().enumerate() {
                self.json.raw(if number > 0 { "," } else { "" });
                self.seen(seen);
            }
            self.json.raw("]");
        }
        match record.decided {
            Decided::One(_, decision) => self.decision(decision),
            Decided::Candidates(_, decision) => {
                if let Some(router) = &decision.router {
                    self.json.raw(r#","router":"#);
                    self.candidate(router);
                }
                self.json.raw(r#","candidates":["#);
                for (number, one) in decision.candidates.iter().enumerate() {
                    self.json.raw(if number > 0 { "," } else { "" });
                    self.candidate(&one.decision);
                }
                self.json.raw("]");
            }
            Decided::Refused(_) => {}
        }
    }

    fn end(&mut self) {
        self.json.raw(r#","masked":"#).texts(&self.masked).raw("}\n");
    }

    fn unproved(&mut self, unproved: &Unproved<'r>) {
        if let Some(resource) = unproved.resource {
            self.json.raw(r#","resource":"#).uid(resource);
        }
        if let Some(candidates) = unproved.candidates {
            self.json.raw(r#","requested_candidates":"#).list(candidates, uid);
        }
        self.json.raw(r#","refused":{"reason":"#).text(unproved.refusal.reason.as_str());
        if let Some(about) = &unproved.refusal.about {
            self.json.raw(r#","detail":"#).told(about);
        }
        self.json.raw("}");
        if let Some(context) = unproved.context {
            self.context(context);
        }
    }

    /// The identity that the credential proved, and its attributes in addition to the bundle. The credential itself is
    /// never written.
    fn identity(&mut self, identity: Option<&'r Identity>) {
        let Some(identity) = identity else { return };
        self.json.raw(r#","identity":{"method":"#).text(identity.method.as_str());
        self.attributes(&identity.said);
        if let Some(payer) = &identity.payer {
            if self.mask.context.has("team") {
                self.left_out("context.team", payer);
            } else {
                self.json.raw(r#","payer":"#).told(payer);
            }
        }
        if let Some(narrowed) = &identity.narrowed {
            self.json.narrowed(narrowed);
        }
        if !identity.limits.is_empty() {
            let ids = identity.limits.iter().map(|one| &one.limit.id);
            self.json.raw(r#","limits":"#).texts(ids);
        }
        if !identity.metadata.is_empty() {
            self.json.raw(r#","metadata":{"#);
            let entries = identity.metadata.iter().map(|(name, value)| (name, value.as_str()));
            self.metadata(entries);
            self.json.raw("}");
        }
        self.json.raw("}");
    }

    fn attributes(&mut self, said: &'r Said) {
        if *said == Said::default() {
            return;
        }
        if self.mask.attributes.has_all() {
            return self.note("identity.attributes");
        }
        self.json.raw(r#","attributes":{"replaces_bundle":"#).plain(said.replaces);
        let lists = [
            ("teams", &said.teams),
            ("orgs", &said.orgs),
            ("roles", &said.roles),
            ("team_roles", &said.team_roles),
            ("tags", &said.tags),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            if self.mask.attributes.has(name) {
                self.note(&format!("identity.attributes.{name}"));
                self.hidden.extend(list.iter().map(SmolStr::as_str));
            } else {
                self.json.raw(",").text(name).raw(":").all_told(list);
            }
        }
        for (name, text) in [("email", &said.email), ("external_id", &said.external_id)] {
            let Some(text) = text else { continue };
            if self.mask.attributes.has(name) {
                self.left_out(&format!("identity.attributes.{name}"), text);
            } else {
                self.json.raw(",").text(name).raw(":").told(text);
            }
        }
        self.json.raw("}");
    }

    /// The context as the caller sent it, without the members that only Tollgate sets.
    fn context(&mut self, context: &'r Told) {
        if context.members().is_empty() {
            return;
        }
        let mask = self.mask;
        if mask.context.has_all() {
            context.members().iter().for_each(|(_, member)| self.hide(member));
            return self.note("context");
        }
        self.json.raw(r#","context":{"#);
        let mut first = true;
        for (name, member) in context.members() {
            if mask.context.has(name) {
                self.hide(member);
                self.note(&format!("context.{name}"));
                continue;
            }
            match member {
                Member::Object(told) if name == "metadata" => {
                    if mask.metadata.has_all() {
                        told.members().iter().for_each(|(_, member)| self.hide(member));
                        self.note("context.metadata");
                        continue;
                    }
                    self.json.comma(&mut first).raw(r#""metadata":{"#);
                    let mut first_entry = true;
                    for (key, entry) in told.members() {
                        if mask.metadata.has(key) {
                            self.hide(entry);
                            self.note(&format!("context.metadata.{key}"));
                        } else {
                            self.json.comma(&mut first_entry).told(key).raw(":").member(entry);
                        }
                    }
                    self.json.raw("}");
                }
                Member::Text(path) if name == "path" => {
                    // A query may contain a token, and conditions do not see it.
                    let path = path.split_once('?').map_or(path.as_str(), |(path, _query)| path);
                    self.json.comma(&mut first).raw(r#""path":"#).told(path);
                }
                _ => self.json.comma(&mut first).told(name).raw(":").member(member),
            }
        }
        self.json.raw("}");
    }

    /// The entries that a credential adds to `context.metadata`.
    fn metadata(&mut self, entries: impl Iterator<Item = (&'r SmolStr, &'r str)>) {
        let mask = self.mask;
        let all = mask.metadata.has_all() || mask.context.has("metadata");
        let mut first = true;
        for (name, value) in entries {
            if all || mask.metadata.has(name) {
                let path = if all { "context.metadata".to_owned() } else { format!("context.metadata.{name}") };
                self.left_out(&path, value);
            } else {
                self.json.comma(&mut first).told(name).raw(":").told(value);
            }
        }
    }

    fn additional_entities(&mut self, request: &Request) {
        if request.additional_entities.is_empty() {
            return;
        }
        if self.mask.additional_entities {
            return self.note("additional_entities");
        }
        self.json.raw(r#","additional_entities":"#);
        let start = self.json.0.len();
        self.json.list(&request.additional_entities, |json, entity| {
            json.value(entity);
        });
        let Some(written) = self.json.0.get(start..).filter(|written| written.len() > MAX_ENTITIES_BYTES) else {
            return;
        };
        let digest = format!("sha256:{}", hex::encode(&chain::leaf(written)));
        self.json.0.truncate(start);
        self.json.text(&digest);
    }

    fn reserve(&mut self, reserve: &Reserve) {
        let Reserve { requests, input_tokens, output_tokens, images, usd } = reserve;
        self.json.raw(r#","reserve":{"#);
        let mut first = true;
        let counts = [
            ("requests", requests),
            ("input_tokens", input_tokens),
            ("output_tokens", output_tokens),
            ("images", images),
        ];
        for (name, count) in counts.into_iter().filter_map(|(name, count)| Some((name, (*count)?))) {
            self.json.comma(&mut first).text(name).raw(":").plain(count);
        }
        if let Some(usd) = usd {
            self.json.comma(&mut first).raw(r#""usd":"#).shown(Unit::Usd.show(*usd));
        }
        self.json.raw("}");
    }

    fn seen(&mut self, seen: &Seen) {
        self.json.raw(r#"{"resource":"#).uid(&seen.resource).raw(r#","limits":"#);
        match &seen.limits {
            Some(limits) => self.standings(limits),
            None => {
                self.json.raw("null");
            }
        }
        self.json.raw("}");
    }

    fn decision(&mut self, decision: &Decision) {
        self.json.raw(r#","rules":"#).rules(&decision.rules);
        if !decision.errors.is_empty() {
            self.json.raw(r#","errors":"#).texts(decision.errors.iter().map(|error| &error.rule.id));
        }
        if !decision.limits.is_empty() {
            self.json.raw(r#","limits":"#);
            self.standings(&decision.limits);
        }
        if !decision.not_held.is_empty() {
            self.json.raw(r#","not_held":"#).texts(&decision.not_held);
        }
    }

    fn candidate(&mut self, decision: &Decision) {
        self.json.raw(r#"{"resource":"#).uid(&decision.resource);
        self.json.raw(r#","decision":"#).text(decision.outcome.as_str());
        self.json.raw(r#","code":"#).text(decision.code.as_str());
        self.decision(decision);
        self.json.raw("}");
    }

    /// `[id, meter, unit, cap, used, held]` of each.
    fn standings(&mut self, standings: &[LimitStanding]) {
        self.json.raw("[");
        for (number, one) in standings.iter().enumerate() {
            self.json.raw(if number > 0 { ",[" } else { "[" }).text(&one.id).raw(",");
            match &one.meter {
                Some(meter) if self.names_hidden(meter) => {
                    self.json.raw("null");
                    self.note("meter");
                }
                Some(meter) => {
                    self.json.told(meter);
                }
                None => {
                    self.json.raw("null");
                }
            }
            self.json.raw(",").text(one.unit.as_str());
            for amount in [one.limit, one.used, one.held] {
                self.json.raw(",").shown(one.unit.show(amount));
            }
            self.json.raw("]");
        }
        self.json.raw("]");
    }

    /// Whether the name of a meter contains a masked value: with `each: end_user`, meters are named after
    /// `context.end_user`.
    fn names_hidden(&self, meter: &str) -> bool {
        self.hidden.iter().any(|text| !text.is_empty() && meter.contains(text))
    }

    fn left_out(&mut self, path: &str, text: &'r str) {
        self.hidden.push(text);
        self.note(path);
    }

    /// Notes that the member at `path` was left out.
    fn note(&mut self, path: &str) {
        if !self.masked.iter().any(|known| known == path) {
            self.masked.push(path.into());
        }
    }

    fn hide(&mut self, member: &'r Member) {
        match member {
            Member::Text(text) => self.hidden.push(text),
            Member::Object(told) => told.members().iter().for_each(|(_, member)| self.hide(member)),
            Member::Whole(_) | Member::Flag(_) | Member::Other(_) => {}
        }
    }
}

fn uid(json: &mut Json<'_>, uid: &EntityUid) {
    json.uid(uid);
}

impl Json<'_> {
    fn comma(&mut self, first: &mut bool) -> &mut Self {
        if !std::mem::take(first) {
            self.raw(",");
        }
        self
    }

    fn rules(&mut self, rules: &[RuleReference]) {
        self.texts(rules.iter().map(|rule| &rule.id));
    }

    fn member(&mut self, member: &Member) {
        match member {
            Member::Text(text) => {
                self.told(text);
            }
            Member::Whole(number) => {
                self.plain(number);
            }
            Member::Flag(flag) => {
                self.plain(flag);
            }
            Member::Object(told) => {
                self.raw("{");
                let mut first = true;
                for (name, member) in told.members() {
                    self.comma(&mut first).told(name).raw(":").member(member);
                }
                self.raw("}");
            }
            Member::Other(value) => {
                self.value(value);
            }
        }
    }

    /// The restrictions of a key. The decision depends on them, and otherwise only the key store has them.
    fn narrowed(&mut self, narrowed: &Narrowed) {
        self.raw(r#","narrowed":{"#);
        let mut first = true;
        let lists = [("models", &narrowed.models), ("routers", &narrowed.routers), ("actions", &narrowed.actions)];
        for (name, list) in lists.into_iter().filter_map(|(name, list)| Some((name, list.as_ref()?))) {
            self.comma(&mut first).text(name).raw(":").texts(list);
        }
        if let Some(paths) = &narrowed.paths {
            self.comma(&mut first).raw(r#""paths":"#).list(paths, |json, one| {
                json.raw(r#"{"path":"#).text(&one.path).raw(r#","methods":"#).texts(&one.methods).raw("}");
            });
        }
        if let Some(networks) = &narrowed.networks {
            self.comma(&mut first).raw(r#""networks":"#).list(networks, |json, one| {
                json.shown(one);
            });
        }
        self.raw("}");
    }
}

#[cfg(test)]
mod tests;
