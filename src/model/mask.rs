//! Masks everything that looks like a credential in texts that are sent back to their sender. An error that shows a
//! credential would put it into the logs of every gateway on the way.

use std::borrow::Cow;
use std::ops::Range;

/// The replacement for a credential.
const MASK: &str = "[hidden]";
/// What keys and tokens of well-known makers begin with.
const PREFIXES: [&str; 24] = [
    "tg_",
    "tgr_",
    "sk-",
    "sk_",
    "pk-",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29",
    "hf_",
    "gsk_",
    "eyJ",
];
/// At least this many bytes must follow such a prefix.
const LEAST_BEHIND_PREFIX: usize = 8;
/// The shortest word that counts as a key of a well-known maker, whatever stands around it.
const LEAST_KEY: usize = 20;
/// The schemes that precede a credential in `Authorization`, in lower case.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "token"];
/// The shortest text after a scheme that counts as a credential.
const LEAST_BEHIND_SCHEME: usize = 6;
/// A run of this many mixed letters and digits is not a natural word, and counts as a random text.
const LEAST_RANDOM: usize = 20;
/// The minimum length for hexadecimal digits: those of 128 bits.
const LEAST_HEX: usize = 32;

/// The same for text that is stored, where names must stay readable.
const LEAST_BEHIND_PREFIX_OF_KEY: usize = 16;

/// `text` without what looks like a credential.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    replaced(text, |found| {
        begins_as_key(found.word) || is_random(found.word) || found.is_behind_scheme() || found.is_user_of_url
    })
}

/// Hides credentials that are recognised by their form: keys and tokens with a vendor's prefix, the value after `Bearer`, the
/// user part of a URL. Unlike [`masked`] it keeps random ids, because stored records must name the principal.
#[must_use]
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    // Most texts are short names, and this runs for every text of every recorded decision.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'@';
    if text.len() <= LEAST_BEHIND_PREFIX_OF_KEY && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    replaced(text, |found| is_key(found.word) || found.is_behind_scheme() || found.is_user_of_url)
}

/// A word with its context.
struct Found<'t> {
    text: &'t str,
    start: usize,
    before: &'t str,
    word: &'t str,
    /// Whether it is in the part of a URL that stands before the `@`.
    is_user_of_url: bool,
}

/// Takes time in proportion to the length of `text`, because senders choose it: no step may search the rest of the text for
/// each word.
fn replaced<'t>(text: &'t str, is_secret: impl Fn(&Found<'t>) -> bool) -> Cow<'t, str> {
    let mut out = String::new();
    let mut kept = 0;
    let mut users = users_of_urls(text).peekable();
    let mut before = "";
    for (start, word) in words(text) {
        while users.next_if(|user| user.end <= start).is_some() {}
        let is_user_of_url = users.peek().is_some_and(|user| user.start <= start);
        // A word before `kept` is part of a credential that is already masked.
        if start >= kept && is_secret(&Found { text, start, before, word, is_user_of_url }) {
            out.push_str(text.get(kept..start).unwrap_or_default());
            out.push_str(MASK);
            kept = end_of_credential(text, start + word.len());
        }
        before = word;
    }
    if kept == 0 && out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// `text` with a star for each character of a credential of a well-known maker, Tollgate's keys among them, so that every
/// other place in it stays where it is. What only looks random is left, since names and digests do too.
#[must_use]
pub fn starred_keys(text: &str) -> Cow<'_, str> {
    let is_key =
        |word: &str| word.len() >= LEAST_KEY && begins_as_key(word) && word.bytes().any(|byte| byte.is_ascii_digit());
    let mut starred = Cow::Borrowed(text);
    let mut masked_to = 0;
    for (start, word) in words(text) {
        if start >= masked_to && is_key(word) {
            masked_to = end_of_credential(text, start + word.len());
            let stars = "*".repeat(masked_to - start);
            starred.to_mut().replace_range(start..masked_to, &stars);
        }
    }
    starred
}

/// Where a credential ends whose first word ends at `end`: the other parts of a token and the padding of a base64 text are
/// part of it.
fn end_of_credential(text: &str, end: usize) -> usize {
    let rest = text.get(end..).unwrap_or_default();
    end + rest.bytes().take_while(|byte| belongs(*byte)).count()
}

/// The user parts of the URLs in `text`: each one stands between `://` and `@`.
fn users_of_urls(text: &str) -> impl Iterator<Item = Range<usize>> {
    const BEGIN: &str = "://";
    text.match_indices(BEGIN).filter_map(move |(at, _)| {
        let start = at + BEGIN.len();
        // The search ends at the next URL at the latest, as its `://` has slashes.
        let length = text.get(start..)?.find(['/', '@', ' '])?;
        let end = start + length;
        text.get(end..)?.starts_with('@').then_some(start..end)
    })
}

/// The runs of letters, digits, `-`, `_`, `+` and `~`, with where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+~".contains(&byte);
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.as_bytes().get(at..)?;
        let start = at + rest.iter().position(|byte| is_word(*byte))?;
        let length = text.as_bytes().get(start..)?.iter().take_while(|byte| is_word(**byte)).count();
        at = start + length;
        Some((start, text.get(start..at)?))
    })
}

