//! Provider accounts, models, aliases, groups and routers.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::near::Near;
use super::people::{Form, Reference, in_place_of_a_uid, uid_in};
use super::{Linker, ParsedFile};
use crate::model::{NameError, check_model_name};
use crate::policy::entities::{Details, EntityIndex, Kind, Names, Pattern, Reach};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::{AccountDeclaration, Estimates, Extras, ModelDeclaration, ModelsDeclaration, Name};

impl Linker<'_> {
    pub(super) fn declare_models(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            self.counts.provider_accounts += file.document.provider_accounts.len();
            self.counts.model_groups += file.document.model_groups.len();
            self.counts.routers += file.document.routers.len();
            for account in &file.document.provider_accounts {
                self.declare_account(account, file, files);
            }
            for group in &file.document.model_groups {
                // A group's tags label the group; what narrows by `model_tags` are those of models and accounts.
                self.declare(Kind::MODEL_GROUP, &group.id, file, files);
            }
            for router in &file.document.routers {
                if let Some(index) = self.declare(Kind::ROUTER, &router.id, file, files) {
                    self.store.record_mut(index).details = router_details(router);
                }
            }
        }
        for file in files {
            for account in &file.document.provider_accounts {
                for model in account.models.iter().flatten() {
                    self.declare_aliases(account, model, file);
                }
            }
        }
    }

    fn declare_account(&mut self, account: &AccountDeclaration, file: &Arc<ParsedFile>, files: &[Arc<ParsedFile>]) {
        if account.id.value.contains('/') {
            let message = format!("an account's id may not hold a `/`: `{}`", account.id.value);
            let help = "the account of a model is the part of its name before the first `/`".to_owned();
            self.error(ProblemCode::InvalidName, &file.path, account.id.place, message, Some(help));
        }
        self.check_model_name(&account.id, &account.id.value, &file.path);
        let Some(index) = self.declare(Kind::PROVIDER_ACCOUNT, &account.id, file, files) else { return };
        self.store.record_mut(index).details = Some(Box::new(Details {
            tags: account.tags.iter().map(|tag| tag.value.clone()).collect(),
            extras: account.extras.as_deref().cloned().unwrap_or_default(),
            provider: account.provider.clone(),
            closed: account.models.is_some(),
            estimates: account.estimates,
            ..Details::default()
        }));
        for model in account.models.iter().flatten() {
            self.declare_model(index, account, model, file);
        }
    }

    fn declare_model(
        &mut self,
        account: EntityIndex,
        of: &AccountDeclaration,
        model: &ModelDeclaration,
        file: &ParsedFile,
    ) {
        self.counts.models += 1;
        self.check_model_name(&model.name, &model.name.value, &file.path);
        let index = self.store.intern(Kind::MODEL, &qualified(of, model));
        let twice = self.store.record(index).declared;
        let record = self.store.record_mut(index);
        record.declared = true;
        record.parents = Box::new([account]);
        record.switched_off = !model.enabled;
        let bare = model.tags.is_empty()
            && model.metadata.is_empty()
            && model.max_output_tokens.is_none()
            && model.estimates == Estimates::default()
            && model.price.is_none();
        record.details = (!bare).then(|| {
            Box::new(Details {
                tags: model.tags.iter().map(|tag| tag.value.clone()).collect(),
                extras: Extras { metadata: model.metadata.clone(), ..Extras::default() },
                max_output_tokens: model.max_output_tokens.and_then(|tokens| i64::try_from(tokens).ok()),
                estimates: model.estimates,
                price: model.price.clone(),
                ..Details::default()
            })
        });
        if twice {
            let message = format!("the model `{}` is listed twice", model.name.value);
            let help = "list it once, with all that there is to say of it".to_owned();
            self.error(ProblemCode::DuplicateId, &file.path, model.name.place, message, Some(help));
        }
    }

    fn declare_aliases(&mut self, account: &AccountDeclaration, model: &ModelDeclaration, file: &ParsedFile) {
        let Some(index) = self.store.find(Kind::MODEL, &qualified(account, model)) else { return };
        for alias in &model.aliases {
            self.check_model_name(alias, &alias.value, &file.path);
            let spellings = [alias.value.clone(), format_smolstr!("{}/{}", account.id.value, alias.value)];
            for spelling in spellings {
                let taken =
                    self.store.find(Kind::MODEL, &spelling).is_some_and(|other| self.store.record(other).declared);
                let other = Arc::make_mut(&mut self.aliases).insert(spelling.clone(), index);
                let clash = match other {
                    _ if taken => Some(format!("`{spelling}` is the name of a model, so it cannot be an alias")),
                    Some(other) if other != index => {
                        Some(format!("the alias `{spelling}` already stands for `{}`", self.store.record(other).id))
                    }
                    Some(_) => Some(format!("the alias `{spelling}` is given twice")),
                    None => None,
                };
                if let Some(message) = clash {
                    let help = "an alias stands for one model, and is no model's own name".to_owned();
                    self.error(ProblemCode::AliasClash, &file.path, alias.place, message, Some(help));
                    break;
                }
            }
        }
    }

    pub(super) fn link_models(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            for group in &file.document.model_groups {
                let Some(index) = self.store.find(Kind::MODEL_GROUP, &group.id.value) else { continue };
                for reach in self.reaches(group, file) {
                    self.put_in_group(reach, index);
                }
            }
            for router in &file.document.routers {
                let Some(index) = self.store.find(Kind::ROUTER, &router.id.value) else { continue };
                let reaches = self.reaches(router, file).into();
                self.store.record_mut(index).details.get_or_insert_with(Box::default).reaches = reaches;
            }
        }
    }

    fn reaches(&mut self, list: &ModelsDeclaration, file: &ParsedFile) -> Vec<Reach> {
        list.models.iter().filter_map(|name| self.model_name(name, &file.path)).collect()
    }

    fn put_in_group(&mut self, reach: Reach, group: EntityIndex) {
        let names = match reach {
            Reach::In(index) => return self.add_parent(index, group),
            Reach::Named(names) => names,
        };
        // Models that only requests name are matched when they are asked for; those of the store now.
        let of_store: Vec<EntityIndex> = self.store.named(&names).collect();
        for index in of_store {
            self.add_parent(index, group);
        }
        Arc::make_mut(&mut self.group_patterns).add(names, group);
    }

    fn add_parent(&mut self, child: EntityIndex, parent: EntityIndex) {
        let record = self.store.record_mut(child);
        if !record.parents.contains(&parent) {
            record.parents = record.parents.iter().copied().chain([parent]).collect();
        }
    }

    /// What a name in a list of models stands for; a problem where it stands for nothing.
    pub(super) fn model_name(&mut self, name: &Name, file: &Arc<str>) -> Option<Reach> {
        let text = &name.value;
        if text == "*" {
            return Some(Reach::Named(Names::Every(Kind::MODEL)));
        }
        // A name without an account or without a model part is reported below as unknown.
        let is_whole = !text.starts_with('/') && !text.ends_with('/');
        if is_whole && !self.check_model_name(name, text, file) {
            return None;
        }
        if let Some(account) = text.strip_suffix("/*")
            && !account.contains(['/', '*'])
            && !account.is_empty()
        {
            let account = Name::new(account.into(), name.place);
            return Some(Reach::In(self.referred(Kind::PROVIDER_ACCOUNT, &account, file)));
        }
        if text.contains('*') {
            return Some(self.model_pattern(name, file));
        }
        if let Some(index) = self.alias(Kind::MODEL, text) {
            return Some(Reach::In(index));
        }
        let reference = Reference { kind: Kind::MODEL, name, file, form: Form::List };
        if let Some((of, id)) = uid_in(text) {
            let message = format!("`{text}` is not a model's name");
            let help = in_place_of_a_uid(&reference, of, id);
            self.warn(ProblemCode::NearMiss, file, name.place, message, Some(help));
            return Some(Reach::In(self.store.intern(Kind::MODEL, text)));
        }
        match text.split_once('/') {
            Some((account, rest)) if !account.is_empty() && !rest.is_empty() => {
                Some(Reach::In(self.in_namespace(&reference, account)))
            }
            _ => {
                let message = format!("no model is called `{text}`");
                let help = "name a model as account/model, or declare this as an alias of one";
                let problem = Problem::error(ProblemCode::UnknownModel, file, name.place, message).with_help(help);
                self.want(Near::Unqualified(Kind::MODEL), Form::List, text, problem);
                None
            }
        }
    }

    /// The resource that has this alias.
    pub(super) fn alias(&self, kind: Kind, text: &SmolStr) -> Option<EntityIndex> {
        self.aliases.get(text).copied().filter(|index| self.store.record(*index).kind == kind)
    }

    /// Whether a text may name a model, or a part of it.
    pub(super) fn check_model_name(&mut self, name: &Name, text: &str, file: &Arc<str>) -> bool {
        // Other invalid characters were reported when the name was read.
        let steps = check_model_name(text) == Err(NameError::Segment);
        if steps {
            let message = format!("`{}`: {}", text.escape_debug(), NameError::Segment);
            let help = "gateways put the name into the path of a provider, where it would lead to another model";
            self.error(ProblemCode::InvalidName, file, name.place, message, Some(help.to_owned()));
        }
        !steps
    }

    /// The referenced resource, in the `container` from its name: a model in its account. Only a kind that has a
    /// `namespace` is referred to in this way.
    pub(super) fn in_namespace(&mut self, reference: &Reference<'_>, container: &str) -> EntityIndex {
        let Reference { kind, name, file, form } = *reference;
        let index = self.store.intern(kind, &name.value);
        let Some(namespace) = kind.namespace().filter(|_| !self.store.record(index).declared) else { return index };
        let container_index = self.store.intern(namespace, &container.into());
        self.place_in_namespace(index);
        let lists = self.store.record(container_index).details.as_ref().is_some_and(|details| details.closed);
        if lists && kind.is_closed_when_listed() {
            let (noun, list) = (kind.noun(), kind.list().unwrap_or_default());
            let of = namespace.short_noun();
            let message = format!("the {of} `{container}` lists no {noun} `{}`", name.value);
            let help =
                format!("list it under the {of}'s `{list}:`, or this names nothing; `{container}` lists its {list}");
            let problem = Problem::warning(ProblemCode::UnlistedModel, file, name.place, message).with_help(help);
            self.want(Near::Declared(kind), form, &name.value, problem);
        } else {
            // The misspelt part is the container within the resource's name.
            let container = Name::new(container.into(), name.place);
            self.referred(namespace, &container, file);
        }
        index
    }

    /// Puts a resource that its namespace does not list into it, and into the groups whose patterns match it. A kind
    /// without a namespace is left as it is.
    pub(crate) fn place_in_namespace(&mut self, index: EntityIndex) {
        let Some(namespace) = self.store.record(index).kind.namespace() else { return };
        // One that a declaration names is where it belongs.
        if self.store.is_complete(index) {
            return;
        }
        let (kind, id) = (self.store.record(index).kind, self.store.record(index).id.clone());
        let container = id.split_once('/').filter(|(container, rest)| !container.is_empty() && !rest.is_empty());
        let container = container.map(|(container, _)| self.store.intern(namespace, &container.into()));
        let groups: Vec<EntityIndex> = self.group_patterns.matching(kind, &id).collect();
        for parent in container.into_iter().chain(groups) {
            self.add_parent(index, parent);
        }
    }

    fn model_pattern(&mut self, name: &Name, file: &Arc<str>) -> Reach {
        let pattern = Names::Matching(Pattern::new(Kind::MODEL, name.value.clone()));
        let account = name.value.split('/').next().unwrap_or_default();
        let closed = |index| self.store.record(index).details.as_ref().is_some_and(|details| details.closed);
        let only_listed = if account.contains('*') {
            false
        } else {
            self.store.find(Kind::PROVIDER_ACCOUNT, account).is_some_and(closed)
        };
        let declared = |index: EntityIndex| self.store.record(index).declared;
        let matches_some = || self.store.named(&pattern).any(declared);
        if !name.value.contains('/') || (only_listed && !matches_some()) {
            let message = format!("the pattern `{}` matches no model", name.value);
            let help = "a `*` never crosses a `/`; a model's name is account/model".to_owned();
            self.warn(ProblemCode::PatternMatchesNothing, file, name.place, message, Some(help));
        }
        Reach::Named(pattern)
    }
}

fn qualified(account: &AccountDeclaration, model: &ModelDeclaration) -> SmolStr {
    format_smolstr!("{}/{}", account.id.value, model.name.value)
}

fn router_details(list: &ModelsDeclaration) -> Option<Box<Details>> {
    (!list.tags.is_empty() || !list.metadata.is_empty()).then(|| {
        Box::new(Details {
            tags: list.tags.iter().map(|tag| tag.value.clone()).collect(),
            extras: Extras { metadata: list.metadata.clone(), ..Extras::default() },
            ..Details::default()
        })
    })
}
