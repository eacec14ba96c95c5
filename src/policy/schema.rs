//! The schema of a bundle: Tollgate's own, plus the fragments that the bundle adds.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{Schema, SchemaFragment};
use cedar_policy_core::ast::{EntityType, EntityUID};
use cedar_policy_core::entities::Entities;
use cedar_policy_core::validator::ValidatorSchema;
use smol_str::SmolStr;

use super::bundle::SourceFile;
use super::guard;
use super::limit_schema::LimitNames;
use super::problem::{Problem, ProblemCode};
use super::schema_size;
use super::source;
use super::syntax::Place;

/// Tollgate's own schema, in Cedar's schema syntax.
pub const TOLLGATE_SCHEMA: &str = include_str!("../../schema/tollgate.cedarschema");

/// An action of Tollgate's own.
const TOLLGATE_ACTION: &str = "Action::\"chat\"";

/// An action, by its number in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionIndex(pub(crate) u16);

/// What an action takes.
#[derive(Debug)]
pub struct Action {
    /// The uid that Cedar knows.
    pub uid: Arc<EntityUID>,
    /// The name as asked and answered: bare in the default namespace, else the uid.
    pub name: SmolStr,
    /// Principal types it applies to; empty for a group.
    pub principals: Vec<SmolStr>,
    /// Resource types it applies to.
    pub resources: Vec<SmolStr>,
    /// Whether its context is Tollgate's own, to be filled with what Tollgate knows.
    pub tollgate_context: bool,
    /// Itself and every action below it, as a set.
    pub descendants: ActionSet,
}

/// A set of actions of one schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ActionSet(Box<[u64]>);

impl ActionSet {
    /// Those of the set for which `keep` is true.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&ActionIndex) -> bool) -> Self {
        Self::of(self.iter().filter(keep))
    }

    /// The set of these actions.
    pub fn of(actions: impl IntoIterator<Item = ActionIndex>) -> Self {
        let mut bits: Vec<u64> = Vec::new();
        for ActionIndex(index) in actions {
            let word = usize::from(index) / 64;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            if let Some(bits) = bits.get_mut(word) {
                *bits |= 1 << (index % 64);
            }
        }
        Self(bits.into())
    }

    /// Adds the actions of another set.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            let more = other.0.get(self.0.len()..).unwrap_or_default();
            self.0 = self.0.iter().chain(more).copied().collect();
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Whether `action` is in the set.
    #[must_use]
    pub fn contains(&self, ActionIndex(index): ActionIndex) -> bool {
        self.0.get(usize::from(index) / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// The actions in the set, in the schema's order.
    pub fn iter(&self) -> impl Iterator<Item = ActionIndex> + '_ {
        (0..self.0.len() * 64)
            .filter_map(|index| u16::try_from(index).ok().map(ActionIndex))
            .filter(|action| self.contains(*action))
    }
}

/// A checked schema with its actions numbered.
#[derive(Debug)]
pub struct BundleSchema {
    /// The schema as Cedar's public interface has it.
    pub schema: Schema,
    actions: Vec<Action>,
    by_name: BTreeMap<SmolStr, ActionIndex>,
    /// The actions with their groups as parents.
    pub action_entities: Entities,
    /// Text that names this schema's content.
    pub key: u64,
    /// The limits that conditions may name.
    pub limits: LimitNames,
}

