use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::SecretText;

fn basic(username: &str, password: &str, source: Option<&str>) -> Presented {
    let password = SecretText::new(password);
    let credential = Credential::Basic { username: username.into(), password };
    Presented { source: source.map(|source| source.parse().unwrap()), ..Presented::new(credential) }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Whether it is looked at, which is over at once.
fn admits(failures: &mut Failures, attempt: &Attempt, now: Timestamp) -> Result<(), i64> {
    failures.admit(attempt, now).inspect(|()| failures.ended(attempt))
}

/// Guesses until it is refused; how many went through.
fn guesses(failures: &mut Failures, presented: &Presented, now: i64) -> u32 {
    let mut through = 0;
    loop {
        let attempt = failures.attempt(presented);
        if through > 1_000 || admits(failures, &attempt, at(now)).is_err() {
            return through;
        }
        failures.failed(&attempt, RefusalReason::Wrong, at(now));
        through += 1;
    }
}

fn small() -> FailureLimits {
    FailureLimits { source_burst: 20, id_burst: 5, ..FailureLimits::default() }
}

#[test]
fn a_source_is_slowed_and_let_in_again() {
    let mut failures = Failures::new(FailureLimits { id_burst: 1_000, ..FailureLimits::default() });
    let guess = basic("alice", "x", Some("192.0.2.1"));
    assert_eq!(guesses(&mut failures, &guess, 0), 20);
    let attempt = failures.attempt(&guess);
    assert_eq!(admits(&mut failures, &attempt, at(0)), Err(3_000));
    assert_eq!(admits(&mut failures, &attempt, at(2_999)), Err(1));
    assert_eq!(guesses(&mut failures, &guess, 3_000), 1);
    assert_eq!(guesses(&mut failures, &guess, 3_600_000), 20);
    let other = failures.attempt(&basic("alice", "x", Some("192.0.2.2")));
    assert_eq!(admits(&mut failures, &other, at(3_600_000)), Ok(()));
}

#[test]
fn certificates_that_name_nobody_keep_no_other_client_of_their_proxy_out() {
    let mut failures = Failures::new(small());
    let proxy: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
    let forwarded = |said: &str| {
        let credential = Credential::ForwardedCertificate { said: said.into(), by: proxy };
        Presented { source: proxy, ..Presented::new(credential) }
    };
    for number in 0..1_000 {
        let attempt = failures.attempt(&forwarded(&format!("URI=spiffe://example.org/{number}")));
        assert_eq!(admits(&mut failures, &attempt, at(0)), Ok(()));
        failures.failed(&attempt, RefusalReason::UnknownPrincipal, at(0));
    }
    // Nor one whose password comes by the same proxy.
    let attempt = failures.attempt(&basic("alice", "x", Some("192.0.2.1")));
    assert_eq!(admits(&mut failures, &attempt, at(0)), Ok(()));
    assert_eq!(guesses(&mut failures, &basic("alice", "x", Some("192.0.2.1")), 0), 5);
}

#[test]
fn addresses_of_one_network_are_one_source_and_mapped_ones_are_what_they_map() {
    let mut failures = Failures::new(FailureLimits { id_burst: 1_000, ..FailureLimits::default() });
    assert_eq!(guesses(&mut failures, &basic("a", "x", Some("2001:db8:1:2::1")), 0), 20);
    assert_eq!(guesses(&mut failures, &basic("a", "x", Some("2001:db8:1:2:ffff::9")), 0), 0);
    assert_eq!(guesses(&mut failures, &basic("a", "x", Some("2001:db8:1:3::1")), 0), 20);
    assert_eq!(guesses(&mut failures, &basic("a", "x", Some("192.0.2.1")), 0), 20);
    assert_eq!(guesses(&mut failures, &basic("a", "x", Some("::ffff:192.0.2.1")), 0), 0);
}

#[test]
fn an_id_is_shut_only_to_those_who_guessed_at_it() {
    let mut failures = Failures::new(small());
    for number in 1..=5 {
        let guess = basic("alice", "x", Some(&format!("192.0.2.{number}")));
        let attempt = failures.attempt(&guess);
        failures.failed(&attempt, RefusalReason::Wrong, at(0));
    }
    let refused = failures.attempt(&basic("alice", "right", Some("192.0.2.1")));
    assert!(admits(&mut failures, &refused, at(0)).is_err());
    let others = failures.attempt(&basic("bob", "x", Some("192.0.2.1")));
    assert_eq!(admits(&mut failures, &others, at(0)), Ok(()));
    let owner = failures.attempt(&basic("alice", "right", Some("198.51.100.1")));
    assert_eq!(admits(&mut failures, &owner, at(0)), Ok(()));
}

#[test]
fn what_proved_somebody_lately_is_no_guess() {
    let mut failures = Failures::new(small());
    let right = basic("alice", "right", Some("192.0.2.1"));
    let attempt = failures.attempt(&right);
    failures.proved(&attempt, at(0));
    guesses(&mut failures, &basic("alice", "x", Some("192.0.2.1")), 0);
    guesses(&mut failures, &basic("bob", "x", Some("192.0.2.1")), 0);
    assert_eq!(admits(&mut failures, &attempt, at(1)), Ok(()));
    let elsewhere = failures.attempt(&basic("alice", "right", None));
    assert_eq!(admits(&mut failures, &elsewhere, at(1)), Ok(()));
    // An hour is no promise for ever: by then the source has been let in again too.
    let wrong = failures.attempt(&basic("alice", "wrong", Some("192.0.2.1")));
    assert!(admits(&mut failures, &wrong, at(1)).is_err());
}

#[test]
fn what_was_right_until_now_counts_from_the_second_time_on_and_nobody_is_locked_out_for_long() {
    let mut failures = Failures::new(small());
    let old = failures.attempt(&basic("alice", "old", Some("192.0.2.1")));
    failures.proved(&old, at(0));
    let mut through = 0;
    for _ in 0..300 {
        if admits(&mut failures, &old, at(1)).is_ok() {
            failures.failed(&old, RefusalReason::Wrong, at(1));
            through += 1;
        }
    }
    assert_eq!(through, 6);
    // Those that were looked at all at once.
    for _ in 0..300 {
        failures.failed(&old, RefusalReason::Wrong, at(1));
    }
    let new = failures.attempt(&basic("alice", "new", Some("192.0.2.1")));
    assert_eq!(admits(&mut failures, &new, at(1)), Err(30_000));
    let other = failures.attempt(&basic("bob", "x", Some("192.0.2.1")));
    assert_eq!(admits(&mut failures, &other, at(1)), Err(3_000));
    assert_eq!(admits(&mut failures, &new, at(30_001)), Ok(()));
}

#[test]
fn of_a_source_that_failed_few_are_looked_at_at_the_same_time() {
    let mut failures = Failures::new(small());
    let first = failures.attempt(&basic("first", "x", Some("192.0.2.1")));
    assert!((0..400).all(|_| failures.admit(&first, at(0)).is_ok()), "nobody has failed");
    (0..400).for_each(|_| failures.ended(&first));
    failures.failed(&first, RefusalReason::Wrong, at(0));
    let guess = |number: u32| basic(&format!("user-{number}"), "x", Some("192.0.2.1"));
    let attempts: Vec<Attempt> = (0..400).map(|number| failures.attempt(&guess(number))).collect();
    let through = attempts.iter().filter(|attempt| failures.admit(attempt, at(0)).is_ok()).count();
    assert_eq!(through, 80);
    let other = failures.attempt(&basic("alice", "x", Some("192.0.2.2")));
    assert_eq!(failures.admit(&other, at(0)), Ok(()));
    attempts.iter().take(80).for_each(|attempt| failures.ended(attempt));
    failures.ended(&other);
    assert!(failures.looked_at.is_empty());
    assert_eq!(failures.admit(&attempts[0], at(0)), Ok(()));
}

#[test]
fn what_is_no_guess_does_not_count() {
    let mut failures = Failures::new(small());
    let attempt = failures.attempt(&basic("alice", "x", Some("192.0.2.1")));
    for reason in RefusalReason::ALL.into_iter().filter(|reason| !is_guess(*reason)) {
        for _ in 0..100 {
            failures.failed(&attempt, reason, at(0));
        }
        assert_eq!(admits(&mut failures, &attempt, at(0)), Ok(()), "{reason:?}");
    }
    assert!(failures.is_quiet());
}

#[test]
fn a_key_is_known_by_its_public_id() {
    for (text, id) in [
        ("tg_abc_secret", Some("abc")),
        ("tg_abc_other", Some("abc")),
        ("tg__x", None),
        ("sk-abc", None),
        ("eyJhbGciOi", None),
    ] {
        assert_eq!(id_of(&Credential::Bearer(SecretText::new(text))), id, "{text}");
        assert_eq!(id_of(&Credential::ApiKey(SecretText::new(text))), id, "{text}");
    }
    let parameters = SecretText::new("username=alice, realm=\"tollgate\"");
    assert_eq!(id_of(&Credential::Digest { username: Some("alice".into()), parameters }), Some("alice"));
}

#[test]
fn its_memory_is_bounded() {
    let mut failures = Failures::new(FailureLimits { remembered: 100, ..FailureLimits::default() });
    for number in 0..10_000_u32 {
        let address = std::net::Ipv4Addr::from(number).to_string();
        let attempt = failures.attempt(&basic(&number.to_string(), "x", Some(&address)));
        failures.failed(&attempt, RefusalReason::Wrong, at(0));
        failures.proved(&attempt, at(0));
    }
    assert!(failures.len() <= 400, "{}", failures.len());
}

#[test]
fn nothing_that_is_presented_is_kept_or_shown() {
    let mut failures = Failures::new(small());
    let attempt = failures.attempt(&basic("alice", "hunter2", Some("192.0.2.1")));
    failures.failed(&attempt, RefusalReason::Wrong, at(0));
    let shown = format!("{failures:?} {attempt:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
}

proptest! {
    /// Whatever others do, an owner that does not fail from an own address is never refused.
    #[test]
    fn an_owner_from_an_own_address_is_never_refused(
        steps in prop::collection::vec((0_u8..4, 0_u8..8, 0_i64..120_000), 1..400),
    ) {
        let mut failures = Failures::new(small());
        let owner = basic("alice", "right", Some("198.51.100.7"));
        let mut now = 0;
        for (what, source, pause) in steps {
            now += pause;
            let address = format!("192.0.2.{source}");
            match what {
                0 => {
                    let attempt = failures.attempt(&owner);
                    prop_assert_eq!(admits(&mut failures, &attempt, at(now)), Ok(()));
                    failures.proved(&attempt, at(now));
                }
                1 => drop(guesses(&mut failures, &basic("bob", "x", Some(&address)), now)),
                2 => drop(guesses(&mut failures, &basic("alice", "x", None), now)),
                _ => drop(guesses(&mut failures, &basic("alice", "x", Some(&address)), now)),
            }
            let attempt = failures.attempt(&owner);
            prop_assert_eq!(admits(&mut failures, &attempt, at(now)), Ok(()));
        }
    }

    /// From one source no more guesses go through than the burst and what time gives back.
    #[test]
    fn guesses_from_one_source_are_bounded(pauses in prop::collection::vec(0_i64..20_000, 1..200)) {
        let limits = small();
        let mut failures = Failures::new(limits.clone());
        let (mut now, mut through) = (0, 0_u32);
        for (number, pause) in pauses.into_iter().enumerate() {
            now += pause;
            let guess = basic(&format!("user-{number}"), "x", Some("192.0.2.1"));
            through += guesses(&mut failures, &guess, now).min(1_000);
            let borne = i64::from(limits.source_burst) + now / limits.source_every_ms;
            prop_assert!(i64::from(through) <= borne, "{} of {}", through, borne);
        }
    }
}
