//! Entity types, and the table of Tollgate's own. What sets one kind of resource apart from another is a column of the
//! table, so that code reads the column and does not name the kind.
//!
//! A new kind of resource is one row of the table and one entity in `schema/tollgate.cedarschema`. If YAML files can
//! declare or list it, its key is also added to the grammar (`policy/syntax.rs`, `policy/parse/`). `tests/layering.rs`
//! lists the files that may name one kind, each with the reason.

use smol_str::SmolStr;

use super::uid::{EntityUid, NameError, UidError, check_model_name, check_name};

/// An entity type, by its number: first the rows of the table, then the types that schema fragments of a bundle add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub(crate) u16);

/// The members of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Nothing. `in` an entity of the kind is the same as `==` to it.
    Nothing,
    /// Entities that are `in` it in Cedar's sense, and that are no resources: a team and its users, a user and its keys.
    Principals,
    /// Resources of this kind, which are `in` it. Their names begin with its id and a slash: `account/model`.
    Namespace(Kind),
    /// Resources of this kind, which are `in` it because it lists them: a model group.
    Group(Kind),
    /// Resources of this kind, which it lists and leads to. They are not `in` it: a permit for a router is no permit for
    /// its models.
    Route(Kind),
}

/// A kind: one row of the table.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each column is a property of its own")]
struct Row {
    /// The entity type in the schema.
    name: &'static str,
    /// What messages call an entity of the kind.
    noun: &'static str,
    /// The top-level key under which YAML files declare it.
    section: &'static str,
    /// The key under which rules and limits list it; `None` if no list of a YAML file takes its ids.
    list: Option<&'static str>,
    /// Kinds whose ids are searched, in this order, for an id that this kind does not have.
    confused_with: &'static [Kind],
    /// See [`Kind::has_aliases`].
    aliases: bool,
    /// See [`Kind::is_priced`].
    priced: bool,
    /// See [`Kind::grants_access`].
    grants_access: bool,
    /// See [`Kind::is_closed_when_listed`].
    closed_when_listed: bool,
    /// See [`Kind::container`].
    container: Container,
}

/// A row in which each column has its usual value.
const ROW: Row = Row {
    name: "",
    noun: "entity",
    section: "entities",
    list: None,
    confused_with: &[],
    aliases: false,
    priced: false,
    grants_access: false,
    closed_when_listed: false,
    container: Container::Nothing,
};

/// Numbers the rows in order, so that each kind is named in one place.
macro_rules! kinds {
    ($($constant:ident { $($column:ident: $value:expr),* $(,)? })*) => {
        #[expect(clippy::upper_case_acronyms, non_camel_case_types, reason = "only the positions of the names are used")]
        enum Position { $($constant),* }

        impl Kind {
            $(#[doc = concat!("The kind of this name: `", stringify!($constant), "`.")]
            pub const $constant: Self = Self(Position::$constant as u16);)*
        }

        const ROWS: [Row; [$(Position::$constant as u16),*].len()] = [$(Row { $($column: $value,)* ..ROW }),*];
    };
}

kinds! {
    ORG {
        name: "Org", noun: "org", section: "orgs", list: Some("orgs"), container: Container::Principals,
        confused_with: &[Kind::TEAM, Kind::USER, Kind::SERVICE, Kind::API_KEY],
    }
    TEAM {
        name: "Team", noun: "team", section: "teams", list: Some("teams"), container: Container::Principals,
        confused_with: &[Kind::ORG, Kind::USER, Kind::SERVICE, Kind::API_KEY],
    }
    USER {
        name: "User", noun: "user", section: "users", list: Some("users"), container: Container::Principals,
        confused_with: &[Kind::SERVICE, Kind::TEAM, Kind::ORG, Kind::API_KEY],
    }
    SERVICE {
        name: "Service", noun: "service", section: "services", list: Some("services"), container: Container::Principals,
        confused_with: &[Kind::USER, Kind::TEAM, Kind::ORG, Kind::API_KEY],
    }
    API_KEY {
        name: "ApiKey", noun: "key", section: "keys", list: Some("keys"),
        confused_with: &[Kind::USER, Kind::SERVICE, Kind::TEAM, Kind::ORG],
    }
    OWNER_KIND { name: "OwnerKind", container: Container::Principals }
    PROVIDER_ACCOUNT {
        name: "ProviderAccount", noun: "provider account", section: "provider_accounts", list: Some("provider_accounts"),
        container: Container::Namespace(Kind::MODEL),
        confused_with: &[Kind::MODEL_GROUP, Kind::ROUTER],
    }
    MODEL_GROUP {
        name: "ModelGroup", noun: "model group", section: "model_groups", list: Some("model_groups"),
        container: Container::Group(Kind::MODEL),
        confused_with: &[Kind::PROVIDER_ACCOUNT, Kind::ROUTER],
    }
    MODEL {
        name: "Model", noun: "model", section: "provider_accounts", list: Some("models"),
        aliases: true, priced: true, closed_when_listed: true,
    }
    ROUTER {
        name: "Router", noun: "router", section: "routers", list: Some("routers"),
        grants_access: true, container: Container::Route(Kind::MODEL),
        confused_with: &[Kind::MODEL_GROUP, Kind::PROVIDER_ACCOUNT],
    }
    // The last row: its entity belongs to the request, and kinds after it belong to a bundle.
    METADATA { name: "Metadata" }
}

