//! The part of a bundle's schema that its limits make: conditions see each by its id, with a type that says what it
//! counts, so that a misspelt id does not load.

use std::collections::BTreeMap;
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

/// The limits of a bundle by id, with what each counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LimitNames(BTreeMap<SmolStr, Unit>);

impl LimitNames {
    /// Of these documents; of two limits of one id, which does not load, the last.
    pub fn of<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Self {
        let limits = documents.into_iter().flat_map(|document| &document.limits);
        Self(limits.map(|limit| (limit.id.value.clone(), limit.limit.unit())).collect())
    }

    /// Of a bundle, as far as it can be read.
    #[must_use]
    pub fn of_bundle(bundle: &Bundle) -> Self {
        let files = bundle.files().iter().filter(|file| file.kind == FileKind::Yaml);
        Self::of(files.map(|file| parse::parse(file).document).collect::<Vec<_>>().iter())
    }

    /// Whether one is called so.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// What to do about an id that none has.
    #[must_use]
    pub fn help(&self, id: &str) -> String {
        match nearest(id, self.0.keys().map(SmolStr::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare it under `limits:`, in any file of the bundle".to_owned(),
        }
    }

    /// Tollgate's schema with these limits in it.
    #[must_use]
    pub fn schema(&self) -> String {
        if self.0.is_empty() {
            return TOLLGATE_SCHEMA.to_owned();
        }
        let mut text = String::from("type Limits = {\n");
        for (id, unit) in &self.0 {
            let kind = if *unit == Unit::Usd { "MoneyLimit" } else { "CountedLimit" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {}?: {kind},", quoted(id));
        }
        text.push_str("};");
        TOLLGATE_SCHEMA.replacen(NONE, &text, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_a_place_for_limits() {
        assert_eq!(TOLLGATE_SCHEMA.matches(NONE).count(), 1);
        let names = LimitNames([("a \"b\"".into(), Unit::Usd), ("c".into(), Unit::Places)].into());
        let schema = names.schema();
        assert!(schema.contains("type Limits = {\n    \"a \\\"b\\\"\"?: MoneyLimit,\n    \"c\"?: CountedLimit,\n};"));
        assert!(cedar_policy::SchemaFragment::from_cedarschema_str(&schema).is_ok());
    }
}
