//! Tokens of other issuers, as attackers would have them: a case each, with what must happen and why.

use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use tollgate::edge::identity::jose::{Jws, KeyError, KeySet, MAX_ALIKE, Unsigned};

use crate::support::{Client, Server, Setup, secret};
use crate::tokens::{Key, Signer, b64, changed, now, set};

const ISSUER: &str = "https://idp.example.com";
const OTHER: &str = "https://other.example.com";
const SHARED: &str = "https://shared.example.com";
const SHARED_SECRET: &str = "a-secret-of-32-bytes-at-the-least!";

struct World {
    server: Server,
    es: Signer,
    ed: Signer,
    rsa: Signer,
    p384: Signer,
    p521: Signer,
    other: Signer,
    shared: Signer,
}

impl World {
    fn new() -> Self {
        let (es, ed, rsa, p384) = (Signer::p256("es"), Signer::ed("ed"), Signer::rsa("rsa"), Signer::p384("p384"));
        let p521 = Signer::p521("p521");
        // The same name as a key of the first issuer.
        let other = Signer::p256("es");
        let shared = Signer::shared(&secret(SHARED_SECRET));
        let temp = tempfile::TempDir::new().unwrap();
        let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).unwrap();
        let mut published: Value = serde_json::from_str(&set([&es, &ed, &rsa, &p384, &p521])).unwrap();
        let unused = Signer::p256("enc");
        let odd = [
            changed(&unused.jwk(), &json!({"use": "enc"})),
            changed(&unused.jwk(), &json!({"kid": "ops", "key_ops": ["sign"], "use": null})),
            json!({"kty": "oct", "k": b64("a-secret-that-somebody-published-by-mistake"), "kid": "oct"}),
            json!({"kty": "RSA", "n": b64([0xc5; 128]), "e": "AQAB", "kid": "short"}),
        ];
        published["keys"].as_array_mut().unwrap().extend(odd);
        write("keys.json", &published.to_string());
        write("other.json", &set([&other]));
        write("secret", SHARED_SECRET);
        let config = format!(
            "identity:
  failures: {{ enabled: false }}
  providers:
    - jwt:
        issuers:
          - {{ issuer: '{ISSUER}', audiences: [tollgate], jwks_file: keys.json, max_lifetime_seconds: 86400,
              claims: {{ user: preferred_username, teams: groups, roles: roles }} }}
          - {{ issuer: '{OTHER}', audiences: [tollgate], jwks_file: other.json }}
          - {{ issuer: '{SHARED}', audiences: [tollgate], secret_file: secret, claims: {{ user: preferred_username }} }}
"
        );
        let server = Setup::new().config(&config).start_in(temp);
        server.until("the keys are read", |server| server.log().matches("in use").count() == 3);
        Self { server, es, ed, rsa, p384, p521, other, shared }
    }

    /// What the server says to the token: `permit`, or the reason that its metrics count.
    fn says(&self, client: &mut Client, token: &str) -> String {
        let before = self.counted();
        let body =
            json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
        let answer = client.post("/is_authorized", &body.to_string());
        if answer.status != 200 {
            return format!("status {}", answer.status);
        }
        let answer = answer.json();
        if answer["decision"] == "permit" {
            return "permit".to_owned();
        }
        if !["unauthenticated", "credential_expired"].contains(&answer["code"].as_str().unwrap()) {
            return answer["code"].to_string();
        }
        let grown: Vec<String> = self.counted().into_iter().filter(|line| !before.contains(line)).collect();
        let [line] = grown.as_slice() else { panic!("one reason is counted: {grown:?}") };
        line.split('"').nth(1).unwrap().to_owned()
    }

    /// What is counted of refusals, a line for each reason.
    fn counted(&self) -> Vec<String> {
        let metrics = self.server.get("/metrics").body;
        let lines = metrics.lines().filter(|line| line.starts_with("tollgate_authentication_failures_total{"));
        lines.map(str::to_owned).collect()
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "tollgate", "sub": "u-1", "preferred_username": "alice", "iat": now() - 5, "exp": now() + 600})
}

