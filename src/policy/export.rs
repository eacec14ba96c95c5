//! What any Cedar engine needs to decide as the snapshot does: the entities, and the refusals that come before rules.

use std::fmt::Write as _;

use serde_json::Value;

use super::cedar_text::quoted;
use super::entities::{EntityIndex, Kind, Subject};
use super::snapshot::Snapshot;
use crate::model::Timestamp;

/// How many entities one forbid names; lists of a million would be one expression of a million parts.
const IN_ONE_POLICY: usize = 1_000;

impl Snapshot {
    /// Every entity of the bundle in Cedar's JSON form, declared or only named, in the order of their uids.
    ///
    /// # Errors
    /// An attribute that Cedar cannot write as JSON.
    pub fn entities_json(&self) -> Result<Vec<Value>, String> {
        let known = self.store.iter().map(|(index, _)| index).filter(|index| self.store.exists(*index));
        let mut indices: Vec<EntityIndex> = known.collect();
        indices.sort_by_cached_key(|index| self.store.uid(*index));
        indices.into_iter().map(|index| self.entity_json(index)).collect()
    }

    fn entity_json(&self, index: EntityIndex) -> Result<Value, String> {
        let entity = self.store.materialize(&Subject::Known(index));
        let mut value = entity.to_json_value().map_err(|error| error.to_string())?;
        // A hash set of them comes in another order each time.
        if let Some(Value::Array(parents)) = value.get_mut("parents") {
            parents.sort_by_cached_key(Value::to_string);
        }
        Ok(value)
    }

    /// What is refused before any rule is asked, as policies: who is disabled or expires, and models switched off.
    /// Another engine, which knows of no such thing, needs them beside [`Snapshot::to_cedar`].
    #[must_use]
    pub fn refusals_to_cedar(&self) -> String {
        let details = |index: &EntityIndex| self.store.record(*index).details.as_ref();
        let all: Vec<EntityIndex> = self.store.iter().map(|(index, _)| index).collect();
        let disabled = all.iter().filter(|index| details(index).is_some_and(|details| details.extras.disabled));
        let off = all.iter().filter(|index| self.store.record(**index).switched_off);
        let mut text = self.forbids("disabled", "principal", disabled);
        text.push_str(&self.forbids("model-disabled", "resource", off));
        for index in &all {
            if let Some(expiry) = details(index).and_then(|details| details.extras.expires_at) {
                let uid = self.store.core_uid(*index);
                let id = quoted(&format!("tollgate:expires:{uid}"));
                let test = self.at_or_above(*index, "principal");
                // Only Tollgate's own actions have the time in their context.
                let _ = writeln!(
                    text,
                    "@id({id})\nforbid (principal, action in [Action::\"use\", Action::\"admin\"], resource)\n\
                     when {{ {test} }}\nwhen {{ context.now >= {} }};\n",
                    datetime(expiry)
                );
            }
        }
        text
    }

    fn forbids<'a>(&self, name: &str, variable: &str, indices: impl Iterator<Item = &'a EntityIndex>) -> String {
        let indices: Vec<EntityIndex> = indices.copied().collect();
        let mut text = String::new();
        for (number, some) in indices.chunks(IN_ONE_POLICY).enumerate() {
            let uids: Vec<String> = some.iter().map(|index| self.store.core_uid(*index).to_string()).collect();
            let id = quoted(&format!("tollgate:{name}:{number}"));
            let uids = uids.join(", ");
            let _ =
                writeln!(text, "@id({id})\nforbid (principal, action, resource)\nwhen {{ {variable} in [{uids}] }};\n");
        }
        text
    }

    /// Whether the variable is this entity or in it.
    fn at_or_above(&self, index: EntityIndex, variable: &str) -> String {
        let uid = self.store.core_uid(index);
        // Nothing is in a key, and Cedar's validator takes `in` there for a slip.
        let operator = if self.store.record(index).kind == Kind::API_KEY { "==" } else { "in" };
        format!("{variable} {operator} {uid}")
    }
}

/// An instant as a Cedar expression: its text where that has whole seconds of a four-digit year, else the milliseconds.
fn datetime(instant: Timestamp) -> String {
    let text = instant.to_string();
    if text.len() == "2027-01-01T00:00:00Z".len() {
        return format!("datetime(\"{text}\")");
    }
    format!("datetime(\"1970-01-01\").offset(duration(\"{}ms\"))", instant.as_millis())
}
