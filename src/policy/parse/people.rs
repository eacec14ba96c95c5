//! Orgs, teams, users, services, and the keys that are kept in git.

use std::collections::HashMap;

use crate::model::{AllowedPath, EntityUid, Network, PasswordHash, PathError, parse_key_hash};
use crate::policy::problem::ProblemCode;
use crate::policy::syntax::{
    Extras, GroupDeclaration, KeyDeclaration, LimitDeclaration, Located, MemberDeclaration, Membership, Name, Place,
};
use crate::policy::yaml::{Kind, Node};

use super::fields::{Fields, Findings, Wildcard};
use super::limits;

// The keys of each declaration; `schema/rules.schema.json` has the same.
pub(super) const ORG: &[&str] = &["id", "tags", "external_id", "expires_at", "disabled", "metadata"];
pub(super) const TEAM: &[&str] = &["id", "org", "parent", "tags", "external_id", "expires_at", "disabled", "metadata"];
pub(super) const MEMBER: &[&str] = &[
    "id",
    "team",
    "teams",
    "org",
    "orgs",
    "roles",
    "tags",
    "email",
    "external_id",
    "password_hash",
    "expires_at",
    "disabled",
    "metadata",
];
pub(super) const MEMBERSHIP: &[&str] = &["id", "role"];
pub(super) const KEY: &[&str] = &[
    "id",
    "hash",
    "owner",
    "models",
    "routers",
    "actions",
    "paths",
    "networks",
    "limits",
    "tags",
    "expires_at",
    "disabled",
    "metadata",
];
pub(super) const PATH: &[&str] = &["path", "methods"];
/// Most paths, and most networks, of one key.
const MAX_ALLOWED: usize = 100;

pub(super) fn org(node: &Node, findings: &Findings) -> Option<GroupDeclaration> {
    group(&Fields::of(node, "an org", ORG, findings)?)
}

pub(super) fn team(node: &Node, findings: &Findings) -> Option<GroupDeclaration> {
    group(&Fields::of(node, "a team", TEAM, findings)?)
}

fn group(fields: &Fields) -> Option<GroupDeclaration> {
    let id = fields.id("id");
    let (org, parent) = (fields.name("org"), fields.name("parent"));
    let tags = fields.names("tags", Wildcard::Never);
    let extras = extras(fields);
    Some(GroupDeclaration { id: id?, org, parent, tags, extras })
}

/// A user or a service, whichever `what` says.
pub(super) fn member(node: &Node, what: &'static str, findings: &Findings) -> Option<MemberDeclaration> {
    let fields = Fields::of(node, what, MEMBER, findings)?;
    let id = fields.id("id");
    let teams = teams(&fields);
    let orgs = orgs(&fields);
    let (roles, tags) = (fields.names("roles", Wildcard::Never), fields.names("tags", Wildcard::Never));
    let extras = extras(&fields);
    Some(MemberDeclaration { id: id?, teams, orgs, roles, tags, extras })
}

/// `team` and `teams` together.
fn teams(fields: &Fields) -> Box<[Membership]> {
    let one = fields.get("team").and_then(|node| membership(node, fields.findings));
    let list = fields.get("teams").and_then(|node| fields.findings.list(node, "teams", "names")).unwrap_or_default();
    let mut teams: Vec<Membership> = Vec::with_capacity(list.len() + usize::from(one.is_some()));
    let mut seen = HashMap::new();
    for membership in one.into_iter().chain(list.iter().filter_map(|node| membership(node, fields.findings))) {
        let team = &membership.team;
        if let Some(first) = seen.get(&team.value) {
            said_twice(team, *first, fields.findings);
        } else {
            seen.insert(team.value.clone(), team.place);
            teams.push(membership);
        }
    }
    teams.into()
}

/// A team's name, or `{ id, role }`.
fn membership(node: &Node, findings: &Findings) -> Option<Membership> {
    if !matches!(node.kind, Kind::Mapping(_)) {
        let way_out = || "name the teams; a membership takes no wildcard".to_owned();
        return Some(Membership { team: findings.name(node, Wildcard::Never, way_out)?, role: None });
    }
    let fields = Fields::of(node, "a membership", MEMBERSHIP, findings)?;
    let team = fields.id("id");
    let role = fields.name("role").map(|role| role.value);
    Some(Membership { team: team?, role })
}

/// `org` and `orgs` together.
fn orgs(fields: &Fields) -> Box<[Name]> {
    let list = fields.names("orgs", Wildcard::Never);
    let Some(one) = fields.name("org") else { return list };
    if let Some(again) = list.iter().find(|org| org.value == one.value) {
        said_twice(again, one.place, fields.findings);
        return list;
    }
    std::iter::once(one).chain(list).collect()
}

fn said_twice(again: &Name, first: Place, findings: &Findings) {
    let message = format!("`{}` is named twice", again.value);
    let help = format!("it stands first in line {}; remove one of the two", first.line);
    findings.warning(ProblemCode::DuplicateName, again.place, message).help(help);
}

