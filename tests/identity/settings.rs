//! Settings of providers that would let in too much, nobody, or somebody at random: each is an error before anything starts.

use tollgate::config::{Flags, Settings};

/// Why a provider of these settings is not taken.
fn refused(provider: &str) -> String {
    let identity = format!("providers: [{{ {provider} }}]");
    let environment = |name: &str| (name == "TOLLGATE_IDENTITY").then(|| identity.clone().into());
    match Settings::from(&Flags::default(), environment) {
        Ok(_) => format!("{provider} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_issuer_that_lets_in_too_much_or_nobody_is_refused() {
    let temp = tempfile::TempDir::new().unwrap();
    let secret = temp.path().join("secret");
    std::fs::write(&secret, "a-secret-of-32-bytes-at-the-least!").unwrap();
    let secret = format!("secret_file: {}", secret.display());
    let many: Vec<String> = (0..17).map(|number| format!("{number}.pem")).collect();
    let many = format!("pem_files: [{}]", many.join(", "));
    for (settings, part) in [
        ("audiences: [], jwks_file: f", "`audiences` takes 1 to 100"),
        ("audiences: [''], jwks_file: f", "`audiences` takes 1 to 100"),
        ("audiences: [t], jwks_file: f, types: []", "`types` names none"),
        ("audiences: [t], jwks_file: f, max_lifetime_seconds: 0", "`max_lifetime_seconds` is 1 at least"),
        ("audiences: [t], jwks_file: f, max_stale_ms: 0", "`max_stale_ms` is 2000 at least"),
        ("audiences: [t], jwks_file: f, max_stale_ms: 1999", "`max_stale_ms` is 2000 at least"),
        ("audiences: [t], jwks_file: f, algorithms: []", "`algorithms` names none"),
        ("audiences: [t], jwks_file: f, algorithms: [HS256]", "`HS256` wants a `secret_file`"),
        ("audiences: [t], pem_files: f, algorithms: [ES256, HS512]", "`HS512` wants a `secret_file`"),
        ("audiences: [t], jwks_url: 'https://a.example', algorithms: [HS384]", "`HS384` wants a `secret_file`"),
        (&format!("audiences: [t], {secret}, algorithms: [HS256, RS256]"), "`RS256` is for public keys"),
        (&format!("audiences: [t], {many}"), "`pem_files` names 16 at most"),
    ] {
        let said = refused(&format!("jwt: {{ issuers: [{{ issuer: 'https://a.example', {settings} }}] }}"));
        assert!(said.contains(part), "{settings}: {said}");
    }
}

#[test]
fn an_introspection_endpoint_that_lets_in_too_much_or_nobody_is_refused() {
    let temp = tempfile::TempDir::new().unwrap();
    let (good, empty) = (temp.path().join("good"), temp.path().join("empty"));
    std::fs::write(&good, "secret").unwrap();
    std::fs::write(&empty, " \n").unwrap();
    for (file, settings, part) in [
        (&good, "audiences: []", "`audiences` takes 1 to 100"),
        (&good, "audiences: ['']", "`audiences` takes 1 to 100"),
        (&good, "timeout_ms: 0", "`timeout_ms` is a number from 1 to 30000"),
        (&good, "at_once: 0", "`at_once` is a number from 1 to 10000"),
        (&good, "remember_ms: 300001", "`remember_ms` is 300000 at most"),
        (&empty, "audiences: [t]", "empty: it is empty"),
    ] {
        let file = file.display();
        let wanted = format!("url: 'https://a.example', client_id: c, client_secret_file: {file}, issuer: i");
        let said = refused(&format!("introspection: {{ {wanted}, {settings} }}"));
        assert!(said.contains(part), "{settings}: {said}");
    }
}

/// What is said of a `tollgate.yaml` with these lines under `identity:`, which has a line before it.
fn said_of(lines: &str) -> String {
    let temp = tempfile::TempDir::new().unwrap();
    let config = temp.path().join("tollgate.yaml");
    std::fs::write(&config, format!("identity:\n{lines}")).unwrap();
    match Settings::load(&Flags { config: Some(config), ..Flags::default() }) {
        Ok(_) => format!("it is taken: {lines}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn headers_that_hold_no_key_are_refused_where_they_stand() {
    for (names, part) in [
        ("[authorization]", "`authorization` holds no key alone"),
        ("[x-api-key, Authorization]", "`Authorization` holds no key alone"),
        ("[x-forwarded-client-cert]", "holds no key alone"),
        ("[host]", "holds no key alone"),
        ("[x-api-key, X-Api-Key]", "`X-Api-Key` stands twice"),
        ("['bad header']", "`bad header` is no name of a header"),
    ] {
        let said = said_of(&format!("  loopback: open\n  key_headers: {names}\n"));
        assert!(said.contains(part) && said.contains("tollgate.yaml:3:"), "{names}: {said}");
    }
}

/// What is wrong with a provider is told with its line, and not with that of the whole list or section.
#[test]
fn what_is_wrong_with_a_provider_is_told_where_it_stands() {
    let temp = tempfile::TempDir::new().unwrap();
    let md5 = temp.path().join("digests");
    std::fs::write(&md5, "alice:tollgate:d41d8cd98f00b204e9800998ecf8427e\n").unwrap();
    let token = "token: 0123456789abcdef, principal: 'User::\"a\"'";
    let mapping = "spiffe: 'spiffe://a.example/b', principal: 'Service::\"b\"'";
    for (provider, part) in [
        ("delegated: { url: 'https://a.example', headers: [authorization] }", "`authorization` may hold a secret"),
        ("delegated: { url: 'https://a.example', headers: ['bad header'] }", "`bad header` is no name of a header"),
        ("delegated: { url: 'https://a.example', headers: [x-a, X-A] }", "`X-A` stands twice"),
        ("delegated: { url: 'https://a.example', timeout_ms: 0 }", "`timeout_ms` is a number from 1 to 30000"),
        (&format!("static: {{ tokens: [{{ {token}, roles: ['tollgate:administator'] }}] }}"), "there is no role"),
        (&format!("static: {{ tokens: [{{ {token}, roles: [''] }}] }}"), "`roles`: "),
        (&format!("static: {{ tokens: [{{ {token} }}, {{ {token} }}] }}"), "are the same"),
        (&format!("static: {{ tokens: [{{ {token}, roles: ['tollgate:gateway'] }}] }}"), "has 32 bytes at least"),
        (&format!("static: {{ anywhere: true, tokens: [{{ {token} }}] }}"), "has 32 bytes at least"),
        ("static: { tokens: [{ token: aaaaaaaaaaaaaaaa, principal: 'User::\"a\"' }] }", "easy to guess"),
        (
            "static: { tokens: [{ token: sk-master-dev-key-change-in-production, principal: 'User::\"a\"' }] }",
            "stands in somebody's documentation",
        ),
        (&format!("client_certificate: {{ mappings: [{{ {mapping}, roles: ['tollgate:x'] }}] }}"), "there is no role"),
        ("jwt: { issuers: [{ issuer: i, audiences: [t], jwks_file: f, max_stale_ms: 0 }] }", "`max_stale_ms`"),
        ("introspection: { url: x, client_id: c, client_secret_file: /nope, issuer: i }", "`url`"),
        ("basic: { htpasswd: /nope }", "`htpasswd`: /nope: No such file"),
        ("digest: { file: /nope }", "`file`: /nope: No such file"),
        (&format!("digest: {{ file: {} }}", md5.display()), "digests:1: MD5 is broken"),
        ("basic: {}\n      digest: { file: /nope }", "a provider is of one kind"),
        ("keys: {}\n      on_error: pass", "`on_error` is for providers that ask others"),
        ("basic: {}\n      on_error: pass", "`on_error` is for providers that ask others"),
        ("name: none", "a provider is of one kind"),
        ("keys: { max_stale_seconds: 0 }", "`max_stale_seconds` is 1 to 3600"),
        ("name: keys\n      basic: {}", "two providers are called `keys`"),
        ("name: others\n      keys: {}", "`keys` is there once"),
    ] {
        let said =
            said_of(&format!("  providers:\n    - keys: {{}}\n    - {provider}\n    - basic: {{ cache_ms: 1 }}\n"));
        assert!(said.contains(part) && said.contains("tollgate.yaml:4:"), "{provider}: {said}");
    }
}

/// Of a provider that is off nothing is looked at: its files need not be there.
#[test]
fn a_provider_that_is_off_needs_nothing() {
    let off = "digest: { file: /nope }, enabled: false";
    assert_eq!(refused(off), format!("{off} is taken"));
    assert!(refused("enabled: false").contains("a provider is of one kind"));
}

/// What is wrong deep in the claims is named, with its own place.
#[test]
fn what_is_wrong_with_a_claim_is_told_where_it_stands() {
    // A caret stands before what is wrong.
    for (claims, part) in [
        ("teams: { claim: groups, ^splitt: comma }", "unknown field `splitt`, expected one of `claim`"),
        ("teams: [groups, { claim: groups, ^splitt: comma }]", "unknown field `splitt`"),
        ("teams: { claim: groups, split: ^commma }", "unknown variant `commma`"),
        ("teams: { value: [x, ^{ a: b }] }", "this must be a string"),
        ("teams: [{ claim: groups }, ^[groups]]", "the path of a claim, or a mapping"),
        ("metadata: { run: { ^claims: run_id } }", "unknown field `claims`"),
        ("teams: { claim: groups, map: { a: ^[b] } }", "this must be a string"),
        ("teams: { value: ^true }", "this must be a string"),
        ("teams: { value: ^7 }", "this must be a string"),
        ("teams: ^7", "the path of a claim, or a mapping"),
    ] {
        let column = 15 + claims.find('^').unwrap();
        let said = said_of(&format!(
            "  providers:\n    - jwt:\n        issuers:\n          - issuer: i\n            audiences: [t]\n            \
             jwks_file: f\n            claims:\n              {}\n",
            claims.replace('^', "")
        ));
        assert!(said.contains(part) && said.contains(&format!("tollgate.yaml:9:{column}")), "{claims}: {said}");
    }
}
