//! Entities that conditions and `.cedar` files name. Each is looked up like a name in a YAML list: a literal without an
//! entity would make a forbid that never matches, or an exception that never applies.

use std::sync::Arc;

use cedar_policy_core::ast::EntityUID;
use smol_str::SmolStr;

use super::Linker;
use super::labels::Label;
use super::near::Near;
use super::people::{Form, OWNERS, Reference};
use super::rules::place_in;
use crate::model::{PathError, RequestPath, normal_pattern};
use crate::policy::condition::Condition;
use crate::policy::entities::Kind;
use crate::policy::named::Named;
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::{ConditionText, Name, Place};

impl Linker<'_> {
    /// Looks up everything that the clauses of a condition name; `texts` are the clauses as they are written, in the
    /// same order. An entity that is undeclared and allowed gets an entry of its own, so that a model, for example, is
    /// in an account that only this condition names.
    pub(super) fn named_by_condition(&mut self, condition: &Condition, texts: &[&ConditionText], file: &Arc<str>) {
        for (clause, text) in condition.clauses.iter().zip(texts) {
            for part in &*clause.named {
                self.look_up(&part.named, place_in(text, part.offset, part.length), file);
            }
        }
    }

    /// Looks up what Cedar's text names at `place`.
    pub(in crate::policy) fn look_up(&mut self, named: &Named, place: Place, file: &Arc<str>) {
        let mut label = |label, text: &SmolStr| {
            self.label(label, Form::Literal, &Name::new(text.clone(), place), file);
        };
        match named {
            Named::Entity(uid) => self.entity_literal(uid, place, file),
            Named::PrincipalTag(tag) => label(Label::Tag, tag),
            Named::Role(role) => label(Label::Role, role),
            Named::ResourceTag(tag) => label(Label::ModelTag, tag),
            Named::Path(path) => self.path_literal(normal(path), path, place, file),
            Named::PathPattern(pieces) => self.path_literal(normal_pieces(pieces), &pieces.join("*"), place, file),
        }
    }

    /// Warns of a path that no request has when conditions see it.
    fn path_literal(&mut self, normal: Result<String, PathError>, path: &str, place: Place, file: &Arc<str>) {
        // An action of the bundle's own may have a `path` of its own, which is compared as it was sent.
        let mut actions = self.schema.actions();
        if actions.any(|(_, action)| !action.tollgate_context && !action.principals.is_empty()) {
            return;
        }
        let help = match normal {
            Ok(normal) if normal == path => return,
            Ok(normal) => format!("conditions see a path in its normal form: write `{normal}`"),
            Err(error) => format!("{error}; a request with such a path is refused before any rule is asked"),
        };
        let message = format!("no request has the path `{path}`, so that comparing with it is always false");
        self.warn(ProblemCode::NearMiss, file, place, message, Some(help));
    }

    /// Looks up one entity that is named as Cedar names it. Types of the bundle's own are left to Cedar's validator.
    pub(in crate::policy) fn entity_literal(&mut self, uid: &EntityUID, place: Place, file: &Arc<str>) {
        let Some(kind) = self.store.kind_of(&uid.entity_type().to_string()) else { return };
        let name = Name::new(SmolStr::new(uid.eid()), place);
        if kind.is_built_in() && !self.is_name(kind, &name, file) {
            return;
        }
        let reference = Reference { kind, name: &name, file, form: Form::Literal };
        match kind {
            Kind::ORG | Kind::TEAM | Kind::MODEL_GROUP => drop(self.declared_by(&reference)),
            Kind::USER | Kind::SERVICE | Kind::API_KEY | Kind::PROVIDER_ACCOUNT => drop(self.refer(&reference)),
            Kind::OWNER_KIND => self.owner_kind_literal(&name, file),
            _ if kind.namespace().is_some() => self.qualified_literal(&reference),
            // Only its declaration says what it leads to.
            _ if kind.leads_to().is_some() => drop(self.declared_by(&reference)),
            _ => {}
        }
    }

    /// Whether anything of that kind can have the name; a problem where it cannot, since no request can ask about it.
    fn is_name(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> bool {
        let Err(error) = kind.check_id(&name.value) else { return true };
        let help = "no request can name this; type the name anew".to_owned();
        self.error(ProblemCode::InvalidName, file, name.place, error.to_string(), Some(help));
        false
    }

    /// Looks up a resource that has a namespace, such as a model, by its full name.
    fn qualified_literal(&mut self, reference: &Reference<'_>) {
        let Reference { kind, name, file, .. } = *reference;
        let text = &name.value;
        let declared = self.store.find(kind, text).is_some_and(|index| self.store.record(index).declared);
        if declared {
            return;
        }
        if let Some(index) = self.alias(kind, text) {
            let real = self.store.uid(index);
            let message = format!("`{text}` is an alias, and a literal names a {} by its full name", kind.noun());
            self.error(ProblemCode::UnknownModel, file, name.place, message, Some(format!("write `{real}`")));
            return;
        }
        match text.split_once('/') {
            Some((container, rest)) if !container.is_empty() && !rest.is_empty() && !text.contains('*') => {
                if self.check_model_name(name, text, file) {
                    self.in_namespace(reference, container);
                }
            }
            _ => self.no_such_resource(reference),
        }
    }

    fn no_such_resource(&mut self, reference: &Reference<'_>) {
        let Reference { kind, name, file, .. } = *reference;
        let (text, noun) = (&name.value, kind.noun());
        if text.contains('*') {
            let message = format!("`{text}` names no {noun}: a `*` is no wildcard in an entity's id");
            let container = text.strip_suffix("/*").filter(|container| !container.contains(['/', '*']));
            let help = match container.zip(kind.namespace()) {
                Some((container, namespace)) => format!("write `resource in {}::{container:?}`", namespace.name()),
                None => format!("write `resource is {} && resource.name like {text:?}`", kind.name()),
            };
            self.error(ProblemCode::UnknownModel, file, name.place, message, Some(help));
            return;
        }
        let message = format!("no {noun} is called `{text}`");
        let container = kind.namespace().map_or("", Kind::short_noun);
        let help = format!("a literal names a {noun} in full, as `{}::\"{container}/{noun}\"`", kind.name());
        let problem = Problem::error(ProblemCode::UnknownModel, file, name.place, message).with_help(help);
        self.want(Near::Unqualified(kind), Form::Literal, text, problem);
    }

    /// The groups that contain the keys of all users, or of all services. No other groups of this type exist.
    fn owner_kind_literal(&mut self, name: &Name, file: &Arc<str>) {
        if OWNERS.contains(&name.value.as_str()) {
            self.store.intern(Kind::OWNER_KIND, &name.value);
            return;
        }
        let message = format!("no kind of owner is called `{}`", name.value);
        let help = "`OwnerKind::\"User\"` holds the keys of users, `OwnerKind::\"Service\"` those of services";
        self.error(ProblemCode::UnknownReference, file, name.place, message, Some(help.to_owned()));
    }
}

