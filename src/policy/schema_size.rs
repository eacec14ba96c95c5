//! How large the types of a schema become once names of types are written out, which is what Cedar does with them: forty
//! lines of `type A = { x: B, y: B }` are more than any memory holds, and so must be found before.

use std::collections::HashMap;

use cedar_policy::SchemaFragment;
use serde_json::{Map, Value};

/// Deepest that types may stand within each other.
const MAX_DEPTH: u64 = 64;
/// Most types, written out, in one schema.
const MAX_TYPES: u64 = 200_000;
/// Longest chain of action groups.
const MAX_GROUPS: u64 = 64;

/// Why the schema made of these fragments is too large, if it is.
pub fn trouble(fragments: &[SchemaFragment]) -> Option<String> {
    let fragments: Vec<Value> = fragments.iter().filter_map(|fragment| fragment.clone().to_json_value().ok()).collect();
    let mut sizes = Sizes::default();
    for (name, kind) in members(&fragments, "commonTypes") {
        // By the last part of their names: of types of one name in two namespaces, the larger counts.
        sizes.named.entry(name).or_default().push(kind);
    }
    let mut types = 0_u64;
    let shapes = members(&fragments, "entityTypes").flat_map(|(_, entity)| [entity.get("shape"), entity.get("tags")]);
    let contexts = members(&fragments, "actions").map(|(_, action)| action.get("appliesTo")?.get("context"));
    for kind in shapes.chain(contexts).flatten() {
        let size = sizes.of(kind);
        if size.depth > MAX_DEPTH {
            return Some(format!("types stand within each other more than {MAX_DEPTH} deep"));
        }
        types = types.saturating_add(size.types);
    }
    if types > MAX_TYPES {
        return Some(format!("types are more than {MAX_TYPES} once the names in them are written out"));
    }
    let groups = chain_of_groups(&fragments);
    (groups > MAX_GROUPS).then(|| format!("action groups stand within each other more than {MAX_GROUPS} deep"))
}

/// The entries of a section in all namespaces of all fragments.
fn members<'a>(fragments: &'a [Value], section: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let namespaces = fragments.iter().filter_map(Value::as_object).flat_map(Map::values);
    let entries = namespaces.filter_map(move |namespace| namespace.get(section)?.as_object()).flatten();
    entries.map(|(name, value)| (name.as_str(), value))
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    types: u64,
    depth: u64,
}

#[derive(Default)]
struct Sizes<'a> {
    named: HashMap<&'a str, Vec<&'a Value>>,
    /// `None` while it is being worked out: a circle, which Cedar itself refuses.
    known: HashMap<&'a str, Option<Size>>,
}

impl<'a> Sizes<'a> {
    fn of(&mut self, kind: &'a Value) -> Size {
        let mut inner = Size::default();
        let mut add = |size: Size| {
            inner.types = inner.types.saturating_add(size.types);
            inner.depth = inner.depth.max(size.depth);
        };
        for attribute in kind.get("attributes").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            add(self.of(attribute));
        }
        if let Some(element) = kind.get("element") {
            add(self.of(element));
        }
        for name in ["name", "type"].iter().filter_map(|key| kind.get(key)?.as_str()) {
            add(self.of_name(name.rsplit("::").next().unwrap_or(name)));
        }
        Size { types: inner.types.saturating_add(1), depth: inner.depth.saturating_add(1) }
    }

    fn of_name(&mut self, name: &'a str) -> Size {
        if let Some(known) = self.known.get(name) {
            return known.unwrap_or_default();
        }
        let Some(kinds) = self.named.get(name).cloned() else { return Size::default() };
        self.known.insert(name, None);
        let sizes: Vec<Size> = kinds.into_iter().map(|kind| self.of(kind)).collect();
        let size = Size {
            types: sizes.iter().map(|size| size.types).max().unwrap_or_default(),
            depth: sizes.iter().map(|size| size.depth).max().unwrap_or_default(),
        };
        self.known.insert(name, Some(size));
        size
    }
}

/// How many groups stand within each other at most.
fn chain_of_groups(fragments: &[Value]) -> u64 {
    let parents: HashMap<&str, Vec<&str>> = members(fragments, "actions")
        .map(|(name, action)| {
            let groups = action.get("memberOf").and_then(Value::as_array).into_iter().flatten();
            (name, groups.filter_map(|group| group.get("id")?.as_str()).collect())
        })
        .collect();
    let mut known: HashMap<&str, u64> = HashMap::new();
    parents.keys().map(|name| height(name, &parents, &mut known)).max().unwrap_or_default()
}

fn height<'a>(name: &'a str, parents: &HashMap<&'a str, Vec<&'a str>>, known: &mut HashMap<&'a str, u64>) -> u64 {
    if let Some(height) = known.get(name) {
        return *height;
    }
    // Of a circle, which Cedar itself refuses, the way round counts once.
    known.insert(name, 0);
    let above = parents.get(name).into_iter().flatten().map(|group| height(group, parents, known));
    let own = above.max().map_or(0, |above| above + 1);
    known.insert(name, own);
    own
}
