//! Where a YAML text holds secrets, however they are written: on the next line, in a block, in a text that goes over lines,
//! behind an anchor, or under a key with escapes.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, ScanError, Span};

use super::events;
use crate::policy::excerpt::{has_userinfo, is_file, is_list, is_secret};

/// How to handle a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hide {
    /// It is shown.
    Nothing,
    /// Texts in this list are hidden. Members of mappings in it are judged by their own keys.
    Items,
    /// Everything in it is hidden, but for the names of files.
    All,
}

/// A list or mapping that is being read.
struct Frame {
    start: usize,
    anchor: usize,
    /// Whether it is itself the key of a mapping.
    is_key: bool,
    /// How to handle its content.
    hide: Hide,
    /// In a mapping: how to handle the value, once its key was read.
    member: Option<Hide>,
    is_mapping: bool,
}

#[derive(Default)]
struct Finder {
    open: Vec<Frame>,
    found: Vec<Range<usize>>,
    /// The range of the value with each anchor, and its text if it is a scalar.
    anchors: HashMap<usize, (Range<usize>, Option<String>)>,
    /// Aliases by where they stand.
    aliases: Vec<(usize, usize)>,
    /// Anchors that name secrets.
    named: Vec<usize>,
    /// Where the last event ended.
    end: usize,
    /// Whether that was a secret: the rest of one that was pasted may be indented too little to belong to it.
    was_secret: bool,
}

/// The ranges of bytes in `text` that are secrets, in order. If the text stops being valid YAML, later secrets are not
/// found; a secret that had begun there extends to the end of the text.
pub(crate) fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut finder = Finder::default();
    for event in events(text) {
        let read: Result<(Event<'_>, Span), ScanError> = event;
        let Ok((event, span)) = read else {
            if finder.is_hiding() || finder.was_secret {
                finder.found.push(finder.end..text.len());
            }
            break;
        };
        let Some(range) = span.byte_range() else { continue };
        // A tag may be a password that begins with `!`.
        let start =
            span.tag_span().and_then(|tag| tag.byte_range()).map_or(range.start, |tag| tag.start.min(range.start));
        finder.was_secret = false;
        finder.take(text, &event, start..range.end);
        finder.end = finder.end.max(range.end);
    }
    finder.finish()
}

