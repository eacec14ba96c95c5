//! Providers that are set up in code, without a configuration: an engine proves whom each of them knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::edge::clock::SystemClock;
use tollgate::edge::identity::claims::{Mapping, Sources};
use tollgate::edge::identity::introspection::{IntrospectionProvider, IntrospectionSettings, Outside};
use tollgate::edge::identity::jwt::{IssuerSettings, JwtProvider, JwtSettings, KeySource};
use tollgate::edge::identity::tokens::{Lookups, TokenOptions, TokenProvider};
use tollgate::edge::identity::{
    BasicProvider, DelegatedOptions, DelegatedProvider, KeyOptions, KeyProvider, PasswordOptions, StaticProvider,
    StaticSecret,
};
use tollgate::edge::outgoing::Fetcher;
use tollgate::edge::store::{KeyFile, TokenFile};
use tollgate::gate::{Clock, Credential, Fetch, PasswordWrite, Passwords, Presented, Tokens as _};
use tollgate::model::{PasswordHash, PasswordRecord, SecretText};
use tollgate::{Bundle, Engine, SourceFile};

use crate::issuer::FakeIssuer;
use crate::passwords::{HASH, PASSWORD, bundle};
use crate::support::{DEADLINE, secret};
use crate::tokens::{Signer, now, set};

const FIXED: &str = "fixed-token-in-code-0123456789abcdef";

#[test]
fn an_engine_is_given_every_provider_in_code() {
    let temp = tempfile::TempDir::new().unwrap();
    let signer = Signer::p256("one");
    let jwks = temp.path().join("keys.json");
    std::fs::write(&jwks, set([&signer])).unwrap();
    let others = FakeIssuer::start(|asked, _| match asked.path.as_str() {
        "/validate" if asked.body.contains("delegated-key") => (200, json!({ "principal": "bob" })),
        "/introspect" if asked.body.contains("opaque-token") => (200, json!({ "active": true, "sub": "carol" })),
        "/introspect" => (200, json!({ "active": false })),
        _ => (401, json!({})),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fetch, clock): (Arc<dyn Fetch>, Arc<dyn Clock>) = (Arc::new(Fetcher::default()), Arc::new(SystemClock));
    let _entered = runtime.enter();

    // It keeps keys, and passwords beside them.
    let kept = Arc::new(KeyFile::open(temp.path(), None).unwrap());
    let keys = Arc::new(KeyProvider::new(Some(Arc::clone(&kept) as _), KeyOptions::default()));
    let passwords: Arc<dyn Passwords> = kept;
    let options = PasswordOptions { unknown_users: true, ..PasswordOptions::default() };
    let basic = BasicProvider::new("basic".to_owned(), options, None, Some(Arc::clone(&passwords))).unwrap();
    let basic = Arc::new(basic);
    let fixed = StaticSecret {
        token: SecretText::new(secret(FIXED)),
        principal: r#"User::"alice""#.parse().unwrap(),
        roles: Vec::new(),
    };
    let source = KeySource::Files(vec![jwks]);
    let mut issuer = IssuerSettings::new("https://idp.example.com", vec!["tollgate".into()], source);
    issuer.mapping = Mapping { user: Sources::claim("sub"), ..Mapping::default() };
    let jwt = JwtProvider::new("jwt", JwtSettings::of(vec![issuer]), false);
    jwt.followers(&fetch, &clock).for_each(|follower| drop(runtime.spawn(follower)));
    let mut opaque = IntrospectionSettings::new(
        format!("{}/introspect", others.url),
        "https://opaque.example.com",
        "tollgate",
        SecretText::new(secret("secret-of-a-client-in-code")),
    );
    opaque.mapping = Mapping { user: Sources::claim("sub"), ..Mapping::default() };
    let opaque = IntrospectionProvider::new(
        "opaque",
        opaque,
        true,
        Outside { fetch: Arc::clone(&fetch), clock: Arc::clone(&clock) },
    );
    let delegated = DelegatedOptions::new(format!("{}/validate", others.url));
    let delegated = DelegatedProvider::new("delegated".to_owned(), delegated, Arc::clone(&fetch));
    let lookups = Lookups { keys: Some(Arc::clone(&keys) as _), passwords: vec![Arc::clone(&basic) as _] };
    let store = Arc::new(TokenFile::open(temp.path()).unwrap());
    let tokens = Arc::new(TokenProvider::new(store, TokenOptions::default(), lookups, clock.now()));

    let file = SourceFile::new("bundle.yaml", bundle().as_bytes()).unwrap();
    let engine = Engine::builder()
        .bundle(Bundle::new(vec![file]))
        .authenticator(Arc::clone(&tokens) as _)
        .authenticator(Arc::new(StaticProvider::new(vec![fixed]).unwrap()))
        .authenticator(keys)
        .authenticator(Arc::new(jwt))
        .authenticator(basic)
        .authenticator(Arc::new(delegated))
        .failures(None)
        .build()
        .unwrap();
    let proved = |engine: &Engine, credential: Credential| {
        engine.authenticate(&Presented::new(credential)).map(|identity| identity.principal.to_string())
    };
    let bearer = |text: &str| Credential::Bearer(SecretText::new(secret(text)));
    let claims = json!({"iss": "https://idp.example.com", "aud": "tollgate", "sub": "dave", "exp": now() + 600});
    let token = signer.token(&claims);
    let began = Instant::now();
    while proved(&engine, bearer(&token)) != Ok("User::\"dave\"".to_owned()) {
        assert!(began.elapsed() < DEADLINE, "{:?}", proved(&engine, bearer(&token)));
        std::thread::sleep(Duration::from_millis(10));
    }
    let alice = Ok("User::\"alice\"".to_owned());
    assert_eq!(proved(&engine, bearer(FIXED)), alice);
    let password = || Credential::Basic { username: "alice".into(), password: SecretText::new(secret(PASSWORD)) };
    assert_eq!(proved(&engine, password()), alice);
    let of_bob = || Credential::Basic { username: "bob".into(), password: SecretText::new(PASSWORD) };
    assert!(proved(&engine, of_bob()).is_err());
    let (principal, hash) = (r#"User::"bob""#.parse().unwrap(), PasswordHash::parse(HASH).unwrap());
    let password_of_bob = PasswordRecord { principal, hash, changed_at: clock.now() };
    pollster::block_on(passwords.write(PasswordWrite::Set(password_of_bob))).unwrap();
    assert_eq!(proved(&engine, of_bob()), Ok("User::\"bob\"".to_owned()));
    assert_eq!(proved(&engine, bearer("delegated-key-0123456789")), Ok("User::\"bob\"".to_owned()));
    assert!(proved(&engine, bearer("nobody-knows-0123456789")).is_err());
    assert!(proved(&engine, bearer("tg_nobody_knows")).is_err());
    // What is proved can be exchanged, and the token proves the same.
    let identity = engine.authenticate(&Presented::new(password())).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let issued = tokens.issue(&identity, &snapshot, clock.now()).unwrap();
    assert!(issued.refresh.is_some());
    assert_eq!(proved(&engine, bearer(issued.access.expose())), alice);

    let file = SourceFile::new("bundle.yaml", bundle().as_bytes()).unwrap();
    let engine =
        Engine::builder().bundle(Bundle::new(vec![file])).authenticator(Arc::new(opaque)).failures(None).build();
    let engine = engine.unwrap();
    assert_eq!(proved(&engine, bearer("opaque-token-0123456789")), Ok("User::\"carol\"".to_owned()));
    assert!(proved(&engine, bearer("another-opaque-one-0123456789")).is_err());
}
