//! Orgs, teams, users, services and keys.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::{SmolStr, format_smolstr};

use super::{Linker, ParsedFile, kind_words};
use crate::policy::entities::{Details, EntityIndex, Kind};
use crate::policy::problem::ProblemCode;
use crate::policy::syntax::{Document, Extras, GroupDeclaration, KeyDeclaration, MemberDeclaration, Name};

/// Who may own a key.
const OWNERS: [&str; 4] = ["User", "Service", "Team", "Org"];

impl Linker<'_> {
    pub(super) fn declare_people(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            let Document { orgs, teams, users, services, keys, .. } = &file.document;
            self.counts.orgs += orgs.len();
            self.counts.teams += teams.len();
            self.counts.users += users.len();
            self.counts.services += services.len();
            self.counts.keys += keys.len();
            orgs.iter().for_each(|org| self.declare_group(Kind::ORG, org, file, files));
            teams.iter().for_each(|team| self.declare_group(Kind::TEAM, team, file, files));
            users.iter().for_each(|user| self.declare_member(Kind::USER, user, file, files));
            services.iter().for_each(|service| self.declare_member(Kind::SERVICE, service, file, files));
            keys.iter().for_each(|key| self.declare_key(key, file, files));
        }
    }

    /// Marks the entity as declared; a second declaration is a problem.
    pub(super) fn declare(
        &mut self,
        kind: Kind,
        name: &Name,
        file: &Arc<ParsedFile>,
        files: &[Arc<ParsedFile>],
    ) -> Option<EntityIndex> {
        let index = self.store.intern(kind, &name.value);
        let record = self.store.record_mut(index);
        if !record.declared {
            record.declared = true;
            return Some(index);
        }
        let (what, _) = kind_words(kind);
        let first = first_declared(files, kind, &name.value);
        let help = first.map(|(path, line)| format!("it is first declared at {path}:{line}; one of the two has to go"));
        let message = format!("the {what} `{}` is declared twice", name.value);
        self.error(ProblemCode::DuplicateId, &file.path, name.place, message, help);
        None
    }

    fn declare_group(
        &mut self,
        kind: Kind,
        group: &GroupDeclaration,
        file: &Arc<ParsedFile>,
        files: &[Arc<ParsedFile>],
    ) {
        if let Some(index) = self.declare(kind, &group.id, file, files) {
            self.store.record_mut(index).details = details(&group.tags, &[], group.extras.as_deref());
        }
    }

    fn declare_member(
        &mut self,
        kind: Kind,
        member: &MemberDeclaration,
        file: &Arc<ParsedFile>,
        files: &[Arc<ParsedFile>],
    ) {
        let Some(index) = self.declare(kind, &member.id, file, files) else { return };
        let mut made = details(&member.tags, &member.roles, member.extras.as_deref());
        let team_roles: Box<[SmolStr]> = member
            .teams
            .iter()
            .filter_map(|membership| Some(format_smolstr!("{}:{}", membership.team.value, membership.role.as_ref()?)))
            .collect();
        if !team_roles.is_empty() {
            made.get_or_insert_with(Box::default).team_roles = team_roles;
        }
        self.store.record_mut(index).details = made;
    }

    fn declare_key(&mut self, key: &KeyDeclaration, file: &Arc<ParsedFile>, files: &[Arc<ParsedFile>]) {
        if let Some(index) = self.declare(Kind::API_KEY, &key.id, file, files) {
            self.store.record_mut(index).details = details(&key.tags, &[], key.extras.as_deref());
        }
    }

    pub(super) fn link_people(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            for team in &file.document.teams {
                let org = team.org.as_ref().and_then(|org| self.declared(Kind::ORG, org, &file.path));
                let parent = team.parent.as_ref().and_then(|parent| self.declared(Kind::TEAM, parent, &file.path));
                self.set_parents(Kind::TEAM, &team.id, parent.into_iter().chain(org).collect());
            }
            for (kind, members) in [(Kind::USER, &file.document.users), (Kind::SERVICE, &file.document.services)] {
                for member in members {
                    let mut parents = Vec::with_capacity(member.teams.len() + member.orgs.len());
                    for membership in &member.teams {
                        parents.extend(self.declared(Kind::TEAM, &membership.team, &file.path));
                    }
                    for org in &member.orgs {
                        parents.extend(self.declared(Kind::ORG, org, &file.path));
                    }
                    self.set_parents(kind, &member.id, parents);
                }
            }
            for key in &file.document.keys {
                self.link_owner(key, file);
            }
        }
    }

    fn set_parents(&mut self, kind: Kind, name: &Name, mut parents: Vec<EntityIndex>) {
        let index = self.store.intern(kind, &name.value);
        parents.sort_unstable();
        parents.dedup();
        self.store.record_mut(index).parents = parents.into();
    }

    fn link_owner(&mut self, key: &KeyDeclaration, file: &Arc<ParsedFile>) {
        let owner = &key.owner.value;
        let kind = OWNERS.contains(&owner.kind()).then(|| self.store.kind_of(owner.kind())).flatten();
        let Some(kind) = kind else {
            let message = format!("a key cannot belong to `{owner}`");
            let help = "an owner is a User, Service, Team or Org, written `Service::\"support-bot\"`".to_owned();
            self.error(ProblemCode::InvalidValue, &file.path, key.owner.place, message, Some(help));
            return;
        };
        let name = Name::new(owner.id().into(), key.owner.place);
        let index = if matches!(kind, Kind::TEAM | Kind::ORG) {
            let Some(index) = self.declared(kind, &name, &file.path) else { return };
            index
        } else {
            self.warn_of_near_miss(kind, &name, &file.path);
            self.store.intern(kind, &name.value)
        };
        let owners = self.store.kind_text(kind).clone();
        let group = self.store.intern(Kind::OWNER_KIND, &owners);
        self.set_parents(Kind::API_KEY, &key.id, vec![index, group]);
    }

    /// A name that nobody declares is allowed; one that is a slip away from a declared one is worth a word.
    pub(super) fn warn_of_near_miss(&mut self, kind: Kind, name: &Name, file: &Arc<str>) {
        if let Some(index) = self.store.find(kind, &name.value)
            && self.store.record(index).declared
        {
            return;
        }
        let declared = match kind {
            Kind::USER => self.counts.users,
            Kind::SERVICE => self.counts.services,
            Kind::API_KEY => self.counts.keys,
            Kind::PROVIDER_ACCOUNT => self.counts.provider_accounts,
            _ => 0,
        };
        if declared == 0 {
            return;
        }
        if let Some(near) = self.near(kind, &name.value)
            && crate::policy::problem::edit_distance(&near, &name.value) == 1
        {
            let (what, section) = kind_words(kind);
            let message = format!("no {what} is called `{}`, but there is `{near}`", name.value);
            let help = format!("write `{near}` if that is meant, or declare `{}` under `{section}:`", name.value);
            self.warn(ProblemCode::NearMiss, file, name.place, message, Some(help));
        }
    }

    /// Ids of a kind that differ only by case or by characters that look alike.
    pub(super) fn warn_of_look_alikes(&mut self, files: &[Arc<ParsedFile>]) {
        let mut seen: HashMap<(Kind, String), SmolStr, RandomState> = HashMap::default();
        let mut found = Vec::new();
        for file in files {
            for (kind, name) in declared_names(&file.document) {
                match seen.get(&(kind, skeleton(&name.value))) {
                    Some(first) if look_alike(first, &name.value) => {
                        found.push((kind, name, first.clone(), &file.path))
                    }
                    Some(_) => {}
                    None => drop(seen.insert((kind, skeleton(&name.value)), name.value.clone())),
                }
            }
        }
        for (kind, name, first, path) in found {
            let (what, _) = kind_words(kind);
            let message = format!("the {what} `{}` looks like `{first}`", name.value);
            let help = "names are compared exactly; give the two names that a reader can tell apart".to_owned();
            self.warn(ProblemCode::LookAlikeId, path, name.place, message, Some(help));
        }
    }
}

