//! What a YAML file becomes: the tree of everything that the language has, and no panic whatever the bytes.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use proptest::prelude::*;
use tollgate::meter::{Price, Rates};
use tollgate::model::{Effect, Timestamp};
use tollgate::policy::bundle::SourceFile;
use tollgate::policy::parse::{Parsed, parse};
use tollgate::policy::problem::{ProblemCode, Severity};
use tollgate::policy::syntax::{Name, Place, SelectorKind, TextLayout};

fn parsed(bytes: &[u8]) -> Parsed {
    parse(&SourceFile::new("rules.yaml", bytes).unwrap())
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(|name| name.value.as_str()).collect()
}

const EVERYTHING: &str = r#"
orgs:
  - id: acme
    metadata: { cost_center: "1200", floor: 0x0F }
teams:
  - id: research            # a team may stand in an org, or under a parent team
    org: acme
    parent: science
    tags: [gpu]
    disabled: true
users:
  - id: alice
    team: research
    teams: [{ id: ops, role: admin }]
    org: acme
    orgs: [globex]
    email: alice@acme.example
    roles: [team-admin]
    tags: [pilot]
    external_id: "00u1abcd"
    expires_at: 2027-01-01T00:00:00Z
    disabled: false
    metadata: { region: eu }
services:
  - id: support-bot
    team: research
