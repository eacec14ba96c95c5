//! The JSON Schema of `tollgate.yaml`, for editors that complete and check.

use serde_json::{Map, Value, json};

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};

use super::Settings;
use super::sections::SECTIONS;
use super::table::{ENTRIES, Field, MAX_NAME_BYTES};
use crate::edge::http::ClientCertificates;
use crate::edge::store::EvictionCheck;

/// The JSON Schema of `tollgate.yaml`, with every default in it.
#[must_use]
pub fn schema_json() -> String {
    let mut root = section();
    for entry in ENTRIES {
        insert(&mut root, entry.name, with(describe(&entry.field), "description", entry.about));
    }
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    for section in &SECTIONS {
        let described = (section.schema)(&mut generator);
        insert(&mut root, section.name, with(without_null(described), "description", section.about));
    }
    // What these refer to.
    let shared = generator.take_definitions(true);
    let shared = shared.into_iter().filter_map(|(name, described)| Some((name, Schema::try_from(described).ok()?)));
    let shared: Map<String, Value> = shared.map(|(name, described)| (name, without_null(described))).collect();
    if let Some(members) = root.as_object_mut() {
        members.insert("$defs".to_owned(), shared.into());
    }
    let root = with(root, "$schema", "https://json-schema.org/draft/2020-12/schema");
    let root = with(root, "title", "tollgate.yaml");
    let root = with(
        root,
        "description",
        "How `tollgate serve` is set up. Flags and the environment beat it. Its relative paths begin at its own directory.",
    );
    // The alternate form of a JSON value is its indented text.
    format!("{root:#}\n")
}

/// A key without a value is an error, though the types have it as one that is left out.
fn without_null(mut described: Schema) -> Value {
    let strip = |schema: &mut Schema| {
        let Some(members) = schema.as_object_mut() else { return };
        // Names of Rust's types are no formats.
        members.remove("format");
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
    };
    RecursiveTransform(strip).transform(&mut described);
    described.to_value()
}

fn with(mut schema: Value, name: &str, text: &str) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.insert(name.to_owned(), Value::from(text));
    }
    schema
}

fn section() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn insert(section_of: &mut Value, name: &str, value: Value) {
    let Some(properties) = section_of.get_mut("properties").and_then(Value::as_object_mut) else { return };
    match name.split_once('.') {
        None => drop(properties.insert(name.to_owned(), value)),
        Some((outer, rest)) => insert(properties.entry(outer).or_insert_with(section), rest, value),
    }
}

fn describe(field: &Field) -> Value {
    let mut defaults = Settings::default();
    match field {
        Field::Path(at) => json!({ "type": "string", "minLength": 1, "default": at(&mut defaults).to_string_lossy() }),
        Field::File(_) | Field::Hidden(_) => json!({ "type": "string", "minLength": 1 }),
        Field::Url(_) => json!({ "type": "string", "format": "uri" }),
        Field::Name(_) => json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES }),
        Field::Address(at) => json!({ "type": "string", "default": at(&mut defaults).to_string() }),
        Field::OptionalAddress(_) => json!({ "type": "string" }),
        Field::Switch(at) => json!({ "type": "boolean", "default": *at(&mut defaults) }),
        Field::Eviction(at) => {
            let known = EvictionCheck::ALL.map(EvictionCheck::as_str);
            json!({ "enum": known, "default": at(&mut defaults).as_str() })
        }
        Field::ClientCertificates(at) => {
            let known = ClientCertificates::ALL.map(ClientCertificates::as_str);
            json!({ "enum": known, "default": at(&mut defaults).as_str() })
        }
        Field::OneOf { words, default: None, .. } => json!({ "enum": words }),
        Field::OneOf { words, default: Some(default), .. } => json!({ "enum": words, "default": default }),
        Field::Choice { words, at } => {
            let [first, second] = words;
            json!({ "enum": words, "default": if *at(&mut defaults) { second } else { first } })
        }
        Field::Number { least, most, at } => {
            integer(*least, *most, u64::try_from(*at(&mut defaults)).unwrap_or_default())
        }
        Field::Millis { least, most, at } => {
            integer(*least, *most, u64::try_from(at(&mut defaults).as_millis()).unwrap_or_default())
        }
        Field::Word(at) => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "default": at(&mut defaults).as_str() })
        }
        Field::Keys(_) | Field::Hosts(_) => json!({ "type": "array", "items": { "type": "string" }, "default": [] }),
    }
}

fn integer(least: u64, most: u64, default: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most, "default": default })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_described_with_its_default() {
        let schema: Value = serde_json::from_str(&schema_json()).unwrap();
        let limits = &schema["properties"]["limits"]["properties"];
        assert_eq!(limits["body_bytes"]["default"], 2 * 1024 * 1024);
        assert_eq!(
            schema["properties"]["reload"]["properties"]["manifest"]["properties"]["required"]["default"],
            false
        );
        assert_eq!(schema["properties"]["listen"]["default"], "127.0.0.1:8181");
    }
}
