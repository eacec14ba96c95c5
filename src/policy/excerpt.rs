//! The lines of a file that its problems show: filled in once the problems are known, cut where a line is long, and
//! with whatever may be a secret left out.

use std::borrow::Cow;
use std::sync::Arc;

use super::problem::Problem;

/// Longer lines are cut.
const MAX_CHARACTERS: usize = 400;
/// How much is kept before the place in a line that is cut at its front.
const KEPT_BEFORE: usize = 200;
/// From this column on a long line is cut at its front.
const CUT_FROM: usize = 300;
/// Stands for what was cut off.
const CUT: char = '…';

/// Gives each of `problems`, all in the file that holds `text`, the line that it is about, unless it has one.
pub(crate) fn fill(problems: &mut [Problem], text: &str) {
    if problems.is_empty() {
        return;
    }
    let lines: Vec<&str> = super::yaml::without_bom(text).split('\n').collect();
    let mut cursor = Cursor::default();
    // Many problems may be about one line, which may be long.
    let mut last: Option<(u32, Cow<'_, str>)> = None;
    for problem in problems.iter_mut().filter(|problem| problem.source_line.is_none()) {
        let line = (problem.place.line as usize).checked_sub(1).and_then(|index| lines.get(index));
        problem.source_line = line.map(|line| {
            let number = problem.place.line;
            if last.as_ref().is_none_or(|(known, _)| *known != number) {
                let before = lines.get(..number as usize - 1).unwrap_or_default();
                last = Some((number, masked(before, line.trim_end_matches('\r'))));
            }
            let line = last.as_ref().map_or("", |(_, line)| line);
            let long = line.chars().nth(MAX_CHARACTERS).is_some();
            let first = if long { first_shown(problem.place.column as usize) } else { 0 };
            excerpt(cursor.from(line, problem.place.line, first), first > 0)
        });
    }
}

/// So many lines above an item of a list are looked through for what the list is called.
const MOST_ITEMS: usize = 200;

/// What the keys of secrets end with; `password` and what is written `pasword_hash` in haste among them.
const SECRET: [&str; 6] = ["hash", "password", "passwd", "secret", "token", "credential"];

/// `line`, below `before`, with a star for each character of what may be a secret: the value of a key that is called like
/// one. So every place in it stays where it is.
fn masked<'a>(before: &[&str], line: &'a str) -> Cow<'a, str> {
    if let Some(masked) = masked_item(before, line) {
        return masked;
    }
    match userinfo(line) {
        Some((before, secret, after)) => {
            let stars: String = secret.chars().map(|_| '*').collect();
            Cow::Owned(masked_values(&format!("{before}{stars}{after}")).into_owned())
        }
        None => masked_values(line),
    }
}

/// `line` where it is an item of a list of secrets that begins further up, all of it masked but the dash; an item with
/// members of its own says itself which are.
fn masked_item<'a>(before: &[&str], line: &'a str) -> Option<Cow<'a, str>> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let item = line.trim_start().strip_prefix("- ")?;
    if item.contains(": ") {
        return None;
    }
    let of_list = |above: &&&str| !above.trim().is_empty() && !above.trim_start().starts_with(['-', '#']);
    let above = before.iter().rev().take(MOST_ITEMS).find(of_list)?;
    let name = above.trim_end().strip_suffix(':')?;
    if indent(above) > indent(line) || !(is_secret(name) || is_called(name, "tokens")) {
        return None;
    }
    let (shown, secret) = line.split_at_checked(line.len() - item.len())?;
    Some(Cow::Owned(secret.chars().fold(shown.to_owned(), |shown, _| shown + "*")))
}

/// What an address says of who asks (RFC 3986, section 3.2.1), and what stands before and behind it.
fn userinfo(line: &str) -> Option<(&str, &str, &str)> {
    let begins = line.find("://")? + 3;
    let (before, rest) = line.split_at_checked(begins)?;
    let ends = rest.rfind('@')?;
    let (secret, after) = rest.split_at_checked(ends)?;
    Some((before, secret, after))
}