/// Whether a byte behind a part of a credential is a part of it too.
fn belongs(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_+~./=".contains(&byte)
}

fn begins_as_key(word: &str) -> bool {
    PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= LEAST_BEHIND_PREFIX))
}

/// Whether letters and digits are mixed as chance does and no name of a model.
fn is_random(word: &str) -> bool {
    let has = |text: &str, is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    let mixed = |text: &str| {
        has(text, u8::is_ascii_digit) && has(text, u8::is_ascii_lowercase) && has(text, u8::is_ascii_uppercase)
    };
    let hex = |text: &str| {
        let all = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        all && has(text, u8::is_ascii_digit) && has(text, u8::is_ascii_alphabetic)
    };
    let mut parts = word.split(['-', '_', '+', '~']);
    parts.any(|part| {
        (part.len() >= LEAST_RANDOM && mixed(part))
            || (part.len() >= LEAST_HEX && hex(part))
            // In base64 for URLs, `-` and `_` stand between.
            || (word.len() >= LEAST_HEX && part.len() >= LEAST_BEHIND_PREFIX && mixed(part))
    })
}

/// Whether `word` is a key with a vendor's prefix, and not a name that begins with the same letters.
fn is_key(word: &str) -> bool {
    let is_one = |prefix: &&str| {
        let Some(rest) = word.strip_prefix(*prefix).filter(|rest| rest.len() >= LEAST_BEHIND_PREFIX_OF_KEY) else {
            return false;
        };
        prefix.starts_with("tg") || *prefix == "eyJ" || rest.bytes().any(|byte| byte.is_ascii_digit())
    };
    word.len() > LEAST_BEHIND_PREFIX_OF_KEY
        && word.starts_with(['t', 's', 'p', 'r', 'g', 'x', 'A', 'y', 'h', 'e'])
        && PREFIXES.iter().any(is_one)
}

/// Whether `rest` gives the word before it a value, as in `Bearer realm="a"`. The `=` at the end of a base64 text does not.
fn is_value(rest: &str) -> bool {
    let value = rest.strip_prefix('=').map(|value| value.strip_prefix('"').unwrap_or(value));
    value.is_some_and(|value| value.starts_with(|first: char| first.is_alphanumeric()))
}

