//! Masks a line by its own look and that of the lines above, for text that is not valid YAML. If in doubt, it masks.

use super::names::{is_file, is_list, is_secret};
use crate::model::starred_keys;

/// The number of lines above a line that are searched for its parent keys.
const MOST_ABOVE: usize = 200;

/// `line`, below `before`, with a star for each character that may be part of a secret. The length stays the same, so
/// that columns remain valid.
pub(super) fn masked(before: &[&str], line: &str) -> String {
    if stands_below_secret(before, line) || may_go_on_with_secret(before, line) {
        return starred_from(line, shape(line).content);
    }
    masked_line(line)
}

/// `line`, with a star for each character that may be part of a secret, judged by the line alone.
pub(super) fn masked_line(line: &str) -> String {
    // A key may have been pasted under any name.
    let line = &*starred_keys(line);
    match userinfo(line) {
        Some((before, secret, after)) => {
            let stars: String = secret.chars().map(|_| '*').collect();
            masked_values(&format!("{before}{stars}{after}"))
        }
        None => masked_values(line),
    }
}

fn starred_from(line: &str, at: usize) -> String {
    let (shown, secret) = line.split_at_checked(at).unwrap_or((line, ""));
    secret.chars().fold(shown.to_owned(), |shown, _| shown + "*")
}

/// How a line is made up.
struct Shape<'a> {
    /// Where its first dash stands, if it is an item of a list.
    dash: Option<usize>,
    /// The start of its content.
    content: usize,
    /// The text before its first colon.
    key: Option<&'a str>,
}

fn shape(line: &str) -> Shape<'_> {
    let (mut dash, mut is_explicit, mut content) = (None, false, line.len() - line.trim_start().len());
    while let Some(rest) = line.get(content..).and_then(|rest| rest.strip_prefix(['-', '?'])) {
        if !rest.starts_with([' ', '\t']) {
            break;
        }
        if line.get(content..).is_some_and(|rest| rest.starts_with('-')) {
            dash.get_or_insert(content);
        } else {
            is_explicit = true;
        }
        content = line.len() - rest.trim_start().len();
    }
    let rest = line.get(content..).unwrap_or_default();
    let key = rest
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|at| rest.get(at + 1..).is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t'])));
    // An explicit key ends with its line.
    let key = key.and_then(|at| rest.get(..at)).or_else(|| is_explicit.then_some(rest));
    Shape { dash, content, key }
}

/// Whether the line belongs to the value of a key that holds a secret and stands further up, by their indentation.
fn stands_below_secret(before: &[&str], line: &str) -> bool {
    let own = shape(line);
    if own.content == line.len() || own.key.is_some_and(is_file) {
        return false;
    }
    let mut within_member = own.key.is_some_and(|key| !key.is_empty());
    // A line that begins left of this column may be the parent of this line.
    let mut limit = own.dash.map_or(own.content, |dash| dash + 1);
    if line.get(own.content..).is_some_and(|rest| rest.starts_with(':')) {
        // The value of an explicit key.
        limit = own.content + 1 + "? ".len();
    }
    let is_said = |above: &&&str| !above.trim().is_empty() && !above.trim_start().starts_with('#');
    for above in before.iter().rev().filter(is_said).take(MOST_ABOVE) {
        let above = shape(above);
        if let Some(key) = above.key.filter(|_| above.content < limit) {
            if is_secret(key) || (is_list(key) && !within_member) {
                return true;
            }
            within_member = true;
            limit = above.dash.map_or(above.content, |dash| dash + 1);
        } else if let Some(dash) = above.dash.filter(|dash| *dash < limit) {
            limit = dash + 1;
        }
        if limit == 0 {
            return false;
        }
    }
    false
}

/// Whether the line has no key of its own and follows the key of a secret: the rest of a secret that was pasted without
/// indentation.
fn may_go_on_with_secret(before: &[&str], line: &str) -> bool {
    let own = shape(line);
    if own.key.is_some_and(|key| !key.trim().is_empty()) || line.trim_start().starts_with('#') {
        return false;
    }
    let shapes =
        || before.iter().rev().filter(|above| !above.trim().is_empty()).take(MOST_ABOVE).map(|above| shape(above));
    if own.dash.is_some() && shapes().any(|above| above.dash == own.dash) {
        // It is an item of the list that holds the secret.
        return false;
    }
    let said = shapes().map(|above| (above.key, above.dash)).find(|(key, dash)| key.is_some() || dash.is_some());
    said.and_then(|(key, _)| key).is_some_and(is_secret)
}

/// The userinfo of a URL (RFC 3986, section 3.2.1), with the text before and after it.
fn userinfo(line: &str) -> Option<(&str, &str, &str)> {
    let begins = line.find("://")? + 3;
    let (before, rest) = line.split_at_checked(begins)?;
    let ends = rest.rfind('@')?;
    let (secret, after) = rest.split_at_checked(ends)?;
    Some((before, secret, after))
}

/// Whether a URL in `text` has userinfo.
pub(crate) fn has_userinfo(text: &str) -> bool {
    userinfo(text).is_some()
}

fn masked_values(line: &str) -> String {
    let (mut shown, mut rest) = (String::new(), line);
    while let Some((key, after)) = next_secret(rest) {
        shown.push_str(key);
        let value = after.trim_start();
        shown.push_str(after.strip_suffix(value).unwrap_or_default());
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => end_of_quoted(value, quote),
            // A list or a mapping may continue to the end of the line, so all of it is masked.
            Some('[' | '{') => value.len(),
            _ => value.find([',', '}']).and_then(|at| value.get(..at)).unwrap_or(value).trim_end().len(),
        };
        let (value, left) = value.split_at_checked(end).unwrap_or((value, ""));
        shown.extend(value.chars().map(|_| '*'));
        rest = left;
    }
    shown + rest
}

