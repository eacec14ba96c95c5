//! The part of a bundle's schema that its limits make: conditions see each by its id, with a type that says what it
//! counts, so that a misspelt id does not load.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use smol_str::SmolStr;

use super::bundle::{Bundle, FileKind};
use super::cedar_text::quoted;
use super::parse;
use super::problem::nearest;
use super::schema::TOLLGATE_SCHEMA;
use super::syntax::Document;
use crate::model::Unit;

/// What Tollgate's own schema says of limits, in place of which a bundle's stand.
const NONE: &str = "type Limits = {};";

/// Of up to so many limits, the schema has all; of more, those that conditions name: Cedar writes the type of the context
/// out for every action.
const ALL: usize = 256;

/// The limits of a bundle by id, with what each counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LimitNames {
    units: BTreeMap<SmolStr, Unit>,
    /// Those that are in the schema.
    typed: BTreeSet<SmolStr>,
}

impl LimitNames {
    /// Of these documents; of two limits of one id, which does not load, the last. `native` are the texts of `.cedar`
    /// files, which may name limits too.
    pub fn of<'a>(
        documents: impl Iterator<Item = &'a Document> + Clone,
        native: impl Iterator<Item = &'a str>,
    ) -> Self {
        let limits = documents.clone().flat_map(|document| &document.limits);
        let units: BTreeMap<_, _> = limits.map(|limit| (limit.id.value.clone(), limit.limit.unit())).collect();
        let typed = if units.len() <= ALL {
            units.keys().cloned().collect()
        } else {
            let rules = documents.flat_map(|document| &document.rules);
            let conditions = rules.flat_map(|rule| rule.when.iter().chain(&rule.unless)).map(|text| text.text.as_str());
            conditions
                .chain(native)
                .flat_map(words)
                .filter_map(|word| Some(units.get_key_value(word)?.0.clone()))
                .collect()
        };
        Self { units, typed }
    }

    /// Of a bundle, as far as it can be read.
    #[must_use]
    pub fn of_bundle(bundle: &Bundle) -> Self {
        let yaml = bundle.files().iter().filter(|file| file.kind == FileKind::Yaml);
        let documents: Vec<Document> = yaml.map(|file| parse::parse(file).document).collect();
        Self::of(documents.iter(), native_texts(bundle))
    }

    /// Whether one is called so.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.units.contains_key(id)
    }

    /// What to do about an id that none has.
    #[must_use]
    pub fn help(&self, id: &str) -> String {
        match nearest(id, self.units.keys().map(SmolStr::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare it under `limits:`, in any file of the bundle".to_owned(),
        }
    }

    /// Tollgate's schema with these limits in it.
    #[must_use]
    pub fn schema(&self) -> String {
        if self.typed.is_empty() {
            return TOLLGATE_SCHEMA.to_owned();
        }
        let mut text = String::from("type Limits = {\n");
        for (id, unit) in self.units.iter().filter(|(id, _)| self.typed.contains(*id)) {
            let kind = if *unit == Unit::Usd { "MoneyLimit" } else { "CountedLimit" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {}?: {kind},", quoted(id));
        }
        text.push_str("};");
        TOLLGATE_SCHEMA.replacen(NONE, &text, 1)
    }
}

/// The texts of a bundle's `.cedar` files.
pub(super) fn native_texts(bundle: &Bundle) -> impl Iterator<Item = &str> {
    let files = bundle.files().iter().filter(|file| file.kind == FileKind::Cedar);
    files.filter_map(|file| std::str::from_utf8(&file.bytes).ok())
}

/// What may be the id of a limit in a condition: what stands in quotes, and names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let text = if text.contains("limits") { text } else { "" };
    text.split('"').chain(text.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_a_place_for_limits() {
        assert_eq!(TOLLGATE_SCHEMA.matches(NONE).count(), 1);
        let units = BTreeMap::from([("a \"b\"".into(), Unit::Usd), ("c".into(), Unit::Places)]);
        let names = LimitNames { typed: units.keys().cloned().collect(), units };
        let schema = names.schema();
        assert!(schema.contains("type Limits = {\n    \"a \\\"b\\\"\"?: MoneyLimit,\n    \"c\"?: CountedLimit,\n};"));
        assert!(cedar_policy::SchemaFragment::from_cedarschema_str(&schema).is_ok());
    }

    #[test]
    fn of_many_limits_the_schema_has_those_that_are_named() {
        let limit = |number| format!("  - {{ id: l-{number}, users: [a], concurrency: 1 }}\n");
        let limits: String = (0..300).map(limit).collect();
        let text = format!(
            "limits:\n{limits}authz_rules:\n  - {{ users: [a], models: [a/b], when: 'context.limits has \"l-7\"' }}\n"
        );
        let file =
            |path: &str, text: &str| crate::policy::SourceFile::new(path.to_owned(), text.as_bytes().to_vec()).unwrap();
        let native = "permit (principal, action, resource) when { context.limits has \"l-299\" };";
        let names = LimitNames::of_bundle(&Bundle::new(vec![file("a.yaml", &text), file("b.cedar", native)]));
        assert_eq!(names.typed.iter().map(SmolStr::as_str).collect::<Vec<_>>(), ["l-299", "l-7"]);
        assert!(names.has("l-8") && !names.has("l-300"));
        assert_eq!(names.help("l-7x"), "did you mean `l-7`?");
    }
}
