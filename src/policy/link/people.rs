//! Orgs, teams, users, services and keys.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smol_str::{SmolStr, format_smolstr};

use super::literals::written;
use super::near::{Near, elsewhere};
use super::{Linker, MOST_WANTED, ParsedFile, a_kind, with_article};
use crate::model::{Container, parse_key_hash};
use crate::policy::entities::{Details, EntityIndex, Kind};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::{Document, Extras, GroupDeclaration, KeyDeclaration, MemberDeclaration, Name};

/// Who may own a key.
pub(super) const OWNERS: [&str; 4] = ["User", "Service", "Team", "Org"];

/// How a reference is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An id in a YAML list, where the list determines the kind.
    List,
    /// An entity in Cedar, such as `Team::"research"`.
    Literal,
}

/// A name that refers to an entity, with everything that a message about it needs.
#[derive(Clone, Copy)]
pub(super) struct Reference<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a Name,
    pub(super) file: &'a Arc<str>,
    pub(super) form: Form,
}

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
        }
        // What a member is in has been declared by now, so that each is looked up once.
        for file in files {
            let Document { users, services, keys, .. } = &file.document;
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
        let what = kind.noun();
        let native = record.details.as_ref().is_some_and(|details| details.native.is_some());
        let help = if native {
            Some("an `.entities.json` file declares it too; one of the two has to go".to_owned())
        } else {
            let first = first_declared(files, kind, &name.value);
            first.map(|(path, line)| format!("it is first declared at {path}:{line}; one of the two has to go"))
        };
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
        let teams = member.teams.iter().map(|membership| (Kind::TEAM, &membership.team));
        let orgs = member.orgs.iter().map(|org| (Kind::ORG, org));
        let mut parents = Vec::with_capacity(member.teams.len() + member.orgs.len());
        parents.extend(teams.chain(orgs).filter_map(|(kind, name)| self.declared(kind, name, &file.path)));
        self.set_parents(index, parents);
    }

    fn declare_key(&mut self, key: &KeyDeclaration, file: &Arc<ParsedFile>, files: &[Arc<ParsedFile>]) {
        if let Some(index) = self.declare(Kind::API_KEY, &key.id, file, files) {
            let mut made = details(&key.tags, &[], key.extras.as_deref());
            if let Some(hash) = parse_key_hash(&key.hash) {
                made.get_or_insert_with(Box::default).key_hash = Some(Box::new(hash));
            }
            self.store.record_mut(index).details = made;
        }
    }

    pub(super) fn link_people(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            for team in &file.document.teams {
                let org = team.org.as_ref().and_then(|org| self.declared(Kind::ORG, org, &file.path));
                let parent = team.parent.as_ref().and_then(|parent| self.declared(Kind::TEAM, parent, &file.path));
                let index = self.store.intern(Kind::TEAM, &team.id.value);
                self.set_parents(index, parent.into_iter().chain(org).collect());
            }
            for key in &file.document.keys {
                self.link_owner(key, file);
            }
        }
    }

    fn set_parents(&mut self, index: EntityIndex, mut parents: Vec<EntityIndex>) {
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
        let reference = Reference { kind, name: &name, file: &file.path, form: Form::Literal };
        let index = if matches!(kind, Kind::TEAM | Kind::ORG) {
            let Some(index) = self.declared_by(&reference) else { return };
            index
        } else {
            self.refer(&reference)
        };
        let owners = self.store.kind_text(kind).clone();
        let group = self.store.intern(Kind::OWNER_KIND, &owners);
        let key = self.store.intern(Kind::API_KEY, &key.id.value);
        self.set_parents(key, vec![index, group]);
    }

    /// The entity called `name` in a list, declared or not.
    pub(super) fn referred(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> EntityIndex {
        self.refer(&Reference { kind, name, file, form: Form::List })
    }

    /// The entity that is referred to, declared or not.
    pub(super) fn refer(&mut self, reference: &Reference<'_>) -> EntityIndex {
        let Reference { kind, name, .. } = *reference;
        if let Some(index) = self.store.find(kind, &name.value)
            && self.store.record(index).declared
        {
            return index;
        }
        if let Container::Namespace(members) = kind.container()
            && name.value.contains('/')
        {
            let of = kind.short_noun();
            let message = format!("no {of} can be called `{}`: {}'s id holds no `/`", name.value, with_article(of));
            let help = format!("the {of} of a {} is the part of its name before the first `/`", members.noun());
            self.error(ProblemCode::InvalidName, reference.file, name.place, message, Some(help));
        } else {
            self.warn_of_near_miss(reference);
        }
        self.store.intern(kind, &name.value)
    }

    /// The declared entity of a reference; a problem if it does not exist.
    pub(super) fn declared_by(&mut self, reference: &Reference<'_>) -> Option<EntityIndex> {
        let Reference { kind, name, file, form } = *reference;
        let found = self.store.find(kind, &name.value).filter(|index| self.store.record(*index).declared);
        if found.is_none() {
            let (what, section) = (kind.noun(), kind.section());
            let message = format!("no {what} is called `{}`", name.value);
            let problem = Problem::error(ProblemCode::UnknownReference, file, name.place, message);
            if let Some((of, id)) = uid_in(&name.value) {
                self.put(problem.with_help(in_place_of_a_uid(reference, of, id)));
            } else {
                let help = format!("declare it under `{section}:`, in any file of the bundle");
                self.want(Near::Declared(kind), form, &name.value, problem.with_help(help));
            }
        }
        found
    }

    /// An undeclared name is allowed. One that is nearly equal to a declared name, of this kind or another, is reported
    /// as a warning.
    fn warn_of_near_miss(&mut self, reference: &Reference<'_>) {
        let Reference { kind, name, file, form } = *reference;
        let problem = Problem::warning(ProblemCode::NearMiss, file, name.place, "");
        if let Some((of, id)) = uid_in(&name.value) {
            let message = format!("`{}` is an entity, and an id belongs here", name.value);
            self.put(Problem { message, ..problem.with_help(in_place_of_a_uid(reference, of, id)) });
            return;
        }
        // A direct look-up does not count against the maximum number of searches.
        let declared = |other: &&Kind| {
            self.store.find(**other, &name.value).is_some_and(|index| self.store.record(index).declared)
        };
        if let Some(other) = kind.confused_with().iter().find(declared) {
            let (what, section) = (kind.noun(), kind.section());
            let message = format!("no {what} is called `{}`, but there is {} `{0}`", name.value, a_kind(*other));
            let elsewhere = elsewhere(*other, form, &name.value);
            let help = format!("{elsewhere}, or declare `{}` under `{section}:`", name.value);
            self.put(Problem { message, ..problem.with_help(help) });
            return;
        }
        if self.wanted.len() < MOST_WANTED {
            self.want(Near::Slip(kind), form, &name.value, problem);
        }
    }
}