impl BundleSchema {
    /// Tollgate's schema with these limits, together with these fragments.
    ///
    /// # Errors
    /// Every fragment that does not parse, or what does not fit together.
    pub fn load(fragments: &[&SourceFile], limits: LimitNames) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut parsed = Vec::new();
        match SchemaFragment::from_str(&limits.schema()) {
            Ok(fragment) => parsed.push(fragment),
            Err(error) => problems.push(whole_bundle(&error.to_string())),
        }
        for file in fragments {
            match parse_fragment(file) {
                Ok(fragment) => parsed.push(fragment),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if let Some(trouble) = schema_size::trouble(&parsed) {
            let file = fragments.first().map_or_else(|| Arc::from(""), |file| Arc::clone(&file.path));
            let problem = Problem::error(ProblemCode::SchemaInvalid, &file, Place::default(), trouble);
            return Err(vec![problem.with_help("give what is so large an entity type of its own")]);
        }
        let schema = Schema::from_schema_fragments(parsed).map_err(|error| {
            let message = describe(&error);
            let (file, place) = blamed(&message, fragments);
            let help = "a fragment adds entity types and actions of your own; Tollgate's stay as `tollgate schema` prints them";
            vec![Problem::error(ProblemCode::SchemaInvalid, &file, place, message).with_help(help)]
        })?;
        let mut key = std::hash::DefaultHasher::new();
        for file in fragments {
            std::hash::Hash::hash(&file.digest, &mut key);
        }
        std::hash::Hash::hash(&limits, &mut key);
        let schema = Self::of(schema, std::hash::Hasher::finish(&key)).map_err(|error| vec![whole_bundle(&error)])?;
        Ok(Self { limits, ..schema })
    }

    /// The actions of `schema`, numbered in the order of their names.
    pub(crate) fn of(schema: Schema, key: u64) -> Result<Self, String> {
        let core: &ValidatorSchema = schema.as_ref();
        let action_entities = core.action_entities().map_err(|error| error.to_string())?;
        let mut uids: Vec<&EntityUID> =
            core.action_ids().map(cedar_policy_core::validator::ValidatorActionId::name).collect();
        uids.sort();
        let number: BTreeMap<&EntityUID, ActionIndex> =
            uids.iter().enumerate().filter_map(|(i, uid)| Some((*uid, ActionIndex(u16::try_from(i).ok()?)))).collect();
        if number.len() < uids.len() {
            return Err(format!("a schema may have {} actions at most", u16::MAX));
        }
        // Every action with the context of `chat`: what Tollgate fills in is filled in for these alone.
        let told = number.keys().find(|uid| uid.to_string() == TOLLGATE_ACTION).and_then(|uid| core.get_action_id(uid));
        let told = told.and_then(|action| action.context_type());
        let mut actions = Vec::with_capacity(uids.len());
        let mut by_name = BTreeMap::new();
        for (uid, index) in &number {
            let Some(action) = core.get_action_id(uid) else { continue };
            let descendants = action.descendants().filter_map(|uid| number.get(uid).copied());
            let bare = uid.entity_type().to_string() == "Action";
            let name = if bare { SmolStr::new(uid.eid()) } else { SmolStr::from(uid.to_string()) };
            by_name.insert(SmolStr::from(uid.to_string()), *index);
            by_name.insert(name.clone(), *index);
            actions.push(Action {
                uid: Arc::new((*uid).clone()),
                name,
                principals: action.applies_to_principals().map(|kind| SmolStr::from(kind.to_string())).collect(),
                resources: action.applies_to_resources().map(|kind| SmolStr::from(kind.to_string())).collect(),
                tollgate_context: told.is_some() && action.context_type() == told,
                descendants: ActionSet::of(descendants.chain([*index])),
            });
        }
        Ok(Self { schema, actions, by_name, action_entities, key, limits: LimitNames::default() })
    }

    /// The action of this name or uid.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<ActionIndex> {
        self.by_name.get(name).copied()
    }

    /// What `index` stands for.
    #[must_use]
    pub fn action_at(&self, ActionIndex(index): ActionIndex) -> Option<&Action> {
        self.actions.get(usize::from(index))
    }

    /// All actions, in order.
    pub fn actions(&self) -> impl Iterator<Item = (ActionIndex, &Action)> {
        self.actions.iter().enumerate().filter_map(|(i, action)| Some((ActionIndex(u16::try_from(i).ok()?), action)))
    }

    /// The names by which actions can be asked for.
    pub fn action_names(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter(|action| !action.principals.is_empty()).map(|action| action.name.as_str())
    }

    /// The schema as the validator has it.
    #[must_use]
    pub fn core(&self) -> &ValidatorSchema {
        self.schema.as_ref()
    }

    /// Whether the schema has this entity type.
    #[must_use]
    pub fn has_type(&self, kind: &EntityType) -> bool {
        self.core().get_entity_type(kind).is_some()
    }
}

/// Where a fragment says what the message is about: Cedar names it, and gives no place.
fn blamed(message: &str, fragments: &[&SourceFile]) -> (Arc<str>, Place) {
    let words: Vec<&str> =
        message.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    for word in words.into_iter().rev().filter(|word| word.starts_with(char::is_uppercase)) {
        for file in fragments {
            let Ok(text) = source::text(file) else { continue };
            let whole = |at: &usize| {
                let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
                let (before, after) = (text.get(..*at), text.get(at + word.len()..));
                apart(before.and_then(|text| text.chars().next_back()))
                    && apart(after.and_then(|text| text.chars().next()))
            };
            if let Some(at) = text.match_indices(word).map(|(at, _)| at).find(whole) {
                return (Arc::clone(&file.path), source::place_at(text, at, word.len()));
            }
        }
    }
    let first = fragments.first().map_or_else(|| Arc::from(""), |file| Arc::clone(&file.path));
    (first, Place { line: 1, column: 1, length: 1 })
}

fn parse_fragment(file: &SourceFile) -> Result<SchemaFragment, Problem> {
    let text = source::text(file)?;
    guard::schema_text(text).map_err(|trouble| {
        let place = source::place_at(text, trouble.offset, 1);
        source::with_line(
            Problem::error(ProblemCode::SchemaInvalid, &file.path, place, trouble.to_string()).with_help(guard::HELP),
            text,
        )
    })?;
    SchemaFragment::from_cedarschema_str(text).map(|(fragment, _)| fragment).map_err(|error| {
        let place = source::place_of(&error, text);
        source::with_line(Problem::error(ProblemCode::SchemaInvalid, &file.path, place, describe(&error)), text)
    })
}

/// The message of a Cedar error with what caused it.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn whole_bundle(message: &str) -> Problem {
    Problem::error(ProblemCode::SchemaInvalid, &Arc::from(""), Place::default(), message)
}