impl Finder {
    fn take(&mut self, text: &str, event: &Event<'_>, range: Range<usize>) {
        match event {
            Event::Scalar(value, _, anchor, _) => {
                if *anchor != 0 {
                    self.anchors.insert(*anchor, (range.clone(), Some(value.to_string())));
                }
                if self.expects_key() {
                    self.key(value, range);
                } else {
                    self.scalar(text, value, range);
                }
            }
            Event::Alias(anchor) => self.alias(*anchor, range),
            Event::SequenceStart(_, anchor, _) => self.begin(*anchor, range.start, false),
            Event::MappingStart(_, anchor, _) => self.begin(*anchor, range.start, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(range.end),
            _ => {}
        }
    }

    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|frame| frame.is_mapping && frame.member.is_none())
    }

    /// Whether the value that comes next, or that was begun, is hidden.
    fn is_hiding(&self) -> bool {
        let hides = |frame: &Frame| frame.hide != Hide::Nothing || frame.member == Some(Hide::All);
        self.open.iter().any(hides)
    }

    fn key(&mut self, name: &str, range: Range<usize>) {
        let Some(frame) = self.open.last_mut() else { return };
        let hide = if is_file(name) {
            Hide::Nothing
        } else if is_secret(name) || frame.hide == Hide::All {
            Hide::All
        } else if is_list(name) {
            Hide::Items
        } else {
            Hide::Nothing
        };
        frame.member = Some(hide);
        if frame.hide == Hide::All && !is_file(name) {
            self.found.push(range);
        }
    }

    /// How to handle the next value. In a mapping, the next event is a key.
    fn value(&mut self) -> Hide {
        match self.open.last_mut() {
            Some(frame) if frame.is_mapping => frame.member.take().unwrap_or(Hide::Nothing),
            Some(frame) => frame.hide,
            None => Hide::Nothing,
        }
    }

    fn scalar(&mut self, text: &str, value: &str, range: Range<usize>) {
        let is_item = self.open.last().is_some_and(|frame| !frame.is_mapping);
        let hide = self.value();
        let written = text.get(range.clone()).unwrap_or_default();
        // The password of an address is found in its line, unless it goes over lines or has escapes.
        let is_unlike = has_userinfo(value) && !written.contains(value);
        if hide == Hide::All || (hide == Hide::Items && is_item) || is_unlike {
            self.was_secret = true;
            self.found.push(range);
        }
    }

    fn alias(&mut self, anchor: usize, range: Range<usize>) {
        self.aliases.push((range.start, anchor));
        if self.expects_key() {
            let name = self.anchors.get(&anchor).and_then(|(_, text)| text.clone()).unwrap_or_default();
            return self.key(&name, range);
        }
        let is_item = self.open.last().is_some_and(|frame| !frame.is_mapping);
        let hide = self.value();
        if hide == Hide::All || (hide == Hide::Items && is_item) {
            self.found.push(range);
            self.named.push(anchor);
        }
    }

    fn begin(&mut self, anchor: usize, start: usize, is_mapping: bool) {
        let is_key = self.expects_key();
        let hide = match (is_key, self.open.last()) {
            (true, Some(frame)) => frame.hide,
            _ => self.value(),
        };
        let hide = if is_mapping && hide == Hide::Items { Hide::Nothing } else { hide };
        self.open.push(Frame { start, anchor, is_key, hide, member: None, is_mapping });
    }

    fn close(&mut self, end: usize) {
        let Some(frame) = self.open.pop() else { return };
        if frame.anchor != 0 {
            self.anchors.insert(frame.anchor, (frame.start..end, None));
        }
        if frame.is_key
            && let Some(outer) = self.open.last_mut()
        {
            outer.member = Some(outer.hide);
        }
    }

    /// The ranges that were found, including those of anchors that are used as secrets.
    fn finish(mut self) -> Vec<Range<usize>> {
        let mut seen = std::collections::HashSet::new();
        while let Some(anchor) = self.named.pop() {
            let Some((range, _)) = self.anchors.get(&anchor).filter(|_| seen.insert(anchor)) else { continue };
            let within = self.aliases.iter().filter(|(at, _)| range.contains(at)).map(|(_, anchor)| *anchor);
            self.named.extend(within);
            self.found.push(range.clone());
        }
        self.found.sort_by_key(|range| (range.start, range.end));
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(self.found.len());
        for range in self.found {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::secrets;

    /// The text, with stars for the secrets.
    fn shown(text: &str) -> String {
        let found = secrets(text);
        let is_hidden = |at: usize| found.iter().any(|range| range.contains(&at));
        text.char_indices().map(|(at, c)| if is_hidden(at) && !c.is_whitespace() { '*' } else { c }).collect()
    }

    #[test]
    fn a_secret_is_found_however_yaml_writes_it() {
        for (text, expected) in [
            ("password: x y", "password: * *"),
            ("password:\n  hunter2\nx: y", "password:\n  *******\nx: y"),
            ("password: |\n  one\n\n  two\nx: y", "password: |\n  ***\n\n  ***\nx: y"),
            ("password: >-\n  one\n  two", "password: >-\n  ***\n  ***"),
            ("password: \"one\n  two\"\nx: y", "password: ****\n  ****\nx: y"),
            ("password: one\n  two", "password: ***\n  ***"),
            ("\"pass\\u0077ord\": x", "\"pass\\u0077ord\": *"),
            ("'password' : x", "'password' : *"),
            ("? password\n: x", "? password\n: *"),
            ("? |-\n  password\n: x", "? |-\n  password\n: *"),
            ("{ password: x, y: z }", "{ password: *, y: z }"),
            ("{ password:\nx, y: z }", "{ password:\n*, y: z }"),
            ("[{ a: 1, password: [x, { y: z }] }]", "[{ a: 1, password: [*, { *: * }] }]"),
            ("x: &a hunter2\npassword: *a", "x: &a *******\npassword: **"),
            ("x: &a [b, &c { d: e }]\ntoken: *a", "x: &a *** ** * ** * **\ntoken: **"),
            ("x: &a [b]\ny: &d [*a]\ntoken: *d", "x: &a ***\ny: &d ****\ntoken: **"),
            ("&k password: x\ny: { *k : z }", "&k password: *\ny: { *k : * }"),
            ("password: !x y", "password: ** *"),
            ("tokens: [a, { token: b, token_file: c }]", "tokens: [*, { token: *, token_file: c }]"),
            ("tokens:\n- a\n- &x b\n- *x", "tokens:\n- *\n- &x *\n- **"),
            ("tokens: 5", "tokens: 5"),
            ("password: { file: /x, value: y }", "password: { file: /x, *****: * }"),
            ("htpasswd: /etc/x", "htpasswd: /etc/x"),
            ("url: \"redis:\\/\\/:pw@h\"", "url: *****************"),
            ("url: 'redis://:p\n  w@h'", "url: ***********\n  ****"),
            ("a: 1\n---\npassword: x", "a: 1\n---\npassword: *"),
            ("x: [password]", "x: [password]"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_that_was_begun_hides_the_rest() {
        assert_eq!(shown("a: b\npassword: \"x\ny: z"), "a: b\npassword* **\n** *");
        assert_eq!(shown("key: 1\nprivate_key: -----BEGIN\nMII\nb"), "key: 1\nprivate_key: **********\n***\n*");
        assert_eq!(shown("- password: |\nhunter2\nb"), "- password: |\n*******\n*");
        assert_eq!(shown("a: \"b\npassword: x"), "a: \"b\npassword: x");
    }
}