/// A key, and the limits that bind it alone.
pub(super) fn key(node: &Node, findings: &Findings) -> Option<(KeyDeclaration, Box<[LimitDeclaration]>)> {
    let fields = Fields::of(node, "a key", KEY, findings)?;
    let narrowed = |field, wildcard| fields.has(field).then(|| fields.names(field, wildcard));
    let id = fields.id("id");
    let hash = fields.required("hash").and_then(|node| {
        let scalar = findings.scalar(node, "a hash")?;
        let hash = findings.checked(&scalar.text, node.place)?;
        if parse_key_hash(&hash).is_none() {
            let message = "this is no hash that Tollgate can check, so that no credential proves this key";
            let help = "`tollgate keys hash` makes a key and its hash: `sha256:` and 64 hexadecimal digits";
            findings.warning(ProblemCode::InvalidValue, node.place, message).help(help);
        }
        Some(hash)
    });
    let owner = owner(&fields);
    let models = narrowed("models", Wildcard::Pattern);
    let routers = narrowed("routers", Wildcard::All);
    let actions = narrowed("actions", Wildcard::Never);
    let (paths, networks) = (allowed(&fields, "paths", path), allowed(&fields, "networks", network));
    let limits = id.as_ref().map(|id| limits::declared_of_key(&fields, id)).unwrap_or_default();
    let tags = fields.names("tags", Wildcard::Never);
    let extras = extras(&fields);
    let (id, hash, owner) = (id?, hash?, owner?);
    let key = KeyDeclaration { id, hash, owner, models, routers, actions, paths, networks, tags, extras };
    Some((key, limits))
}

/// What a key may be used for or from; `None` where nothing is said of it. Where something is said and none of it can be
/// read, it is an error that is told.
fn allowed<T>(fields: &Fields, name: &str, read: fn(&Node, &Findings) -> Option<T>) -> Option<Box<[T]>> {
    let node = fields.get(name)?;
    let items = fields.findings.list(node, name, name)?;
    if items.len() > MAX_ALLOWED {
        let message = format!("`{name}` names {} of them, and {MAX_ALLOWED} is the most", items.len());
        fields.findings.error(ProblemCode::InvalidValue, node.place, message).help("name what they have in common");
        return None;
    }
    let read: Box<[T]> = items.iter().filter_map(|item| read(item, fields.findings)).collect();
    (!read.is_empty()).then_some(read)
}

/// `/v1/*`, or `{ path: /v1/models, methods: [GET] }`.
fn path(node: &Node, findings: &Findings) -> Option<AllowedPath> {
    let (text, methods) = match &node.kind {
        Kind::Mapping(_) => {
            let fields = Fields::of(node, "a path", PATH, findings)?;
            let methods = fields.names("methods", Wildcard::Never);
            if let Some(wrong) = methods.iter().find(|method| !AllowedPath::is_method(&method.value)) {
                let message = format!("`{}` is no method", wrong.value);
                findings.error(ProblemCode::InvalidValue, wrong.place, message).help("write it in capitals: `POST`");
                return None;
            }
            (fields.required("path")?, methods.iter().map(|method| method.value.clone()).collect())
        }
        _ => (node, Box::default()),
    };
    let said = &findings.scalar(text, "a path")?.text;
    let path = AllowedPath::new(said, methods);
    if path.is_none() {
        let help = "a path begins with `/`, and a `*` at its end takes every rest: `/v1/chat/completions`, `/v1/*`";
        let message = match AllowedPath::why_not(said) {
            None | Some(PathError::Relative) => "this is no path".to_owned(),
            Some(error) => format!("no request has this path: {error}"),
        };
        findings.error(ProblemCode::InvalidValue, text.place, message).help(help);
    }
    path
}

fn network(node: &Node, findings: &Findings) -> Option<Network> {
    let network = Network::parse(&findings.scalar(node, "a network")?.text);
    if network.is_none() {
        let help = "a network is an address and how many of its leading bits count: `10.0.0.0/8`, `2001:db8::/32`";
        findings.error(ProblemCode::InvalidValue, node.place, "this is no network").help(help);
    }
    network
}

/// Whose key it is: a user's, a service's, a team's or an org's.
fn owner(fields: &Fields) -> Option<Located<EntityUid>> {
    let node = fields.required("owner")?;
    let scalar = fields.findings.scalar(node, "an entity uid")?;
    let help = "write `'User::\"alice\"'` or `'Service::\"support-bot\"'`, in single quotes";
    match scalar.text.parse::<EntityUid>() {
        Ok(uid) if matches!(uid.kind(), "User" | "Service" | "Team" | "Org") => Some(Located::new(uid, node.place)),
        Ok(uid) => {
            let message = format!("a key belongs to a User, Service, Team or Org, not to a {}", uid.kind());
            fields.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
            None
        }
        Err(error) => {
            fields.findings.error(ProblemCode::InvalidValue, node.place, error.to_string()).help(help);
            None
        }
    }
}

/// What is kept of a password. Nothing of it is shown, and so the place is that of its key: it may be the password itself.
fn password(fields: &Fields) -> Option<PasswordHash> {
    let (key, _) = fields.entry("password_hash")?;
    let node = fields.get("password_hash")?;
    let scalar = fields.findings.scalar(node, "an argon2id hash")?;
    let error = match PasswordHash::parse(&scalar.text) {
        Ok(hash) => return Some(hash),
        Err(error) => error,
    };
    let help = "`tollgate password hash` makes one: `password_hash: \"$argon2id$v=19$m=19456,t=2,p=1$…\"`";
    let message = format!("this `password_hash` is not taken: {error}");
    fields.findings.error(ProblemCode::PasswordHash, key.place, message).help(help);
    None
}

/// What few declarations say; `None` where none of it is said.
pub(super) fn extras(fields: &Fields) -> Option<Box<Extras>> {
    let extras = Extras {
        email: fields.text("email"),
        external_id: fields.text("external_id"),
        password: password(fields),
        expires_at: fields.instant("expires_at"),
        disabled: fields.switch("disabled").unwrap_or(false),
        metadata: fields.metadata(),
    };
    (extras != Extras::default()).then(|| Box::new(extras))
}
