//! JSON Schema as far as `/openapi.json` uses it. A keyword that is not known here fails the test, so that no part of a
//! schema is passed over. (The crate `jsonschema` would turn on a feature of serde_json that changes how numbers are read,
//! in the server under test too.)

use serde_json::{Map, Value};

/// Keywords that describe, and keywords that no answer has to be compared with.
const SILENT: [&str; 8] =
    ["description", "title", "default", "example", "examples", "writeOnly", "deprecated", "$comment"];

/// The problems of `value`, each with its place.
pub fn problems(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { document, found: &mut found }.check(schema, value, "");
    found
}

struct Checker<'a> {
    document: &'a Value,
    found: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn wrong(&mut self, place: &str, what: impl Into<String>) {
        self.found.push(format!("{place}: {}", what.into()));
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        problems(self.document, schema, value).is_empty()
    }

    fn check(&mut self, schema: &Value, value: &Value, place: &str) {
        match schema {
            Value::Bool(true) => {}
            Value::Bool(false) => self.wrong(place, "nothing may stand here"),
            Value::Object(keywords) => {
                for (keyword, operand) in keywords.iter().filter(|(keyword, _)| !SILENT.contains(&keyword.as_str())) {
                    self.keyword(keywords, (keyword, operand), value, place);
                }
            }
            other => panic!("{place}: {other} is no schema"),
        }
    }

    fn keyword(&mut self, all: &Map<String, Value>, (keyword, operand): (&str, &Value), value: &Value, place: &str) {
        match keyword {
            "$ref" => {
                let pointer = operand.as_str().unwrap().strip_prefix('#').unwrap();
                let schema = self.document.pointer(pointer).unwrap_or_else(|| panic!("{operand} leads nowhere"));
                self.check(schema, value, place);
            }
            "anyOf" | "oneOf" => {
                let fit = operand.as_array().unwrap().iter().filter(|choice| self.fits(choice, value)).count();
                if fit == 0 || (keyword == "oneOf" && fit > 1) {
                    self.wrong(place, format!("{fit} choices of {keyword} fit"));
                }
            }
            "type" => self.kind(operand, value, place),
            "const" if operand != value => self.wrong(place, format!("it is not {operand}")),
            "enum" if !operand.as_array().unwrap().contains(value) => {
                self.wrong(place, format!("it is none of {operand}"))
            }
            "const" | "enum" => {}
            "properties" | "required" | "additionalProperties" | "minProperties" | "maxProperties" => {
                if let Value::Object(members) = value {
                    self.object(all, (keyword, operand), members, place);
                }
            }
            "items" | "minItems" | "maxItems" => {
                if let Value::Array(items) = value {
                    self.array((keyword, operand), items, place);
                }
            }
            _ => self.scalar((keyword, operand), value, place),
        }
    }

    fn kind(&mut self, operand: &Value, value: &Value, place: &str) {
        let is = |kind: &Value| match kind.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{place}: the type {other}"),
        };
        if !operand.as_array().map_or(std::slice::from_ref(operand), Vec::as_slice).iter().any(is) {
            self.wrong(place, format!("it is not of the type {operand}"));
        }
    }

    fn object(
        &mut self,
        all: &Map<String, Value>,
        (keyword, operand): (&str, &Value),
        members: &Map<String, Value>,
        place: &str,
    ) {
        match keyword {
            "properties" => {
                for (name, schema) in operand.as_object().unwrap() {
                    if let Some(member) = members.get(name) {
                        self.check(schema, member, &format!("{place}/{name}"));
                    }
                }
            }
            "required" => {
                for name in operand.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if !members.contains_key(name) {
                        self.wrong(place, format!("`{name}` is missing"));
                    }
                }
            }
            "additionalProperties" => {
                let known = |name: &String| all.get("properties").is_some_and(|known| known.get(name).is_some());
                for (name, member) in members.iter().filter(|(name, _)| !known(name)) {
                    self.check(operand, member, &format!("{place}/{name}"));
                }
            }
            _ => self.size((keyword, operand), members.len(), place),
        }
    }

    fn array(&mut self, (keyword, operand): (&str, &Value), items: &[Value], place: &str) {
        if keyword != "items" {
            return self.size((keyword, operand), items.len(), place);
        }
        for (at, item) in items.iter().enumerate() {
            self.check(operand, item, &format!("{place}/{at}"));
        }
    }

    fn scalar(&mut self, (keyword, operand): (&str, &Value), value: &Value, place: &str) {
        match (keyword, value) {
            ("minLength" | "maxLength", Value::String(text)) => {
                self.size((keyword, operand), text.chars().count(), place);
            }
            ("minimum", Value::Number(number)) if number.as_f64() < operand.as_f64() => self.wrong(place, "too small"),
            ("maximum", Value::Number(number)) if number.as_f64() > operand.as_f64() => self.wrong(place, "too large"),
            // The one pattern is that of reservations.
            ("pattern", Value::String(text)) => {
                assert_eq!(operand, "^r-[0-9a-f]{32}$");
                let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                let digits =
                    text.strip_prefix("r-").filter(|digits| digits.len() == 32 && digits.bytes().all(is_digit));
                if digits.is_none() {
                    self.wrong(place, "it is not the id of a reservation");
                }
            }
            ("format", Value::String(text)) => self.format(operand.as_str().unwrap(), text, place),
            ("minLength" | "maxLength" | "minimum" | "maximum" | "pattern" | "format", _) => {}
            _ => panic!("{place}: the keyword {keyword} is not known"),
        }
    }

    fn format(&mut self, format: &str, text: &str, place: &str) {
        let fits = match format {
            "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
            "date" => text.parse::<jiff::civil::Date>().is_ok(),
            other => panic!("{place}: the format {other}"),
        };
        if !fits {
            self.wrong(place, format!("it is no {format}"));
        }
    }

    fn size(&mut self, (keyword, operand): (&str, &Value), length: usize, place: &str) {
        let bound = usize::try_from(operand.as_u64().unwrap()).unwrap();
        if (keyword.starts_with("min") && length < bound) || (keyword.starts_with("max") && length > bound) {
            self.wrong(place, format!("its length {length} breaks {keyword} {bound}"));
        }
    }
}