keys:
  - { id: ci, hash: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", owner: 'Service::"support-bot"', models: ["openai-main/*"], expires_at: 2027-01-01T00:00:00Z }
provider_accounts:
  - id: openai-main
    provider: openai
    tags: [production]
    models:
      - gpt-4o
      - name: text-embedding-ada-002
        enabled: false
        tags: [embedding]
        aliases: [ada]
        max_output_tokens: 0
        price: { input: 0.10, output: 0, cached_input: 0.05 }
  - id: open
model_groups:
  - id: frontier
    models: [openai-main/gpt-4o, "anthropic-main/*"]
routers:
  - id: chat-prod
    models: [openai-main/gpt-4o]
authz_rules:
  - id: research-frontier
    description: Research may chat.
    effect: forbid
    teams: [research]
    users: "*"
    model_groups: [frontier]
    models: ["*"]
    actions: [chat]
    when: context.budget.used_percent < 80      # why
    unless:
      - resource.tags.contains("preview")
      - |
        context has ip &&
        context.ip.isLoopback()
  - users: [0755]
    models: [a/b]
"#;

#[test]
fn everything_of_the_language_is_read() {
    let Parsed { document, problems } = parsed(EVERYTHING.as_bytes());
    assert_eq!(problems, []);
    let team = &document.teams[0];
    assert_eq!(team.org.as_ref().unwrap().value, "acme");
    assert_eq!(team.parent.as_ref().unwrap().value, "science");
    assert!(team.extras.as_ref().unwrap().disabled);
    assert_eq!(document.orgs[0].extras.as_ref().unwrap().metadata[1], ("floor".into(), "0x0F".into()));

    let alice = &document.users[0];
    let teams: Vec<_> = alice.teams.iter().map(|team| (team.team.value.as_str(), team.role.as_deref())).collect();
    assert_eq!(teams, [("research", None), ("ops", Some("admin"))]);
    assert_eq!(names(&alice.orgs), ["acme", "globex"]);
    let extras = alice.extras.as_ref().unwrap();
    assert_eq!(extras.expires_at, Timestamp::parse("2027-01-01T00:00:00Z"));
    assert_eq!(extras.external_id.as_deref(), Some("00u1abcd"));
    assert!(document.services[0].extras.is_none());

    let key = &document.keys[0];
    assert_eq!(key.owner.value.to_string(), "Service::\"support-bot\"");
    assert_eq!(names(key.models.as_ref().unwrap()), ["openai-main/*"]);
    assert!(key.routers.is_none() && key.actions.is_none());

    let models = document.provider_accounts[0].models.as_ref().unwrap();
    assert!(models[0].enabled && !models[1].enabled);
    let rates = Rates { input: 100_000, output: 0, cached_input: Some(50_000), ..Rates::default() };
    assert_eq!(models[1].price.as_deref(), Some(&Price { rates, ..Price::default() }));
    assert_eq!(models[1].max_output_tokens, Some(0));
    assert!(document.provider_accounts[1].models.is_none());
}

#[test]
fn rules_are_read_with_their_places() {
    let document = parsed(EVERYTHING.as_bytes()).document;
    let rule = &document.rules[0];
    assert_eq!(rule.effect, Effect::Forbid);
    assert_eq!((rule.place.line, rule.place.column), (49, 5));
    let who: Vec<_> = rule.who.iter().map(|selector| (selector.kind, selector.name.value.as_str())).collect();
    assert_eq!(who, [(SelectorKind::User, "*"), (SelectorKind::Team, "research")]);
    assert_eq!(rule.who[1].name.place, Place { line: 52, column: 13, length: 8 });
    assert_eq!(rule.when[0].text, "context.budget.used_percent < 80");
    assert_eq!((rule.when[0].layout, rule.when[0].place.column), (TextLayout::Inline, 11));
    assert_eq!(
        (rule.unless[1].layout, rule.unless[1].place.line, rule.unless[1].place.column),
        (TextLayout::Block, 61, 9)
    );
    let plain = &document.rules[1];
    assert_eq!((plain.effect, plain.who[0].name.value.as_str(), plain.id.is_none()), (Effect::Permit, "0755", true));
}

#[test]
fn twice_in_a_list_is_once_and_a_warning() {
    let Parsed { document, problems } = parsed(b"authz_rules:\n  - { users: [a, b, a], models: [x/y] }\n");
    assert_eq!(
        (problems.len(), problems[0].severity, problems[0].code),
        (1, Severity::Warning, ProblemCode::DuplicateName)
    );
    assert_eq!(document.rules[0].who.len(), 2);
}

/// Files in which hardly anything is right, but which are YAML.
fn nearly_policies() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "authz_rules",
        "users",
        "teams",
        "keys",
        "provider_accounts",
        "models",
        "routers",
        "id",
        "name",
        "team",
        "price",
        "input",
        "hash",
        "owner",
        "when",
        "effect",
        "metadata",
        "expires_at",
        "disabled",
        "limits",
        "budget",
        "usd",
        "rate",
        "every",
        "month",
        "rolling",
        "overrides",
        "each",
        "tiers",
        "30d",
        "Europe/Berlin",
        "'*'",
        "''",
        "a/b",
        "-1",
        "~",
        "0.1",
        "\"\\u202e\"",
        "*a",
        "&a x",
        "!t x",
        "<<",
        "|\n  x",
        "permit",
        "true",
    ]);
    let leaf = words.prop_map(str::to_owned);
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((inner.clone(), inner), 0..6).prop_map(|entries| format!(
                "{{{}}}",
                entries.iter().map(|(k, v)| format!("{k} : {v} , ")).collect::<String>()
            )),
        ]
    })
}

/// The mistakes that keep the rest of a file from being read must not hide that something is wrong.
fn is_told(bytes: &[u8]) {
    let Parsed { problems, .. } = parsed(bytes);
    assert!(problems.len() <= 201);
    for problem in &problems {
        assert!(problem.source_line.as_ref().is_none_or(|line| line.chars().count() <= 402));
        assert!(problem.place.line >= 1 && problem.place.column >= 1, "{problem:?}");
    }
    for colour in [false, true] {
        let said = tollgate::policy::report::text(&problems, colour);
        let unseen = |character: char| character.is_control() && character != '\n' && !(colour && character == '\x1b');
        assert!(!said.contains(unseen), "{said:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        is_told(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(authz_rules:|users:|  - |\n|[ -~]|\\PC|\t|\r|\u{85}|\u{2028}){0,80}") {
        is_told(text.as_bytes());
    }

    #[test]
    fn no_tree_makes_it_panic(text in nearly_policies()) {
        is_told(text.as_bytes());
    }

    #[test]
    fn no_section_makes_it_panic(section in "(authz_rules|users|teams|keys|provider_accounts|routers)", text in nearly_policies()) {
        is_told(format!("{section}: {text}").as_bytes());
    }
}