#[test]
fn every_token_gets_what_it_deserves() {
    let world = World::new();
    let mut client = world.server.connect();
    let mut wrong = Vec::new();
    let mut cases = 0;
    // Each part is made when it is its turn, so that the times in it are of then.
    let parts: [fn(&World) -> Vec<Case>; 5] = [headers, signatures, times, audiences, forms];
    for (name, token, expected) in parts.into_iter().flat_map(|part| part(&world)) {
        cases += 1;
        let said = world.says(&mut client, &token);
        if said != expected {
            wrong.push(format!("{name}: {said}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 60, "{cases}");
}

type Case = (&'static str, String, &'static str);

fn headers(world: &World) -> Vec<Case> {
    let es = &world.es;
    let with = |header: Value| es.with(&header, &claims());
    let unsigned = |alg: &str| format!("{}.{}.", b64(json!({"alg": alg}).to_string()), b64(claims().to_string()));
    let jwk = Signer::p256("mine");
    let mut cases = vec![
        // What is good, so that the rest fails for what it says.
        ("a good ES256", es.token(&claims()), "permit"),
        ("a good EdDSA", world.ed.token(&claims()), "permit"),
        ("EdDSA by its curve's name", world.ed.with(&json!({"alg": "Ed25519", "kid": "ed"}), &claims()), "permit"),
        ("a good RS256", world.rsa.token(&claims()), "permit"),
        ("a good RS512", world.rsa.with(&json!({"alg": "RS512", "kid": "rsa"}), &claims()), "permit"),
        ("a good PS256", world.rsa.with(&json!({"alg": "PS256", "kid": "rsa"}), &claims()), "permit"),
        ("a good ES384", world.p384.token(&claims()), "permit"),
        ("a good ES512", world.p521.token(&claims()), "permit"),
        ("ES512 with a key of P-384", world.p521.with(&json!({"alg": "ES512", "kid": "p384"}), &claims()), "untrusted"),
        ("ES384 with a key of P-521", world.p521.with(&json!({"alg": "ES384", "kid": "p521"}), &claims()), "untrusted"),
        ("a good access token", with(json!({"alg": "ES256", "kid": "es", "typ": "at+JWT"})), "permit"),
        ("no typ", with(json!({"alg": "ES256", "kid": "es"})), "permit"),
        (
            "a good HS256 where a secret is configured",
            world.shared.token(&changed(&claims(), &json!({"iss": SHARED}))),
            "permit",
        ),
        // No algorithm is no signature, in every spelling.
        ("alg none", unsigned("none"), "untrusted"),
        ("alg None", unsigned("None"), "untrusted"),
        ("alg NONE", unsigned("NONE"), "untrusted"),
        ("alg nOnE", unsigned("nOnE"), "untrusted"),
        ("alg none with a good signature", with(json!({"alg": "none", "kid": "es"})), "untrusted"),
        ("alg empty", unsigned(""), "untrusted"),
        ("no alg", with(json!({"kid": "es"})), "malformed"),
        ("alg null", with(json!({"alg": null, "kid": "es"})), "malformed"),
        ("alg in a list", with(json!({"alg": ["ES256"], "kid": "es"})), "malformed"),
        ("alg in small letters", with(json!({"alg": "es256", "kid": "es"})), "untrusted"),
        ("alg of another curve", with(json!({"alg": "ES384", "kid": "es"})), "untrusted"),
        ("an algorithm that is none", with(json!({"alg": "RSA1_5", "kid": "es"})), "untrusted"),
        // Where a key comes from is configured, never said by the token.
        ("its own key along", jwk.with(&json!({"alg": "ES256", "jwk": jwk.jwk()}), &claims()), "untrusted"),
        (
            "its own key, by the name of ours",
            jwk.with(&json!({"alg": "ES256", "kid": "es", "jwk": jwk.jwk()}), &claims()),
            "untrusted",
        ),
        ("jku", with(json!({"alg": "ES256", "kid": "es", "jku": "https://evil.example.com/jwks"})), "untrusted"),
        ("x5u", with(json!({"alg": "ES256", "kid": "es", "x5u": "https://evil.example.com/x"})), "untrusted"),
        ("x5c", with(json!({"alg": "ES256", "kid": "es", "x5c": ["MII"]})), "untrusted"),
        // What changes the meaning of the signature is not passed over.
        ("a critical extension", with(json!({"alg": "ES256", "kid": "es", "crit": ["exp"], "exp": 1})), "untrusted"),
        ("an empty list of critical extensions", with(json!({"alg": "ES256", "kid": "es", "crit": []})), "untrusted"),
        ("an unencoded payload", with(json!({"alg": "ES256", "kid": "es", "b64": false})), "untrusted"),
        ("a compressed payload", with(json!({"alg": "ES256", "kid": "es", "zip": "DEF"})), "untrusted"),
        ("an encrypted one", with(json!({"alg": "ES256", "kid": "es", "enc": "A128GCM"})), "untrusted"),
        ("a nested one", with(json!({"alg": "ES256", "kid": "es", "cty": "JWT"})), "untrusted"),
        // Tokens of another kind, from the same issuer and key.
        ("a logout token", with(json!({"alg": "ES256", "kid": "es", "typ": "logout+jwt"})), "wrong_audience"),
        ("a proof of possession", with(json!({"alg": "ES256", "kid": "es", "typ": "dpop+jwt"})), "wrong_audience"),
        ("typ that is no text", with(json!({"alg": "ES256", "kid": "es", "typ": 1})), "malformed"),
        (
            "alg twice",
            es.raw("ES256", r#"{"alg":"ES256","kid":"es","alg":"none"}"#, &claims().to_string()),
            "malformed",
        ),
        (
            "kid twice, once escaped",
            es.raw("ES256", r#"{"alg":"ES256","kid":"es","\u006bid":"ed"}"#, &claims().to_string()),
            "malformed",
        ),
    ];
    for kid in [
        "../../../../dev/null",
        "' OR 1=1 --",
        "es\n",
        "es\u{0}",
        " es",
        "ES",
        "https://evil.example.com/key",
        "unknown",
    ] {
        cases.push(("a kid that no key has", with(json!({"alg": "ES256", "kid": kid})), "wrong"));
    }
    for kid in [
        json!(""),
        json!("k".repeat(129)),
        json!("k".repeat(4096)),
        json!(1),
        json!(["es"]),
        json!({"a": 1}),
        Value::Null,
    ] {
        cases.push(("a kid that is none", with(json!({"alg": "ES256", "kid": kid})), "malformed"));
    }
    cases
}

fn signatures(world: &World) -> Vec<Case> {
    let (es, good) = (&world.es, world.es.token(&claims()));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let stranger = Signer::p256("es");
    let payload = |change: Value| {
        let parts: Vec<&str> = good.split('.').collect();
        format!("{}.{}.{}", parts[0], b64(changed(&claims(), &change).to_string()), parts[2])
    };
    let Key::Rsa(rsa) = &world.rsa.key else { panic!("an RSA key") };
    let public = rsa.public_key().as_ref();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(public));
    let confused = |secret: &str| {
        let header = json!({"alg": "HS256", "kid": "rsa"});
        Signer::shared(secret).with(&header, &claims())
    };
    let raw = {
        let signed =
            format!("{}.{}", b64(json!({"alg": "HS256", "kid": "rsa"}).to_string()), b64(claims().to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public);
        format!("{signed}.{}", b64(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
    };
    vec![
        // A public key is no secret.
        ("HS256 with the RSA key in PEM", confused(&pem), "untrusted"),
        ("HS256 with the RSA key in DER", raw, "untrusted"),
        ("HS256 with the key as it is published", confused(&world.rsa.jwk().to_string()), "untrusted"),
        (
            "HS256 without a secret",
            Signer::shared("").with(&json!({"alg": "HS256", "kid": "rsa"}), &claims()),
            "untrusted",
        ),
        (
            "HS256 with a published secret",
            Signer::shared("a-secret-that-somebody-published-by-mistake")
                .with(&json!({"alg": "HS256", "kid": "oct"}), &claims()),
            "wrong",
        ),
        (
            "HS256 with another secret",
            Signer::shared("another-secret-of-32-bytes-or-more").token(&changed(&claims(), &json!({"iss": SHARED}))),
            "wrong",
        ),
        (
            "ES256 where only a secret is configured",
            es.token(&changed(&claims(), &json!({"iss": SHARED}))),
            "untrusted",
        ),
        ("RS256 named as ES256", world.rsa.with(&json!({"alg": "ES256", "kid": "rsa"}), &claims()), "untrusted"),
        ("ES256 by the RSA key's name", es.with(&json!({"alg": "ES256", "kid": "rsa"}), &claims()), "untrusted"),
        (
            "a PS256 signature called RS256",
            {
                let signed =
                    format!("{}.{}", b64(json!({"alg": "RS256", "kid": "rsa"}).to_string()), b64(claims().to_string()));
                format!("{signed}.{}", b64(world.rsa.signature("PS256", signed.as_bytes())))
            },
            "wrong",
        ),
        ("a key for encryption", Signer::p256("enc").token(&claims()), "wrong"),
        ("a key that may not verify", Signer::p256("ops").token(&claims()), "wrong"),
        ("an RSA key of 1024 bits", world.rsa.with(&json!({"alg": "RS256", "kid": "short"}), &claims()), "wrong"),
        // Keys are the issuer's, whatever they are called.
        ("a stranger's key of the same name", stranger.token(&claims()), "wrong"),
        ("another issuer's key of the same name", world.other.token(&claims()), "wrong"),
        ("our issuer's key for another issuer", es.token(&changed(&claims(), &json!({"iss": OTHER}))), "wrong"),
        ("no kid, where the issuer's keys have one", es.with(&json!({"alg": "ES256"}), &claims()), "wrong"),
        // What was signed is what counts.
        ("no signature", format!("{signed}."), "wrong"),
        ("a shorter signature", format!("{signed}.{}", &signature[..signature.len() - 4]), "wrong"),
        ("a longer signature", format!("{signed}.{signature}AAAA"), "wrong"),
        ("a signature of zeros", format!("{signed}.{}", b64([0; 64])), "wrong"),
        ("another user", payload(json!({"preferred_username": "bob"})), "wrong"),
        ("a later end", payload(json!({"exp": now() + 3000})), "wrong"),
        ("padding behind the signature", format!("{good}=="), "wrong"),
        (
            "the same bits otherwise",
            {
                // The last letter of 64 bytes has four bits that say nothing.
                let last = signature.as_bytes()[signature.len() - 1];
                let other = if last == b'A' { 'B' } else { char::from(last + 1) };
                format!("{signed}.{}{other}", &signature[..signature.len() - 1])
            },
            "wrong",
        ),
    ]
}

fn times(world: &World) -> Vec<Case> {
    let token = |change: Value| world.es.token(&changed(&claims(), &change));
    let raw = |exp: &str| {
        let payload =
            format!(r#"{{"iss":"{ISSUER}","aud":"tollgate","sub":"u","preferred_username":"alice","exp":{exp}}}"#);
        world.es.raw("ES256", r#"{"alg":"ES256","kid":"es"}"#, &payload)
    };
    vec![
        ("expired", token(json!({"exp": now() - 60})), "expired"),
        ("expired within the leeway", token(json!({"exp": now() - 2})), "permit"),
        ("no exp", token(json!({"exp": null})), "malformed"),
        ("exp as text", token(json!({"exp": (now() + 600).to_string()})), "malformed"),
        ("exp with a fraction", token(json!({"exp": now() as f64 + 600.811})), "permit"),
        ("exp with a fraction of nothing", raw(&format!("{}.0", now() + 600)), "permit"),
        ("exp with an exponent", raw(&format!("{:e}", (now() + 600) as f64)), "permit"),
        ("exp with a fraction, long ago", token(json!({"exp": now() as f64 - 60.5})), "expired"),
        ("exp in the year 2096, with an exponent", raw("4e9"), "untrusted"),
        ("exp negative, with a fraction", raw("-0.5"), "malformed"),
        ("exp beyond the year 9999, with an exponent", raw("2.6e11"), "malformed"),
        ("exp as a text with a fraction", raw(&format!("\"{}.5\"", now() + 600)), "malformed"),
        ("nbf with a fraction", token(json!({"nbf": now() as f64 - 1.25})), "permit"),
        ("nbf with a fraction, ahead", token(json!({"nbf": now() as f64 + 120.5})), "not_yet_valid"),
        ("iat with a fraction", token(json!({"iat": now() as f64 - 5.5})), "permit"),
        ("exp beyond numbers", raw("1e400"), "malformed"),
        ("exp of many digits", raw(&"9".repeat(300)), "malformed"),
        ("exp of 2^63", raw("9223372036854775808"), "malformed"),
        ("exp of 2^64", raw("18446744073709551616"), "malformed"),
        ("exp that overflows in milliseconds", raw("9223372036854775807"), "malformed"),
        ("exp negative", raw("-1"), "malformed"),
        ("exp true", raw("true"), "malformed"),
        ("exp in a list", raw("[4102444800]"), "malformed"),
        ("exp twice", raw("1,\"exp\":4102444800"), "malformed"),
        ("exp null", raw("null"), "malformed"),
        ("valid for a thousand years", token(json!({"exp": now() + 31_557_600_000_i64})), "untrusted"),
        ("not yet", token(json!({"nbf": now() + 120})), "not_yet_valid"),
        ("since now", token(json!({"nbf": now()})), "permit"),
        ("nbf as text", token(json!({"nbf": "soon"})), "malformed"),
        ("issued in the future", token(json!({"iat": now() + 120})), "not_yet_valid"),
        ("iat as text", token(json!({"iat": "now"})), "malformed"),
    ]
}

fn audiences(world: &World) -> Vec<Case> {
    let token = |change: Value| world.es.token(&changed(&claims(), &change));
    vec![
        ("no aud", token(json!({"aud": null})), "wrong_audience"),
        ("another aud", token(json!({"aud": "another"})), "wrong_audience"),
        ("aud in other letters", token(json!({"aud": "Tollgate"})), "wrong_audience"),
        ("aud with more", token(json!({"aud": "tollgate/admin"})), "wrong_audience"),
        ("aud as a list with ours", token(json!({"aud": ["another", "tollgate"]})), "permit"),
        ("aud as a list without ours", token(json!({"aud": ["another", "tollgates"]})), "wrong_audience"),
        ("aud as an empty list", token(json!({"aud": []})), "wrong_audience"),
        ("aud as a number", token(json!({"aud": 5})), "wrong_audience"),
        ("aud as a list with a number", token(json!({"aud": [5, "tollgate"]})), "wrong_audience"),
        ("aud as an object", token(json!({"aud": {"tollgate": true}})), "wrong_audience"),
        ("no iss", token(json!({"iss": null})), "untrusted"),
        ("iss as a list", token(json!({"iss": [ISSUER]})), "untrusted"),
        ("iss as a number", token(json!({"iss": 5})), "untrusted"),
        ("iss that nobody configured", token(json!({"iss": "https://evil.example.com"})), "not_recognized"),
        ("iss with a slash more", token(json!({"iss": format!("{ISSUER}/")})), "not_recognized"),
        ("iss in capitals", token(json!({"iss": "https://IDP.example.com"})), "not_recognized"),
        ("no sub", token(json!({"sub": null})), "malformed"),
        ("sub empty", token(json!({"sub": ""})), "malformed"),
        ("sub as a number", token(json!({"sub": 7})), "malformed"),
        ("sub as an entity", token(json!({"sub": {"__entity": {"type": "User", "id": "alice"}}})), "malformed"),
        ("sub too long", token(json!({"sub": "s".repeat(600)})), "malformed"),
    ]
}

fn forms(world: &World) -> Vec<Case> {
    let good = world.es.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let raw = |header: &str, payload: &str| world.es.raw("ES256", header, payload);
    let header = r#"{"alg":"ES256","kid":"es"}"#;
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
    vec![
        ("two parts", format!("{}.{}", parts[0], parts[1]), "malformed"),
        ("four parts", format!("{good}.AAAA"), "malformed"),
        ("five parts, as if encrypted", format!("{good}.AAAA.AAAA"), "malformed"),
        ("an empty payload", format!("{}..{}", parts[0], parts[2]), "malformed"),
        ("an empty header", format!(".{}.{}", parts[1], parts[2]), "not_recognized"),
        ("a padded header", format!("{}==.{}.{}", parts[0], parts[1], parts[2]), "malformed"),
        ("a padded payload", format!("{}.{}=.{}", parts[0], parts[1], parts[2]), "malformed"),
        (
            "base64 that is not for URLs",
            {
                let payload = changed(&claims(), &json!({"x": "ÿþÿþ?>"})).to_string();
                let signed = format!("{}.{}", parts[0], STANDARD.encode(payload));
                format!("{signed}.{}", b64(world.es.signature("ES256", signed.as_bytes())))
            },
            "malformed",
        ),
        (
            "a padded payload that is signed",
            {
                let payload = changed(&claims(), &json!({"x": ""})).to_string();
                let padded = URL_SAFE.encode(format!("{payload}{}", " ".repeat(1 + (3 - payload.len() % 3) % 3)));
                let signed = format!("{}.{padded}", parts[0]);
                format!("{signed}.{}", b64(world.es.signature("ES256", signed.as_bytes())))
            },
            "malformed",
        ),
        ("a line break within", good.replacen('.', ".\n", 1), "malformed"),
        ("a space behind", format!("{good} "), "wrong"),
        ("a header that is a list", raw("[]", &claims().to_string()), "not_recognized"),
        ("a header cut off", raw(r#"{"alg":"ES256""#, &claims().to_string()), "malformed"),
        ("a header with more behind it", raw(&format!("{header}{{}}"), &claims().to_string()), "malformed"),
        ("a payload that is a list", raw(header, "[]"), "malformed"),
        ("a payload that is text", raw(header, "\"alice\""), "malformed"),
        ("a payload nested deep", raw(header, &deep), "malformed"),
        ("a header nested deep", raw(&deep, &claims().to_string()), "malformed"),
        ("sub twice", raw(header, &format!(r#"{{"iss":"{ISSUER}","sub":"a","sub":"b"}}"#)), "malformed"),
        (
            "a claim twice within another",
            raw(header, &format!(r#"{{"iss":"{ISSUER}","a":{{"b":1,"b":2}}}}"#)),
            "malformed",
        ),
        (
            "bytes that are no UTF-8",
            {
                let signed = format!("{}.{}", parts[0], b64([b'{', b'"', 0xff, b'"', b':', b'1', b'}']));
                format!("{signed}.{}", b64(world.es.signature("ES256", signed.as_bytes())))
            },
            "malformed",
        ),
        ("ten kilobytes", world.es.token(&changed(&claims(), &json!({"x": "x".repeat(10_000)}))), "permit"),
        ("more than a credential may have", format!("{good}{}", "A".repeat(17_000)), "status 400"),
    ]
}

/// The public key of `signer` in PEM (RFC 7468).
fn pem(signer: &Signer) -> String {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    let pem = |der: PublicKeyX509Der<'_>| {
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    };
    match &signer.key {
        Key::P256(key) | Key::P384(key) | Key::P521(key) => pem(key.public_key().as_der().unwrap()),
        Key::Ed(key) => pem(key.public_key().as_der().unwrap()),
        Key::Rsa(key) => pem(key.public_key().as_der().unwrap()),
        Key::Shared(_) => unreachable!(),
    }
}

/// What `keys` say of a token that `signer` signed.
fn checked(keys: &KeySet, signer: &Signer) -> Result<(), Unsigned> {
    keys.check(&Jws::parse(&signer.token(&json!({"sub": "a"})), 8192).unwrap(), None)
}

/// Public keys in PEM, of each kind that is taken: what their private keys sign is taken, and nothing else.
#[test]
fn a_key_in_pem_checks_what_it_signed() {
    let signers = [Signer::p256(""), Signer::p384(""), Signer::p521(""), Signer::ed(""), Signer::rsa("")];
    let keys = signers.each_ref().map(|signer| KeySet::of_pem(pem(signer).as_bytes()).unwrap());
    for (signer, signed_by) in signers.iter().zip(0..) {
        for (keys, number) in keys.iter().zip(0..) {
            let wanted = if number == signed_by { Ok(()) } else { Err(Unsigned::Algorithm) };
            let what = format!("{} with {}", signer.algorithm(), signers[number].algorithm());
            assert_eq!(checked(keys, signer), wanted, "{what}");
        }
    }
    assert!(KeySet::of_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err());
}

/// Each key that a file or several files list counts, and more than a token may be tried with are refused.
#[test]
fn every_key_in_pem_counts() {
    let signers: Vec<Signer> = (0..MAX_ALIKE).map(|_| Signer::p256("")).collect();
    let whole: String = signers.iter().map(pem).collect();
    let of_one_file = KeySet::of_pem(format!("# ours\n{whole}").as_bytes()).unwrap();
    let mut of_many = KeySet::default();
    for signer in &signers {
        of_many = of_many.and(KeySet::of_pem(pem(signer).as_bytes()).unwrap()).unwrap();
    }
    for signer in &signers {
        assert_eq!((checked(&of_one_file, signer), checked(&of_many, signer)), (Ok(()), Ok(())));
    }
    let more = Signer::p256("");
    assert_eq!(checked(&of_one_file, &more), Err(Unsigned::Wrong));
    assert_eq!(KeySet::of_pem((whole.clone() + &pem(&more)).as_bytes()).unwrap_err(), KeyError::Alike);
    assert_eq!(of_many.and(KeySet::of_pem(pem(&more).as_bytes()).unwrap()).unwrap_err(), KeyError::Alike);
    // A published set may not have so many of one name either, and of different names it may.
    let published = |kid: &dyn Fn(usize) -> String| {
        let signers: Vec<Signer> = (0..=MAX_ALIKE).map(|number| Signer::p256(&kid(number))).collect();
        KeySet::of_jwks(set(&signers).as_bytes()).map(|keys| keys.len())
    };
    assert_eq!(published(&|_| "one".to_owned()), Err(KeyError::Alike));
    assert_eq!(published(&|number| number.to_string()), Ok(MAX_ALIKE + 1));
    // What is beside the keys may be meant as one.
    for odd in ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN PUBLIC KEY-----\nAAAA"] {
        assert_eq!(KeySet::of_pem((pem(&more) + odd).as_bytes()).unwrap_err(), KeyError::Pem, "{odd}");
    }
}

/// What stands around the blocks of a PEM file is for people: comments, what `openssl -text` and PKCS#12 tools write, a key
/// that was commented out, and texts that are not even UTF-8.
#[test]
fn text_around_the_blocks_of_a_pem_file_is_passed_over() {
    let (signer, old) = (Signer::p256(""), Signer::p256(""));
    let key = pem(&signer);
    let commented: String = pem(&old).lines().map(|line| format!("# {line}\n")).collect();
    for text in [
        key.clone(),
        format!("\u{feff}{key}"),
        format!("# the key of our issuer\n{key}"),
        format!("Public-Key: (256 bit)\npub:\n    04:6b:17\n{key}"),
        format!("Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n{key}\n-- the end --\n"),
        format!("{commented}{key}"),
        format!("see -----BEGIN PUBLIC KEY----- below\n{key}"),
        key.replace('\n', "\r\n"),
        key.replace("-----\n", "-----  \n"),
    ] {
        let keys = KeySet::of_file(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((keys.len(), checked(&keys, &signer)), (1, Ok(())), "{text}");
        assert_eq!(checked(&keys, &old), Err(Unsigned::Wrong), "{text}");
    }
    let latin = [b"friendlyName: Schl\xfcssel\n".as_slice(), key.as_bytes()].concat();
    assert_eq!(KeySet::of_file(&latin).map(|keys| keys.len()), Ok(1));
    // A set is read as one, also behind a byte order mark, and what is neither says so.
    let published = format!("\u{feff} {}", set([&Signer::p256("a")]));
    assert_eq!(KeySet::of_file(published.as_bytes()).map(|keys| keys.len()), Ok(1));
    for nothing in ["", "# nothing yet\n", &commented] {
        assert_eq!(KeySet::of_file(nothing.as_bytes()).unwrap_err(), KeyError::Nothing, "{nothing}");
    }
    assert!(matches!(KeySet::of_file(b"{ -----BEGIN PUBLIC KEY-----"), Err(KeyError::Form(_))));
}

/// Such files as a server reads them.
#[test]
fn a_server_takes_pem_files_with_text_around_the_blocks() {
    let (first, second) = (Signer::p256(""), Signer::rsa(""));
    let temp = tempfile::TempDir::new().unwrap();
    let text = format!("Bag Attributes\n    friendlyName: x\n{}# and the next one\n{}", pem(&first), pem(&second));
    std::fs::write(temp.path().join("keys.pem"), text).unwrap();
    let config = format!(
        "identity: {{ providers: [{{ jwt: {{ issuers: [{{ issuer: '{ISSUER}', audiences: [tollgate], pem_files: keys.pem, \
         claims: {{ user: preferred_username }} }}] }} }}] }}\n"
    );
    let server = Setup::new().config(&config).start_in(temp);
    server.until("the keys are read", |server| server.log().contains("2 in use, 0 passed over"));
    for signer in [&first, &second] {
        let body = json!({"credential": {"bearer": signer.token(&claims())}, "action": "chat",
                          "resource": "Model::\"openai-main/gpt-4o\""});
        assert_eq!(server.post("/is_authorized", &body.to_string()).json()["decision"], "permit");
    }
}

/// RSA keys of 2000 and 2040 bits, in PEM.
const SHORT: [&str; 2] = [include_str!("../cases/jose/rsa_2000.pem"), include_str!("../cases/jose/rsa_2040.pem")];

#[test]
fn a_modulus_below_2048_bits_is_refused_in_pem_too() {
    for short in SHORT {
        assert_eq!(KeySet::of_pem(short.as_bytes()).unwrap_err(), KeyError::Pem);
    }
    assert_eq!(KeySet::of_pem(pem(&Signer::rsa("")).as_bytes()).unwrap().len(), 1);
}

/// Where a token is refused, the message names the claim, what it says and what was wanted; a long one, the setting.
#[test]
fn a_message_names_the_claim_and_both_sides() {
    let signer = Signer::p256("es");
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("keys.json"), set([&signer])).unwrap();
    let config = format!(
        "identity:
  failures: {{ enabled: false }}
  providers:
    - keys: {{}}
    - jwt:
        max_token_bytes: 1024
        issuers:
          - {{ issuer: '{ISSUER}', audiences: [tollgate, gateway], jwks_file: keys.json, max_lifetime_seconds: 86400,
              require: {{ hd: '*.example' }}, claims: {{ user: [name, preferred_username] }} }}
"
    );
    let server = Setup::new().config(&config).start_in(temp);
    server.until("the keys are read", |server| server.log().contains("in use"));
    let usual = changed(&claims(), &json!({"hd": "acme.example"}));
    let says = |change: Value| {
        let token = secret(signer.token(&changed(&usual, &change)));
        let body =
            json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
        server.post("/is_authorized", &body.to_string()).json()["message"].as_str().unwrap().to_owned()
    };
    for (change, told) in [
        (json!({"aud": "another"}), vec!["`aud`", "`another`", "`tollgate` or `gateway`"]),
        (json!({"aud": null}), vec!["`aud`", "missing"]),
        (json!({"aud": ["a", "b"]}), vec!["[`a`, `b`]"]),
        (
            json!({"iss": format!("{ISSUER}/")}),
            vec!["`iss`", "`https://idp.example.com/`", "`https://idp.example.com`"],
        ),
        (json!({"exp": "soon"}), vec!["`exp`"]),
        (json!({"exp": null}), vec!["`exp`"]),
        (json!({"nbf": now() + 600}), vec!["`nbf`"]),
        (json!({"iat": now() + 600}), vec!["`iat`"]),
        (json!({"sub": null}), vec!["`sub`"]),
        (json!({"exp": now() + 200_000}), vec!["`exp`", "`max_lifetime_seconds`"]),
        (json!({"hd": "acme.evil"}), vec!["`hd`", "`require`"]),
        (json!({"name": "a|b"}), vec!["`claims.user`", "`|`"]),
        (json!({"name": 7}), vec!["`name`"]),
        (json!({"x": "x".repeat(2000)}), vec!["max_token_bytes", "takes 1024", ISSUER]),
    ] {
        let said = says(change.clone());
        assert!(told.iter().all(|told| said.contains(told)), "{change}: {said}");
    }
    server.until("the log names the setting", |server| server.log().contains("max_token_bytes is 1024"));
    // What the token says is shown cut short, and with nothing that a terminal would obey.
    let said = says(json!({"aud": format!("\u{1b}[2J{}", "x".repeat(500))}));
    assert!(said.len() < 500 && !said.contains('\u{1b}'), "{said}");
}

/// Tokens of 200 groups are taken without a setting, in a question and in a header, also by a server that hands out tokens of
/// its own.
#[test]
fn a_token_with_two_hundred_groups_is_taken() {
    let signer = Signer::rsa("es");
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("keys.json"), set([&signer])).unwrap();
    let config = format!(
        "identity:
  loopback: closed
  providers:
    - keys: {{}}
    - jwt: {{ issuers: [{{ issuer: '{ISSUER}', audiences: [tollgate], jwks_file: keys.json, claims: {{ user: preferred_username, teams: groups }} }}] }}
"
    );
    let bundle = crate::support::BUNDLE.replace("{ id: alice,", "{ id: alice, roles: ['tollgate:gateway'],");
    let server = Setup::new().file("bundle.yaml", &bundle).config(&config).start_in(temp);
    server.until("the keys are read", |server| server.log().contains("in use"));
    let groups: Vec<String> = (0..200).map(|number| format!("{number:08x}-1111-4222-8333-{number:012x}")).collect();
    let token = secret(signer.token(&changed(&claims(), &json!({"groups": groups}))));
    assert!((10_000..16_384).contains(&token.len()), "{}", token.len());
    let body = json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    let bearer = format!("Authorization: Bearer {token}");
    let headers = [&*bearer, "Content-Type: application/json"];
    let answer = server.connect().request("POST", "/is_authorized", &headers, body.to_string().as_bytes());
    assert_eq!(answer.json()["decision"], "permit", "{answer:?}");
}
