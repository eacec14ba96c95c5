//! The recipes of docs/identity.md, each read as it stands there and given claims as its provider sends them.

use serde_json::Value;
use tollgate::config::{Flags, ProviderKind, Settings};
use tollgate::edge::identity::claims::Proof;
use tollgate::edge::identity::jose::KeySet;
use tollgate::edge::identity::jwt::{IssuerSettings, KeySource};
use tollgate::model::{AuthMethod, Identity, Timestamp};
use tollgate::policy::{Bundle, Loader, SourceFile};

const DOCUMENT: &str = include_str!("../../docs/identity.md");
const CLAIMS: &str = include_str!("../cases/jose/recipes.json");
const BUNDLE: &str = r#"
teams: [{ id: research }, { id: ci }]
users: [{ id: alice, external_id: u-oid-1 }, { id: "alice@example.com" }]
authz_rules: [{ id: all, teams: [research], models: "*" }]
"#;

fn issuer(recipe: &str) -> IssuerSettings {
    let (_, rest) =
        DOCUMENT.split_once(&format!("<!-- recipe: {recipe} -->\n```yaml\n")).unwrap_or_else(|| panic!("{recipe}"));
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("tollgate.yaml");
    std::fs::write(&path, rest.split("```").next().unwrap()).unwrap();
    let flags = Flags { config: Some(path), ..Flags::default() };
    let settings = Settings::from(&flags, |_| None).unwrap_or_else(|error| panic!("{recipe}: {error}"));
    match &settings.identity.providers[0].kind {
        ProviderKind::Jwt(jwt) => jwt.issuers[0].clone(),
        other => panic!("{recipe}: {other:?}"),
    }
}

fn prove(issuer: &IssuerSettings, claims: &Value) -> Option<Identity> {
    let file = SourceFile::new("bundle.yaml", BUNDLE.as_bytes()).unwrap();
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

#[test]
fn what_dex_publishes_is_understood() {
    let discovery: Value = serde_json::from_str(include_str!("../cases/jose/dex_discovery.json")).unwrap();
    assert_eq!(discovery["issuer"], issuer("dex").checks.issuer.as_str());
    // Dex signs with RS256, and publishes its keys with `use` and `alg`.
    let keys = KeySet::of_jwks(include_bytes!("../cases/jose/dex_keys.json")).unwrap();
    assert_eq!((keys.len(), keys.passed_over()), (2, 0));
}