fn masked_values(line: &str) -> Cow<'_, str> {
    let (mut shown, mut rest) = (String::new(), line);
    while let Some((key, after)) = next_secret(rest) {
        shown.push_str(key);
        let value = after.trim_start();
        shown.push_str(after.strip_suffix(value).unwrap_or_default());
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                value.get(1..).and_then(|inner| inner.find(quote)).map_or(value.len(), |at| at + 2)
            }
            // Of a list or a mapping nothing is told to its end, which may be that of the line.
            Some('[' | '{') => value.len(),
            _ => value.find([',', '}']).and_then(|at| value.get(..at)).unwrap_or(value).trim_end().len(),
        };
        let (value, left) = value.split_at_checked(end).unwrap_or((value, ""));
        shown.extend(value.chars().map(|_| '*'));
        rest = left;
    }
    if shown.is_empty() {
        return Cow::Borrowed(line);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Everything up to the colon of a secret's key, and what comes behind it.
fn next_secret(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(colon) = text.get(from..)?.find(':').map(|at| from + at) {
        let before = text.get(..colon)?;
        // A number of tokens is no secret.
        let is_list = text.get(colon + 1..).is_some_and(|value| value.trim_start().starts_with('['));
        if is_secret(before) || (is_list && is_called(before, "tokens")) {
            return text.split_at_checked(colon + 1);
        }
        from = colon + 1;
    }
    None
}

/// Whether a member is called as secrets are.
fn is_secret(member: &str) -> bool {
    SECRET.iter().any(|name| is_called(member, name))
}

/// Whether what a member is called ends so.
fn is_called(member: &str, name: &str) -> bool {
    let member = member.trim_end_matches(['"', '\'', ' ']).as_bytes();
    let end = member.len().checked_sub(name.len()).and_then(|at| member.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()))
}

/// How many characters of a long line stand before those that are shown.
fn first_shown(column: usize) -> usize {
    if column > CUT_FROM { column - 1 - KEPT_BEFORE } else { 0 }
}

/// Where counting got to: a file may be one line of many megabytes, with all its problems at the end.
#[derive(Default)]
struct Cursor {
    line: u32,
    characters: usize,
    bytes: usize,
}

impl Cursor {
    /// `text`, which is line `line`, without its first `skipped` characters.
    fn from<'a>(&mut self, text: &'a str, line: u32, skipped: usize) -> &'a str {
        if skipped == 0 {
            return text;
        }
        if self.line != line || self.characters > skipped {
            *self = Self { line, ..Self::default() };
        }
        let rest = text.get(self.bytes..).unwrap_or_default();
        let further = rest.char_indices().nth(skipped - self.characters).map_or(rest.len(), |(bytes, _)| bytes);
        (self.characters, self.bytes) = (skipped, self.bytes + further);
        text.get(self.bytes..).unwrap_or_default()
    }
}

/// As much of `rest` as is shown.
fn excerpt(rest: &str, cut: bool) -> Arc<str> {
    let end = rest.char_indices().nth(MAX_CHARACTERS).map(|(end, _)| end);
    let mut shown = String::new();
    if cut {
        shown.push(CUT);
    }
    shown.push_str(end.and_then(|end| rest.get(..end)).unwrap_or(rest));
    if end.is_some() {
        shown.push(CUT);
    }
    shown.into()
}

/// The column of a problem's place within the line that it shows.
pub(crate) fn column(problem: &Problem) -> usize {
    let column = problem.place.column as usize;
    let cut = column > CUT_FROM && problem.source_line.as_deref().is_some_and(|line| line.starts_with(CUT));
    if cut { KEPT_BEFORE + 2 } else { column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_a_list_of_secrets_is_not_shown() {
        for (text, shown) in [
            ("tokens:\n  - hunter2", Some("  - *******")),
            ("  tokens:\n  - a\n\n  # b\n  - 'hunter2'", Some("  - *********")),
            ("client_secret:\n- hunter2", Some("- *******")),
            ("tokens:\n  - { token: hunter2, principal: x }", None),
            ("models:\n  - hunter2", None),
            ("    tokens:\n  - hunter2", None),
            ("tokens: []\nmodels:\n  - x", None),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            let (line, before) = lines.split_last().unwrap();
            assert_eq!(masked_item(before, line).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_nothing_moves() {
        for (line, shown) in [
            ("  - { id: alice, password_hash: hunter2 }", "  - { id: alice, password_hash: ******* }"),
            ("password_hash: \"a, b\", teem: x", "password_hash: ******, teem: x"),
            ("'password': 'hunter2', token: é, x: y", "'password': *********, token: *, x: y"),
            ("  - { id: a, hash: x, owner: 'User::\"b\"' }", "  - { id: a, hash: *, owner: 'User::\"b\"' }"),
            ("client_secret:   hunter2", "client_secret:   *******"),
            ("tokens: [hunter2]", "tokens: *********"),
            ("budget: { tokens: 10 }, max_output_tokens: 5", "budget: { tokens: 10 }, max_output_tokens: 5"),
            ("redis: redis://:hunter2@host:1/0", "redis: redis://********@host:1/0"),
            ("url: \"https://u:p@ss@host/x\", x: 1", "url: \"https://******@host/x\", x: 1"),
            ("issuer: https://idp.example.com", "issuer: https://idp.example.com"),
            ("token: [hunter2, b]", "token: ************"),
            ("password: \"hunter2", "password: ********"),
            ("password:", "password:"),
            ("Hash : x", "Hash : *"),
        ] {
            assert_eq!(masked(&[], line), shown);
            assert_eq!(masked(&[], line).chars().count(), line.chars().count());
        }
    }
}