/// For each row, the kind whose ids begin its names. Decisions read it, so it is worked out by the compiler.
const NAMESPACES: [Option<Kind>; ROWS.len()] = {
    let mut namespaces = [None; ROWS.len()];
    let mut number = 0;
    let mut rows: &[Row] = &ROWS;
    while let [row, rest @ ..] = rows {
        if let Container::Namespace(Kind(member)) = row.container {
            let (_, from_member) = namespaces.split_at_mut(member as usize);
            if let [namespace, ..] = from_member {
                *namespace = Some(Kind(number));
            }
        }
        number += 1;
        rows = rest;
    }
    namespaces
};

impl Kind {
    /// The kinds of the table, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::METADATA.0).map(Self)
    }

    /// The kind of the table with this entity type.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    fn row(self) -> &'static Row {
        static ROWS_IN_PLACE: [Row; ROWS.len()] = ROWS;
        static OTHER: Row = ROW;
        ROWS_IN_PLACE.get(usize::from(self.0)).unwrap_or(&OTHER)
    }

    /// Whether the kind is one of Tollgate's own whose entities a bundle can name. Metadata is not: it belongs to a request.
    #[must_use]
    pub const fn is_built_in(self) -> bool {
        self.0 < Self::METADATA.0
    }

    /// The entity type in the schema; empty for a kind that is not in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What messages call an entity of the kind.
    #[must_use]
    pub fn noun(self) -> &'static str {
        self.row().noun
    }

    /// The last word of the noun, for a message that is about the members: the account of a model.
    #[must_use]
    pub fn short_noun(self) -> &'static str {
        self.noun().rsplit(' ').next().unwrap_or_default()
    }

    /// The top-level key under which YAML files declare entities of the kind.
    #[must_use]
    pub fn section(self) -> &'static str {
        self.row().section
    }

    /// The key under which rules, limits and API keys list entities of the kind, if any.
    #[must_use]
    pub fn list(self) -> Option<&'static str> {
        self.row().list
    }

    /// Kinds whose ids are searched, in this order, for an id that this kind does not have.
    #[must_use]
    pub fn confused_with(self) -> &'static [Self] {
        self.row().confused_with
    }

    /// Whether a resource of the kind may have aliases. An alias is the resource: whatever name a request uses, the rules of
    /// the resource decide, and the answer has its real name.
    #[must_use]
    pub fn has_aliases(self) -> bool {
        self.row().aliases
    }

    /// Whether a resource of the kind can have a price, by which its use charges limits in USD. The use of a router is
    /// charged by the price of the model that it led to.
    #[must_use]
    pub fn is_priced(self) -> bool {
        self.row().priced
    }

    /// Whether a permit for a resource of the kind is a grant of its own: the resources that it leads to can be used
    /// through it without a permit of theirs, but not directly. A key that lists some of them has no other of these
    /// grants, and a key that lists grants may use the resources only through them.
    #[must_use]
    pub fn grants_access(self) -> bool {
        self.row().grants_access
    }

    /// Whether a namespace that lists its members is closed: another name in it is unknown in a request, and a warning in a
    /// bundle. Of a kind without this, every name can be asked about.
    #[must_use]
    pub fn is_closed_when_listed(self) -> bool {
        self.row().closed_when_listed
    }

    /// What entities of the kind contain.
    #[must_use]
    pub fn container(self) -> Container {
        self.row().container
    }

    /// Whether other entities can be `in` an entity of the kind. In an entity of a type that a bundle adds, they can.
    #[must_use]
    pub fn has_descendants(self) -> bool {
        !self.is_built_in() || !matches!(self.container(), Container::Nothing | Container::Route(_))
    }

    /// The kind of the resources that an entity of the kind contains or leads to.
    #[must_use]
    pub fn members(self) -> Option<Self> {
        match self.container() {
            Container::Namespace(members) | Container::Group(members) | Container::Route(members) => Some(members),
            Container::Nothing | Container::Principals => None,
        }
    }

    /// The kind of the resources that an entity of the kind leads to without containing them: those behind a router.
    #[must_use]
    pub fn leads_to(self) -> Option<Self> {
        match self.container() {
            Container::Route(members) => Some(members),
            _ => None,
        }
    }

    /// The kinds that grant access to resources of the kind.
    pub fn grants(self) -> impl Iterator<Item = Self> {
        Self::all().filter(move |kind| kind.grants_access() && kind.leads_to() == Some(self))
    }

    /// The kind whose ids begin the names of the kind: an account for a model.
    #[must_use]
    pub fn namespace(self) -> Option<Self> {
        NAMESPACES.get(usize::from(self.0)).copied().flatten()
    }

    /// Checks that `id` may name an entity of the kind. In a namespace it may not step out of it.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn check_id(self, id: &str) -> Result<(), NameError> {
        if self.namespace().is_some() { check_model_name(id) } else { check_name(id) }
    }

    /// The uid of the entity of the kind with this id.
    ///
    /// # Errors
    /// If it is not a valid id, or the kind is not in the table.
    pub fn uid(self, id: impl Into<SmolStr>) -> Result<EntityUid, UidError> {
        EntityUid::new(SmolStr::new_static(self.name()), id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The types of the table for which `column` holds.
    fn with(column: impl Fn(Kind) -> bool) -> Vec<&'static str> {
        Kind::all().filter(|kind| column(*kind)).map(Kind::name).collect()
    }

    #[test]
    fn every_row_is_one_entity_type_of_the_schema() {
        let schema = include_str!("../../schema/tollgate.cedarschema");
        let types = schema.lines().filter_map(|line| line.strip_prefix("entity "));
        let types: BTreeSet<&str> = types.filter_map(|rest| rest.split([' ', ';']).next()).collect();
        assert_eq!(BTreeSet::from_iter(with(|_| true)), types);
        assert_eq!(types.len(), ROWS.len());
        assert_eq!(Kind::METADATA.0 as usize + 1, ROWS.len(), "metadata is the last row");
    }

    #[test]
    fn aliases() {
        assert_eq!(with(Kind::has_aliases), ["Model"]);
    }

    #[test]
    fn priced() {
        assert_eq!(with(Kind::is_priced), ["Model"]);
    }

    #[test]
    fn grants_access() {
        assert_eq!(with(Kind::grants_access), ["Router"]);
        assert_eq!(Kind::MODEL.grants().collect::<Vec<_>>(), [Kind::ROUTER]);
        assert_eq!(Kind::ROUTER.grants().count(), 0);
    }

    #[test]
    fn closed_when_listed() {
        assert_eq!(with(Kind::is_closed_when_listed), ["Model"]);
    }

    #[test]
    fn container() {
        assert_eq!(with(|kind| kind.members().is_some()), ["ProviderAccount", "ModelGroup", "Router"]);
        assert_eq!(with(|kind| kind.leads_to().is_some()), ["Router"]);
        assert_eq!(with(|kind| kind.namespace().is_some()), ["Model"]);
        assert_eq!(Kind::MODEL.namespace(), Some(Kind::PROVIDER_ACCOUNT));
        assert_eq!(with(|kind| !kind.has_descendants()), ["ApiKey", "Model", "Router"]);
    }

    /// What code relies on in every row, so that a new one that is incomplete fails here.
    #[test]
    fn columns_fit_together() {
        for kind in Kind::all() {
            let row = kind.row();
            let name = row.name;
            assert_eq!(Kind::named(name), Some(kind));
            assert!(!row.grants_access || kind.leads_to().is_some(), "{name} grants access to what it leads to");
            assert!(!row.closed_when_listed || kind.namespace().is_some(), "{name} is listed in a namespace");
            assert!(!row.aliases || kind.namespace().is_some(), "the aliases of {name} are declared in a namespace");
            let namespaces = Kind::all().filter(|of| of.container() == Container::Namespace(kind)).count();
            assert!(namespaces <= 1, "{name} has {namespaces} namespaces");
            let members = kind.members().map(Kind::container);
            assert!(matches!(members, None | Some(Container::Nothing)), "what {name} contains is no container");
        }
    }

    #[test]
    fn a_kind_that_a_bundle_adds_has_the_usual_columns() {
        let added = Kind(Kind::METADATA.0 + 1);
        assert!(!added.is_built_in() && added.has_descendants());
        assert!(!added.has_aliases() && !added.is_priced() && !added.grants_access() && !added.is_closed_when_listed());
        assert_eq!((added.members(), added.namespace(), added.list()), (None, None, None));
        assert_eq!((added.noun(), added.section()), ("entity", "entities"));
        assert!(added.uid("a").is_err());
    }

    #[test]
    fn an_id_in_a_namespace_stays_in_it() {
        assert_eq!(Kind::MODEL.check_id("a/../b"), Err(NameError::Segment));
        assert_eq!(Kind::ROUTER.check_id("a/../b"), Ok(()));
        assert_eq!(Kind::ROUTER.uid("chat").map(|uid| uid.to_string()), Ok("Router::\"chat\"".to_owned()));
    }
}