fn declared_names(document: &Document) -> impl Iterator<Item = (Kind, &Name)> {
    let of = |kind: Kind| move |name| (kind, name);
    let orgs = document.orgs.iter().map(|one| &one.id).map(of(Kind::ORG));
    let teams = document.teams.iter().map(|one| &one.id).map(of(Kind::TEAM));
    let users = document.users.iter().map(|one| &one.id).map(of(Kind::USER));
    let services = document.services.iter().map(|one| &one.id).map(of(Kind::SERVICE));
    let keys = document.keys.iter().map(|one| &one.id).map(of(Kind::API_KEY));
    let accounts = document.provider_accounts.iter().map(|one| &one.id).map(of(Kind::PROVIDER_ACCOUNT));
    let groups = document.model_groups.iter().map(|one| &one.id).map(of(Kind::MODEL_GROUP));
    let routers = document.routers.iter().map(|one| &one.id).map(of(Kind::ROUTER));
    orgs.chain(teams).chain(users).chain(services).chain(keys).chain(accounts).chain(groups).chain(routers)
}

fn first_declared<'a>(files: &'a [Arc<ParsedFile>], kind: Kind, id: &str) -> Option<(&'a Arc<str>, u32)> {
    files.iter().find_map(|file| {
        declared_names(&file.document)
            .find(|(known, name)| *known == kind && name.value == id)
            .map(|(_, name)| (&file.path, name.place.line))
    })
}

/// Whether two names with the same skeleton differ by case or look-alikes, not just by an `i` and an `l`.
fn look_alike(left: &str, right: &str) -> bool {
    let strict = |name: &str| skeleton(&name.replace('i', "\u{1}"));
    left != right && (left.to_lowercase() == right.to_lowercase() || strict(left) == strict(right))
}

/// What two names share that a reader takes for the same: Unicode's confusable skeleton, without case.
fn skeleton(name: &str) -> String {
    if name.is_ascii() {
        // What the skeleton comes to for ASCII, quicker.
        return name
            .bytes()
            .map(|byte| match byte {
                b'0' => 'o',
                b'1' | b'|' | b'I' | b'i' => 'l',
                other => char::from(other.to_ascii_lowercase()),
            })
            .collect();
    }
    unicode_security::skeleton(&name.to_lowercase())
        .flat_map(char::to_lowercase)
        .map(|character| match character {
            '0' => 'o',
            '1' | '|' | 'i' => 'l',
            other => other,
        })
        .collect()
}

fn details(tags: &[Name], roles: &[Name], extras: Option<&Extras>) -> Option<Box<Details>> {
    if tags.is_empty() && roles.is_empty() && extras.is_none() {
        return None;
    }
    let values = |names: &[Name]| names.iter().map(|name| name.value.clone()).collect();
    Some(Box::new(Details {
        tags: values(tags),
        roles: values(roles),
        extras: extras.cloned().unwrap_or_default(),
        ..Details::default()
    }))
}
