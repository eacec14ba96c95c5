//! The recipes of docs/identity.md, each read as it stands there and given claims as its provider sends them; two of them
//! serve, and are shown tokens.

use serde_json::{Value, json};
use tollgate::config::{Flags, ProviderKind, Settings};
use tollgate::edge::identity::claims::Proof;
use tollgate::edge::identity::jose::KeySet;
use tollgate::edge::identity::jwt::{IssuerSettings, KeySource};
use tollgate::model::{AuthMethod, Identity, Timestamp};
use tollgate::policy::{Bundle, Loader, SourceFile};

use crate::issuer::FakeIssuer;
use crate::support::{Answer, Server, Setup, secret};
use crate::tokens::{Signer, changed, now, set};

const DOCUMENT: &str = include_str!("../../docs/identity.md");
const CLAIMS: &str = include_str!("../cases/jose/recipes.json");
const BUNDLE: &str = r#"
teams: [{ id: research }, { id: ci }]
users: [{ id: alice, external_id: u-oid-1 }, { id: "alice@example.com" }]
authz_rules: [{ id: all, teams: [research], models: "*" }]
"#;

/// A recipe as it stands in the document.
fn text(recipe: &str) -> &'static str {
    let (_, rest) =
        DOCUMENT.split_once(&format!("<!-- recipe: {recipe} -->\n```yaml\n")).unwrap_or_else(|| panic!("{recipe}"));
    rest.split("```").next().unwrap()
}

fn issuer(recipe: &str) -> IssuerSettings {
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("tollgate.yaml");
    std::fs::write(&path, text(recipe)).unwrap();
    let flags = Flags { config: Some(path), ..Flags::default() };
    let settings = Settings::from(&flags, |_| None).unwrap_or_else(|error| panic!("{recipe}: {error}"));
    assert!(settings.identity.keys().is_some(), "{recipe}: a server that has keys goes on taking them");
    let issuers = settings.identity.providers.iter().find_map(|provider| match &provider.kind {
        ProviderKind::Jwt(jwt) => Some(jwt.issuers.clone()),
        _ => None,
    });
    issuers.unwrap_or_else(|| panic!("{recipe}: no issuer"))[0].clone()
}

fn prove(issuer: &IssuerSettings, claims: &Value) -> Option<Identity> {
    prove_by(BUNDLE, issuer, claims)
}

fn prove_by(bundle: &str, issuer: &IssuerSettings, claims: &Value) -> Option<Identity> {
    let file = SourceFile::new("bundle.yaml", bundle.as_bytes()).unwrap();
    let snapshot = Loader::new(false).load(&Bundle::new(vec![file])).unwrap().snapshot;
    let claims = claims.as_object().unwrap();
    if !issuer.checks.require.iter().all(|wanted| wanted.holds(claims)) {
        return None;
    }
    let proof = Proof {
        issuer: &issuer.checks.issuer,
        subject: claims["sub"].as_str().unwrap(),
        claims,
        method: AuthMethod::Jwt,
        expires_at: Timestamp::from_millis(i64::MAX),
    };
    issuer.mapping.identity(&proof, &snapshot).ok()
}

#[test]
fn every_recipe_does_what_it_says() {
    let all: Value = serde_json::from_str(CLAIMS).unwrap();
    assert_eq!(DOCUMENT.matches("<!-- recipe: ").count(), all.as_object().unwrap().len());
    for (recipe, cases) in all.as_object().unwrap() {
        let issuer = issuer(recipe);
        assert!(matches!(issuer.keys, KeySource::Remote { .. }), "{recipe}");
        for case in cases.as_array().unwrap() {
            let identity = prove(&issuer, &case["claims"]);
            if case["refused"] == true {
                assert_eq!(identity, None, "{recipe}: {case}");
                continue;
            }
            let identity = identity.unwrap_or_else(|| panic!("{recipe}: {case}"));
            let metadata: Vec<String> =
                identity.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(identity.principal.to_string(), case["principal"], "{recipe}");
            assert_eq!(identity.said.teams.join(","), case["teams"], "{recipe}");
            assert_eq!(identity.said.roles.join(","), case["roles"], "{recipe}");
            assert_eq!(metadata.join(","), case["metadata"].as_str().unwrap_or_default(), "{recipe}");
            if let Some(said) = case["claims"]["iss"].as_str() {
                assert_eq!(issuer.checks.issuer, said, "{recipe}");
            }
        }
    }
}

/// Whoever the bundle declares is that person by each recipe, whatever its tokens call people.
#[test]
fn every_recipe_for_people_links_them_to_the_bundle() {
    let bundle = |external_id: &str| {
        format!(
            "users: [{{ id: a.smith, email: Alice@Example.com, external_id: '{external_id}' }}]\n\
             authz_rules: [{{ id: all, users: \"*\", models: \"*\" }}]\n"
        )
    };
    let all: Value = serde_json::from_str(CLAIMS).unwrap();
    for (recipe, external_id) in [
        ("keycloak", "nothing"),
        ("keycloak", "https://keycloak.example.com/realms/llm|f3a0d0f4-5a3c-4c02-9a65-2f2f3f0c9c11"),
        ("dex", "nothing"),
        ("dex", "https://dex.example.com/dex|CgcyMzQyNzQ5EgZnaXRodWI"),
        ("google", "nothing"),
        ("google", "https://accounts.google.com|110169484474386276334"),
        ("entra", "u-oid-1"),
        ("okta", "00u1"),
    ] {
        let identity = prove_by(&bundle(external_id), &issuer(recipe), &all[recipe][0]["claims"]);
        let principal = identity.unwrap_or_else(|| panic!("{recipe} {external_id}")).principal;
        assert_eq!(principal.to_string(), "User::\"a.smith\"", "{recipe} {external_id}");
    }
}

