//! A key in use is recalled from memory. Whatever it depends on, a change of that holds at the next request.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tollgate::edge::identity::{KeyOptions, KeyProvider};
use tollgate::edge::store::KeyFile;
use tollgate::gate::{Authenticator, Clock, Credential, KeyWrite, Keys, Later, Presented, Recalled, Verdict};
use tollgate::model::{
    KeyDetails, KeyRecord, KeyText, Narrowed, RefusalReason, Revocation, SecretText, Timestamp, key_text,
};
use tollgate::{Engine, EngineError, Request, Snapshot};

const NOW: i64 = 1_795_348_800_000;
const BUNDLE: &str = "
users: [{ id: alice }, { id: bob }]
provider_accounts: [{ id: oa, provider: openai, models: [a, b] }]
authz_rules: [{ users: [alice, bob], models: ['oa/*'] }]
";

#[derive(Clone)]
struct Hands(Arc<AtomicI64>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// The provider, noting whether it had to look.
struct Watched {
    provider: KeyProvider,
    looked: Mutex<u32>,
}

impl Authenticator for Watched {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn recall(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Recalled {
        self.provider.recall(presented, snapshot, now)
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        *self.looked.lock().unwrap() += 1;
        self.provider.authenticate(presented, snapshot, now)
    }
}

struct World {
    engine: Engine,
    keys: Arc<KeyFile>,
    watched: Arc<Watched>,
    clock: Hands,
    policies: tempfile::TempDir,
    _data: tempfile::TempDir,
}

fn secret(byte: u8) -> SecretText {
    let text = key_text("alice-laptop", [byte; 32]).unwrap();
    SecretText::new(crate::support::secret(text.expose()))
}

impl World {
    fn new() -> Self {
        let (data, policies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = Arc::new(KeyFile::open(data.path(), None).unwrap());
        let key = secret(7);
        let record = KeyRecord {
            id: "alice-laptop".into(),
            owner: r#"User::"alice""#.parse().unwrap(),
            hash: keys.hash(&KeyText::parse(key.expose()).unwrap()),
            version: 1,
            created_at: Timestamp::from_millis(NOW),
            expires_at: Some(Timestamp::from_millis(NOW + 50_000)),
            used_at: AtomicI64::new(0),
            more: None,
        };
        pollster::block_on(keys.write(KeyWrite::Make(record))).unwrap();
        let provider = KeyProvider::new(Some(keys.clone() as Arc<dyn Keys>), KeyOptions::default());
        let watched = Arc::new(Watched { provider, looked: Mutex::default() });
        let clock = Hands(Arc::new(AtomicI64::new(NOW)));
        std::fs::write(policies.path().join("a.yaml"), BUNDLE).unwrap();
        let built = Engine::builder().policies(policies.path()).clock(Arc::new(clock.clone()));
        let engine = built.authenticator(watched.clone()).build().unwrap();
        Self { engine, keys, watched, clock, policies, _data: data }
    }

    /// What becomes of a request with that secret, and whether the key had to be looked at for it.
    fn ask(&self, byte: u8) -> (Result<bool, RefusalReason>, bool) {
        *self.watched.looked.lock().unwrap() = 0;
        let presented = Presented::new(Credential::ApiKey(secret(byte)));
        let ask = |identity| Request::proved(identity, "chat", r#"Model::"oa/a""#.parse().unwrap());
        let decided = match self.engine.authorize(&presented, ask) {
            Ok(decision) => Ok(decision.is_permit()),
            Err(EngineError::Unauthenticated(refusal)) => Err(refusal.reason),
            Err(other) => panic!("{other}"),
        };
        (decided, *self.watched.looked.lock().unwrap() > 0)
    }

    fn change(&self, change: impl FnOnce(&mut KeyRecord)) {
        let mut record = KeyRecord::clone(&self.keys.find("alice-laptop").unwrap().unwrap());
        record.version += 1;
        change(&mut record);
        pollster::block_on(self.keys.write(KeyWrite::Change(record))).unwrap();
    }

    /// In use: looked at once, then recalled.
    fn used() -> Self {
        let world = Self::new();
        assert_eq!(world.ask(7), (Ok(true), true));
        assert_eq!(world.ask(7), (Ok(true), false));
        world
    }
}

#[test]
fn recalled_a_key_in_use_is_looked_at_once_a_minute() {
    let world = World::used();
    world.change(|key| key.expires_at = None);
    assert_eq!((world.ask(7), world.ask(7)), ((Ok(true), true), (Ok(true), false)));
    world.clock.0.store(NOW + 59_999, Ordering::SeqCst);
    assert_eq!(world.ask(7), (Ok(true), false));
    world.clock.0.store(NOW + 60_000, Ordering::SeqCst);
    assert_eq!((world.ask(7), world.ask(7)), ((Ok(true), true), (Ok(true), false)));
    // A clock that went back tells nothing of how long ago that was.
    world.clock.0.store(NOW, Ordering::SeqCst);
    assert_eq!(world.ask(7), (Ok(true), true));
}

#[test]
fn recalled_another_secret_is_wrong_and_the_right_one_is_still_recalled() {
    let world = World::used();
    assert_eq!(world.ask(8), (Err(RefusalReason::Wrong), true));
    assert_eq!(world.ask(7), (Ok(true), false));
}

#[test]
fn recalled_a_key_that_is_revoked_narrowed_or_removed_is_so_at_once() {
    let world = World::used();
    let narrowed = Narrowed { models: Some(["oa/b".into()].into()), ..Narrowed::default() };
    let narrowed = KeyDetails { narrowed: Some(Arc::new(narrowed)), ..KeyDetails::default() };
    world.change(|key| key.more = Some(Box::new(narrowed)));
    assert_eq!((world.ask(7), world.ask(7)), ((Ok(false), true), (Ok(false), false)));
    let revoked = Revocation { at: Timestamp::from_millis(NOW), by: None, reason: Some("lost".into()) };
    world.change(|key| key.more = Some(Box::new(KeyDetails { revoked: Some(revoked), ..KeyDetails::default() })));
    assert_eq!(world.ask(7), (Err(RefusalReason::Revoked), true));
    world.change(|key| key.more = None);
    assert_eq!((world.ask(7), world.ask(7)), ((Ok(true), true), (Ok(true), false)));
    let version = world.keys.find("alice-laptop").unwrap().unwrap().version;
    pollster::block_on(world.keys.write(KeyWrite::Remove { id: "alice-laptop".into(), version })).unwrap();
    assert_eq!(world.ask(7), (Err(RefusalReason::Wrong), true));
}

#[test]
fn recalled_a_key_that_ends_or_whose_owner_is_gone_proves_nobody() {
    let world = World::used();
    world.clock.0.store(NOW + 50_000, Ordering::SeqCst);
    assert_eq!(world.ask(7), (Err(RefusalReason::Expired), true));
    world.clock.0.store(NOW, Ordering::SeqCst);
    assert_eq!(world.ask(7).0, Ok(true));
    std::fs::write(world.policies.path().join("a.yaml"), BUNDLE.replace("alice", "carol")).unwrap();
    assert!(world.engine.reload(std::time::Duration::from_secs(30)));
    assert_eq!(world.ask(7), (Err(RefusalReason::UnknownPrincipal), true));
}