/// A sentence may go on behind `Bearer`; a credential is no word of small letters alone.
fn has_digit_or_capital(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

impl Found<'_> {
    fn is_behind_scheme(&self) -> bool {
        let Self { text, start, before, word, .. } = *self;
        if word.len() < LEAST_BEHIND_SCHEME || !SCHEMES.iter().any(|scheme| before.eq_ignore_ascii_case(scheme)) {
            return false;
        }
        let between = text.get(..start).and_then(|head| head.strip_suffix(|space: char| space.is_whitespace()));
        between.is_some_and(|head| head.trim_end().ends_with(before))
            && !text.get(start + word.len()..).is_some_and(is_value)
            && has_digit_or_capital(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_not_shown() {
        for secret in [
            "tg_3JxqPZ0aTn4L_x9dkfjalskdjf",
            "tgr_0123456789",
            "sk-proj-abcdefghij",
            "ghp_abcdefghijklmnop",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.dGVzdA",
            "AKIAIOSFODNN7EXAMPLE",
            "9f86d081884c7d659a2feaa0c55ad015",
            "q7Rk2vXz91LmNpQwErTy8uIoPa",
            "Zm9vYmFy-9Zz8Qw7Er6_Ty5Ui4Op3As2Df1",
        ] {
            for text in [secret.to_owned(), format!("no action is called `{secret}`; did"), format!("context.{secret}")]
            {
                let shown = masked(&text);
                assert!(!shown.contains(secret) && shown.contains(MASK), "{text}: {shown}");
                // Nor is any longer piece of it.
                let pieces = secret.as_bytes().windows(9).filter_map(|piece| std::str::from_utf8(piece).ok());
                assert!(pieces.into_iter().all(|piece| !shown.contains(piece)), "{text}: {shown}");
            }
        }
        assert_eq!(masked("`Bearer Hunter2x` is none"), "`Bearer [hidden]` is none");
        assert_eq!(masked("basic YWxpY2U6aHVudGVyMg=="), "basic [hidden]");
        assert!(!masked("at https://alice:hunter2@example.com/x").contains("hunter2"));
    }

    #[test]
    fn what_people_write_is_shown() {
        for text in [
            "",
            "no action is called `chat2`; did you mean `chat`?",
            "no model is called `truefoundry-self-hosted/llama-2-7b-chat-hf-10707`",
            "`meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo-Free`",
            "`anthropic.claude-3-5-sonnet-20241022-v2:0`",
            "`context.max_output_tokens` must be a whole number from 0 to 9223372036854775807",
            "`alice@acme.example` is not an entity uid; write it as Type::\"id\"",
            "send it with `Authorization: Bearer …`",
            "a token behind the word bearer belongs there",
            "https://docs.example.com/a@b",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            "ünïcödé — «text»",
            "Digest nonceV2=\"abc\"",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn records_that_are_kept_name_who_asked_and_hold_no_credential() {
        for secret in [
            "tg_3JxqPZ0aTn4L_x9dkfjalskdjf",
            "sk-proj-abcdefghij0123456789",
            "ghp_abcdefghijklmnop0123",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.dGVzdA",
            "AKIAIOSFODNN7EXAMPLE",
        ] {
            for text in [secret.to_owned(), format!("/v1/{secret}/x"), format!("Bearer {secret}")] {
                let kept = without_credentials(&text);
                assert!(!kept.contains(secret) && kept.contains(MASK), "{text}: {kept}");
            }
        }
        assert_eq!(without_credentials("Bearer Hunter2x"), "Bearer [hidden]");
        assert_eq!(
            without_credentials("https://alice:hunter2@example.com/x"),
            "https://[hidden]:[hidden]@example.com/x"
        );
        assert_eq!(without_credentials("basic YWxpY2U6aHVudGVyMg=="), "basic [hidden]");
        assert_eq!(masked("{\"a\": \"Basic YWxpY2U6aHVudGVyM2==\"}"), "{\"a\": \"Basic [hidden]\"}");
        for name in [
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "9f86d081884c7d659a2feaa0c55ad015",
            "q7Rk2vXz91LmNpQwErTy8uIoPa",
            "sk-reporting-service-of-berlin",
            "pk-johnson",
            "alice@acme.example",
            "spiffe://acme.example/ns/prod/sa/bot",
        ] {
            assert_eq!(without_credentials(name), name);
        }
    }

    #[test]
    fn masks_the_user_of_each_url_and_nothing_else_of_it() {
        for (text, shown) in [
            ("a://b@c d://e:f@g", "a://[hidden]@c d://[hidden]:[hidden]@g"),
            ("a://b://c@d", "a://b://[hidden]@d"),
            ("a:///b@c a://b/c@d a://b c@d a://@b", "a:///b@c a://b/c@d a://b c@d a://@b"),
            ("a://b", "a://b"),
            ("://", "://"),
            ("://é@", "://é@"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    /// If each word searched the rest of the text, this test would take minutes.
    #[test]
    fn long_texts_of_many_words_are_masked_in_one_pass() {
        let parts =
            ["a ", "u{7f}\\", "a://", "a://b@c ", "://a.", "sk-abcdefgh.", "eyJabcdefgh0123456789.", "bearer ", "@"];
        for part in parts {
            let text = part.repeat(300_000 / part.len());
            assert!(!masked(&text).contains("abcdefgh"), "{part}");
            assert!(!without_credentials(&text).contains("0123456789"), "{part}");
            assert_eq!(starred_keys(&text).len(), text.len(), "{part}");
        }
    }
}