#[test]
fn what_dex_publishes_is_understood() {
    let discovery: Value = serde_json::from_str(include_str!("../cases/jose/dex_discovery.json")).unwrap();
    assert_eq!(discovery["issuer"], issuer("dex").checks.issuer.as_str());
    // Dex signs with RS256, and publishes its keys with `use` and `alg`.
    let keys = KeySet::of_jwks(include_bytes!("../cases/jose/dex_keys.json")).unwrap();
    assert_eq!((keys.len(), keys.passed_over()), (2, 0));
}

/// A server that was set up with a recipe, whose issuer is played here.
struct Recipe {
    server: Server,
    signer: Signer,
    issuer: FakeIssuer,
    claims: Vec<Value>,
}

impl Recipe {
    fn serve(recipe: &str, bundle: &str) -> Self {
        let signer = Signer::rsa("one");
        let keys: Value = serde_json::from_str(&set([&signer])).unwrap();
        let issuer = FakeIssuer::start(move |_, _| (200, keys.clone()));
        let (written, url) = (self::issuer(recipe).checks.issuer, &issuer.url);
        let named = format!("issuer: {written}\n");
        assert!(text(recipe).contains(&named), "{recipe}");
        let config = text(recipe).replace(&named, &format!("issuer: {url}\n            jwks_url: {url}/keys\n"));
        let server = Setup::without_files().file("bundle.yaml", bundle).config(&config).start();
        let all: Value = serde_json::from_str(CLAIMS).unwrap();
        let claims = all[recipe].as_array().unwrap().iter().map(|case| case["claims"].clone()).collect();
        Self { server, signer, issuer, claims }
    }

    /// A token as the provider would sign it now, with these claims of the recipe's.
    fn token(&self, number: usize) -> String {
        let times = json!({"iss": self.issuer.url, "iat": now() - 5, "nbf": now() - 5, "exp": now() + 300});
        let audience = json!({"aud": self.claims[0]["aud"]});
        self.signer.token(&changed(&changed(&self.claims[number], &times), &audience))
    }

    /// Whom a token proves, and what that one is.
    fn validated(&self, token: &str) -> Answer {
        let body = json!({"api_key": token}).to_string();
        let ask = || self.server.post("/v1/auth/validate", &body);
        self.server.until("its keys are there", |_| ask().status != 503);
        ask()
    }
}

const WORKFLOWS: &str = r#"
teams: [{ id: research }, { id: ci }]
authz_rules:
  - { id: research, teams: [research], roles: [analyst], models: "*" }
  - { id: ci, teams: [ci], models: "*", when: 'context.metadata.hasTag("workflow") && context.metadata.getTag("workflow") == "ci"' }
"#;

#[test]
fn the_recipe_for_keycloak_serves() {
    let recipe = Recipe::serve("keycloak", WORKFLOWS);
    let person = recipe.validated(&recipe.token(0));
    assert_eq!(
        person.json(),
        json!({"principal": "User::\"alice\"",
               "attributes": {"teams": ["research"], "orgs": [], "roles": ["analyst", "offline_access"], "tags": []}}),
        "{person:?}"
    );
    let service = recipe.validated(&recipe.token(1));
    assert_eq!(service.json()["principal"], "Service::\"ci\"", "{service:?}");
    let asked = recipe.server.post("/is_authorized", &question(&recipe.token(0)));
    assert_eq!((&asked.json()["code"], &asked.json()["rules"][0]["id"]), (&json!("permitted"), &json!("research")));
    // One for another client.
    let elsewhere = recipe.signer.token(&changed(
        &recipe.claims[0],
        &json!({"iss": recipe.issuer.url, "aud": "account", "iat": now(), "exp": now() + 300}),
    ));
    assert_eq!(recipe.validated(&elsewhere).status, 401);
    // The administrator's key, which the first start made, goes on proving somebody.
    let path = recipe.server.temp.path().join("tollgate-data/administrator.key");
    let administrator = &secret(std::fs::read_to_string(path).unwrap().trim_end());
    let header = format!("Authorization: Bearer {administrator}");
    assert_eq!(recipe.server.connect().request("GET", "/v1/keys", &[&header], b"").status, 200);
}

#[test]
fn the_recipe_for_github_actions_serves() {
    let recipe = Recipe::serve("github-actions", WORKFLOWS);
    let job = recipe.validated(&recipe.token(0));
    assert_eq!(
        job.json(),
        json!({"principal": "Service::\"acme/app\"",
               "attributes": {"teams": ["ci"], "orgs": [], "roles": [], "tags": []}}),
        "{job:?}"
    );
    let asked = recipe.server.post("/is_authorized", &question(&recipe.token(0)));
    assert_eq!((&asked.json()["code"], &asked.json()["rules"][0]["id"]), (&json!("permitted"), &json!("ci")));
    for (what, number) in [("another owner", 1), ("another branch", 2)] {
        assert_eq!(recipe.validated(&recipe.token(number)).status, 401, "{what}");
    }
}

fn question(token: &str) -> String {
    json!({"credential": {"bearer": secret(token)}, "action": "chat", "resource": "Model::\"oa/big\""}).to_string()
}