/// The type and the id of a name that is written like `User::"alice"`; the quotes may be missing.
pub(super) fn uid_in(name: &str) -> Option<(Kind, &str)> {
    let (of, id) = name.trim().split_once("::")?;
    let kind = Kind::named(of.trim()).filter(|kind| kind.list().is_some())?;
    let id = id.trim();
    let id = id.strip_prefix('"').and_then(|id| id.strip_suffix('"')).unwrap_or(id);
    (!id.is_empty()).then_some((kind, id))
}

/// The way out where a uid of type `of` stands where an id belongs.
pub(super) fn in_place_of_a_uid(reference: &Reference<'_>, of: Kind, id: &str) -> String {
    let Reference { kind, form, .. } = *reference;
    match form {
        Form::Literal => format!("write `{}`", written(form, of, id)),
        Form::List if of == kind => format!("write the id alone: `{id}`"),
        Form::List => format!("write the id alone, `{id}`, under `{}:`", of.list().unwrap_or_default()),
    }
}

/// Ids of a kind that differ only by case, by spaces at their ends or by characters that look alike; and ids that are
/// written like a uid.
pub(super) fn look_alikes(files: &[Arc<ParsedFile>]) -> Vec<Problem> {
    let names = || files.iter().flat_map(|file| declared_names(&file.document).map(move |name| (&file.path, name)));
    // By the hash of kind and skeleton alone: whether two names look alike is looked at for each pair.
    let hasher = RandomState::default();
    let mut first: HashTable<(u64, &SmolStr)> = HashTable::with_capacity(names().count());
    let mut found = Vec::new();
    for (path, (kind, name)) in names() {
        if let Some((_, id)) = uid_in(&name.value) {
            let message = format!("`{}` is an entity, and an id belongs here", name.value);
            let problem = Problem::warning(ProblemCode::NearMiss, path, name.place, message);
            found.push(problem.with_help(format!("write the id alone: `{id}`")));
        }
        let hash = skeleton_hash(&hasher, kind, &name.value);
        match first.entry(hash, |(known, _)| *known == hash, |(known, _)| *known) {
            Entry::Vacant(place) => drop(place.insert((hash, &name.value))),
            Entry::Occupied(known) => {
                let (_, first) = known.get();
                if look_alike(first, &name.value) {
                    let what = kind.noun();
                    let message = format!("the {what} `{}` looks like `{first}`", name.value);
                    let help = if first.trim() == name.value.trim() {
                        "they differ only by spaces at their ends, which are significant: remove the spaces"
                    } else {
                        "names are compared exactly; choose two names that a reader can distinguish"
                    };
                    found.push(Problem::warning(ProblemCode::LookAlikeId, path, name.place, message).with_help(help));
                }
            }
        }
    }
    found
}

/// The hash of what two names share that a reader takes for the same.
fn skeleton_hash(hasher: &RandomState, kind: Kind, name: &str) -> u64 {
    let name = name.trim();
    let mut state = hasher.build_hasher();
    kind.hash(&mut state);
    if name.is_ascii() {
        name.bytes().for_each(|byte| state.write_u8(ascii_skeleton(byte)));
    } else {
        skeleton(name).bytes().for_each(|byte| state.write_u8(byte));
    }
    state.finish()
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

/// Whether two names of the same skeleton differ by case, spaces at their ends or look-alikes, not just by an `i` and an
/// `l`.
fn look_alike(left: &str, right: &str) -> bool {
    if left == right {
        return false;
    }
    let (left, right) = (left.trim(), right.trim());
    let strict = |name: &str| skeleton(&unicode_security::skeleton(name).collect::<String>().replace('i', "\u{1}"));
    left.to_lowercase() == right.to_lowercase() || strict(left) == strict(right)
}

/// What two names share that a reader may take for the same: Unicode's confusable skeleton, without case, and with `i`
/// as `l` because `I` looks like it.
fn skeleton(name: &str) -> String {
    let folded = |character: char| match character {
        '0' => 'o',
        '1' | '|' | 'I' | 'i' => 'l',
        other => other,
    };
    if name.is_ascii() {
        // What the skeleton comes to for ASCII, quicker.
        return name.bytes().map(|byte| char::from(ascii_skeleton(byte))).collect();
    }
    unicode_security::skeleton(name).flat_map(char::to_lowercase).map(folded).collect()
}

fn ascii_skeleton(byte: u8) -> u8 {
    match byte {
        b'0' => b'o',
        b'1' | b'|' | b'I' | b'i' => b'l',
        other => other.to_ascii_lowercase(),
    }
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
