//! The JSON Schema of `tollgate.yaml`, for editors that complete and check.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::raw::Raw;

/// The JSON Schema of `tollgate.yaml`, with every default in it.
#[must_use]
pub fn schema_json() -> String {
    // The alternate form of a JSON value is its indented text.
    format!("{:#}\n", schema().as_value())
}

pub(super) fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tidy));
    settings.into_generator().into_root_schema_for::<Raw>()
}

/// The description of the setting with this name.
pub(super) fn description<'a>(schema: &Schema, name: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut described = schema.as_value();
    for member in name {
        described = described.get("properties")?.get(member)?;
    }
    described.get("description")?.as_str().map(str::to_owned)
}

/// Removes the breaks between the lines of a comment, the names of Rust's types, and null: a key without a value is an
/// error, while schemars describes an optional member as one that may be null.
fn tidy(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::String(description)) = members.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if members.get("format").is_some_and(|format| format != "uri") {
        members.remove("format");
    }
    if let Some(Value::Array(kinds)) = members.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    let Some(Value::Array(alternatives)) = members.get_mut("anyOf") else { return };
    alternatives.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = alternatives.as_slice() {
        let only = only.clone();
        members.remove("anyOf");
        for (name, value) in only {
            members.entry(name).or_insert(value);
        }
    }
}