/// Where a text in quotes ends that begins `value`; a quote that is escaped, or written twice, is part of it.
fn end_of_quoted(value: &str, quote: char) -> usize {
    let mut characters = value.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        if character == '\\' && quote == '"' || character == quote && quote == '\'' && next == Some(quote) {
            characters.next();
        } else if character == quote {
            return at + 1;
        }
    }
    value.len()
}

/// The text up to the colon after the key of a secret, and the rest.
fn next_secret(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(colon) = text.get(from..)?.find(':').map(|at| from + at) {
        let before = text.get(..colon)?;
        // Members of a mapping say themselves which are secrets.
        let value = text.get(colon + 1..)?.trim_start();
        let of_texts = value.strip_prefix('[').is_some_and(|items| !items.trim_start().starts_with('{'));
        if is_secret(before) || (of_texts && is_list(before)) {
            return text.split_at_checked(colon + 1);
        }
        from = colon + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_the_key_of_a_secret_is_not_shown() {
        for (text, shown) in [
            ("tokens:\n  - hunter2", "  - *******"),
            ("  tokens:\n  - a\n\n  # b\n  - 'hunter2'", "  - *********"),
            ("client_secret:\n- hunter2", "- *******"),
            ("tokens:\n  - { token: hunter2, principal: x }", "  - { token: *******, principal: x }"),
            ("tokens:\n  - principal: x\n    token_file: /run/x", "    token_file: /run/x"),
            ("tokens:\n  - principal: x\n    token:\n      hunter2", "      *******"),
            ("models:\n  - hunter2", "  - hunter2"),
            ("    tokens:\n  - hunter2", "  - hunter2"),
            ("tokens: []\nmodels:\n  - x", "  - x"),
            ("password:\n  hunter2", "  *******"),
            ("- { x: 1 }\n- password: |-\n    one\n\n    two: 2", "    ******"),
            ("password: 'one\n  hunter2'\nx: 1", "x: 1"),
            ("password: 'one\n  hunter2'", "  ********"),
            ("password: x\nusers:\n  - y", "  - y"),
            ("client_secret:\n  file: /run/x", "  file: /run/x"),
            ("? password\n: hunter2", "*********"),
            ("private_key: |\n-----BEGIN\nhunter2", "*******"),
            ("password:\n{ hunter2", "*********"),
            ("- password: x\n- bob", "- bob"),
            ("- id: x\n  password:\n - hunter2", " - *******"),
            ("password: x\nteam research", "*************"),
            ("password: x\nteam: research\nops", "ops"),
            ("- ? password\n  : hunter2", "  *********"),
            ("budget:\n  tokens: 10\n  every: day", "  every: day"),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            let (line, before) = lines.split_last().unwrap();
            assert_eq!(masked(before, line), shown, "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_nothing_moves() {
        for (line, shown) in [
            ("  - { id: alice, password_hash: hunter2 }", "  - { id: alice, password_hash: ******* }"),
            ("password_hash: \"a, b\", teem: x", "password_hash: ******, teem: x"),
            ("password: \"a\\\"b\", teem: x", "password: ******, teem: x"),
            ("password: 'a''b', teem: x", "password: ******, teem: x"),
            ("'password': 'hunter2', token: é, x: y", "'password': *********, token: *, x: y"),
            ("  - { id: a, hash: x, owner: 'User::\"b\"' }", "  - { id: a, hash: *, owner: 'User::\"b\"' }"),
            ("client_secret:   hunter2", "client_secret:   *******"),
            ("passwords: [a]", "passwords: ***"),
            ("api_key: hunter2", "api_key: *******"),
            ("tokens: [hunter2]", "tokens: *********"),
            ("tokens: [{ token_file: /run/x, principal: y }]", "tokens: [{ token_file: /run/x, principal: y }]"),
            ("basic: { htpasswd: /etc/htpasswd }", "basic: { htpasswd: /etc/htpasswd }"),
            ("client_secret_file: /run/secrets/x", "client_secret_file: /run/secrets/x"),
            ("budget: { tokens: 10 }, max_output_tokens: 5", "budget: { tokens: 10 }, max_output_tokens: 5"),
            ("redis: redis://:hunter2@host:1/0", "redis: redis://********@host:1/0"),
            ("url: \"https://u:p@ss@host/x\", x: 1", "url: \"https://******@host/x\", x: 1"),
            ("issuer: https://idp.example.com", "issuer: https://idp.example.com"),
            ("token: [hunter2, b]", "token: ************"),
            ("password: \"hunter2", "password: ********"),
            ("password:hunter2", "password:*******"),
            ("password: !hunter2", "password: ********"),
            ("password:", "password:"),
            ("Hash : x", "Hash : *"),
            ("- { id: tg_a1b2c3d4e5f6_secretsecret, x: 1 }", "- { id: ****************************, x: 1 }"),
            ("tags: [sk-proj-a1b2c3d4e5f6g7, gpu]", "tags: [**********************, gpu]"),
            ("models: [sk-learn/big-model-2, hf_large]", "models: [sk-learn/big-model-2, hf_large]"),
        ] {
            assert_eq!(masked(&[], line), shown);
            assert_eq!(masked(&[], line).chars().count(), line.chars().count());
        }
    }
}