/// A path as conditions see it.
fn normal(path: &str) -> Result<String, PathError> {
    RequestPath::parse(path).map(|path| path.as_str().to_owned())
}

/// A pattern with these texts between its wildcards, as it can match what conditions see. One that does not begin with
/// `/` may be there to refuse what is refused anyway, such as `*%*`, and is left alone.
fn normal_pieces(pieces: &[String]) -> Result<String, PathError> {
    let (Some((first, rest)), true) = (pieces.split_first(), pieces.len() > 1) else {
        return normal(&pieces.concat());
    };
    if !first.starts_with('/') {
        return Ok(pieces.join("*"));
    }
    let mut whole = normal_pattern(first, true)?.to_string();
    for (number, piece) in rest.iter().enumerate() {
        if piece.contains('?') {
            return Err(PathError::Delimiter);
        }
        // With something before it, and behind it unless the path ends there, a piece is read as a part of a path.
        let end = if number + 1 == rest.len() { "" } else { "x" };
        let read = RequestPath::parse(&format!("/x{piece}{end}"))?;
        let piece = read.as_str().strip_prefix("/x").and_then(|piece| piece.strip_suffix(end));
        whole.push('*');
        whole.push_str(piece.ok_or(PathError::Escape)?);
    }
    Ok(whole)
}

/// How a reference to an entity reads in a message's help: the id alone in a list, the uid in Cedar.
pub(super) fn written(form: Form, kind: Kind, id: &str) -> String {
    match form {
        Form::List => id.to_owned(),
        Form::Literal => format!("{}::{}", kind.name(), crate::policy::cedar_text::quoted(id)),
    }
}
