//! The tags and roles that files assign. A rule may name others, which come from tokens, but a name that is nearly
//! equal to an assigned one is reported as a warning.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

use super::near::Near;
use super::people::Form;
use super::{Linker, MOST_WANTED};
use crate::policy::entities::{EntityStore, Kind};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::{Name, SelectorKind};

/// The kind of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Label {
    /// A tag of principals, their teams and orgs.
    Tag,
    /// A role of principals.
    Role,
    /// A tag of models and accounts.
    ModelTag,
}

impl Label {
    pub(super) const ALL: [Self; 3] = [Self::Tag, Self::Role, Self::ModelTag];

    /// The words of a message for a label that no entity has.
    pub(super) const fn nothing_has(self) -> &'static str {
        match self {
            Self::Tag => "no principal, team or org has the tag",
            Self::Role => "no principal has the role",
            Self::ModelTag => "no model or account has the tag",
        }
    }

    /// The word for the label.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Role => "role",
            Self::ModelTag => "model tag",
        }
    }

    /// What conditions read such labels from.
    pub(super) const fn attribute(self) -> &'static str {
        match self {
            Self::Tag => "principal.tags",
            Self::Role => "principal.roles",
            Self::ModelTag => "resource.tags",
        }
    }

    /// The key of a rule that takes such labels.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Tag => "tags",
            Self::Role => "roles",
            Self::ModelTag => "model_tags",
        }
    }
}

/// The labels that files give.
#[derive(Debug, Default)]
pub(super) struct Labels {
    tags: BTreeSet<SmolStr>,
    roles: BTreeSet<SmolStr>,
    model_tags: BTreeSet<SmolStr>,
}

/// Whether `model_tags` matches the tags of this kind: those of models, and of the accounts that they are in.
pub(super) fn has_model_tags(kind: Kind) -> bool {
    let tagged = SelectorKind::ModelTag.entity_kind();
    tagged == Some(kind) || tagged.and_then(Kind::namespace) == Some(kind)
}

impl Labels {
    /// Those of the entities that files declare.
    pub(super) fn of(store: &EntityStore) -> Self {
        let mut labels = Self::default();
        let mut add = |into: fn(&mut Self) -> &mut BTreeSet<SmolStr>, names: &[SmolStr]| {
            for name in names {
                // Most are there already, and nothing needs to be copied to see that.
                if !into(&mut labels).contains(name) {
                    into(&mut labels).insert(name.clone());
                }
            }
        };
        for (_, record) in store.iter().filter(|(_, record)| record.declared) {
            add(|labels| &mut labels.roles, record.roles());
            // An entity of a type of the bundle's own may be a principal as well as a resource.
            let (who, what) = match record.kind {
                Kind::ORG | Kind::TEAM | Kind::USER | Kind::SERVICE | Kind::API_KEY => (true, false),
                kind if kind.is_built_in() => (false, has_model_tags(kind)),
                _ => (true, true),
            };
            if who {
                add(|labels| &mut labels.tags, record.tags());
            }
            if what {
                add(|labels| &mut labels.model_tags, record.tags());
            }
        }
        labels
    }

    /// All labels of this kind.
    pub(super) fn all(&self, label: Label) -> &BTreeSet<SmolStr> {
        match label {
            Label::Tag => &self.tags,
            Label::Role => &self.roles,
            Label::ModelTag => &self.model_tags,
        }
    }

    fn is_empty(&self) -> bool {
        Label::ALL.into_iter().all(|label| self.all(label).is_empty())
    }
}

impl Linker<'_> {
    /// Sees to a warning for a label that nothing has and that is a slip away from one that something has.
    pub(super) fn label(&mut self, label: Label, form: Form, name: &Name, file: &Arc<str>) {
        let unknown = !self.labels.is_empty() && !self.labels.all(label).contains(&name.value);
        if unknown && self.wanted.len() < MOST_WANTED {
            let problem = Problem::warning(ProblemCode::NearMiss, file, name.place, "");
            self.want(Near::Label(label), form, &name.value, problem);
        }
    }
}
