//! YAML text becomes a tree in which every value and every key has its place. The only room that knows which YAML
//! reader there is.
//!
//! It works on the reader's events, not through `serde`: only there is seen how a scalar was written (`0755`, `1e3`
//! and `0.10` keep their text), where a tag stands, and that a key comes twice. Whatever does not keep the text from
//! being read is reported and read over, so that one run shows all of it. Every amount that a file could drive up
//! (depth, values, copies through aliases) has a limit.

mod secrets;
mod tabs;
#[cfg(test)]
mod tests;
mod wording;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError, Span, StructureStyle};
use smol_str::SmolStr;

use super::excerpt;
use super::problem::{Problem, ProblemCode};
use super::syntax::{Place, TextLayout};
pub(crate) use secrets::secrets;
use tabs::Tabs;

/// How deep lists and mappings may be nested; a policy needs five.
const MAX_DEPTH: usize = 32;
/// How many values a file may hold. A file of 16 MiB full of rules has less than half of them.
const MAX_NODES: usize = 3_000_000;
/// How many values anchors and aliases may copy.
const MAX_COPIED_NODES: usize = 200_000;
/// How many problems are kept of a file; what comes after them is read over in silence.
pub(super) const MAX_KEPT_PROBLEMS: usize = 1_000;
/// From so many keys on a map finds the one that comes twice.
const FEW_KEYS: usize = 16;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it stands; of length 0 where a null is not written at all.
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// A text, number or truth value: which of them is for the reader of the tree to say.
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the order of the file; no key comes twice.
    Mapping(Vec<(Key, Node)>),
}

/// A scalar as it was written, quotes, escapes and folding undone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: SmolStr,
    pub(crate) style: Style,
    pub(crate) layout: TextLayout,
    /// Where the text itself begins: behind the quote, in the first line of the block.
    pub(crate) start: Place,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes on one line.
    Plain,
    /// Without quotes on several lines.
    PlainLines,
    /// In single or double quotes.
    Quoted,
    /// After `|` or `>`.
    Block,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: SmolStr,
    pub(crate) place: Place,
}

/// What was read of a text.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The tree; `None` where the text holds nothing, or could not be read to its end.
    pub(crate) root: Option<Node>,
    /// What is wrong with the text as YAML.
    pub(crate) problems: Vec<Problem>,
}

/// Reads the YAML `text` of `file`.
pub(crate) fn read(file: &Arc<str>, text: &str) -> Reading {
    let text = without_bom(text);
    let mut reader = Reader {
        file,
        text,
        events: events(text),
        problems: Vec::new(),
        anchors: HashMap::new(),
        open: Vec::new(),
        end: None,
        nodes: 0,
        copied: 0,
        secrets: 0,
        tabs: Tabs::of(text),
    };
    let outcome = reader.document();
    reader.finish(outcome)
}

/// The events that the reader finds in `text`, in order.
fn events(text: &str) -> impl Iterator<Item = Result<(Event<'_>, Span), ScanError>> {
    // Far enough above MAX_DEPTH that our own limit, with its place, is met first.
    let options = granit_parser::options! {
        flow_nesting_limit: 2 * MAX_DEPTH,
        block_nesting_limit: 2 * MAX_DEPTH,
        block_scalar_eof_without_line_feed: true,
    };
    Parser::new_from_str_with_options(text, options)
}

/// `text` without a byte order mark, from whose end columns count.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{FEFF}').unwrap_or(text)
}

/// Why reading ended before the end.
enum Stop {
    /// The text is no YAML from here on.
    Scan(ScanError),
    /// A limit was passed.
    Limit(Box<Problem>),
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

struct Reader<'a, E> {
    file: &'a Arc<str>,
    text: &'a str,
    events: E,
    problems: Vec<Problem>,
    /// What anchors name, with the number of values in it; `None` while it is being read.
    anchors: HashMap<usize, (Option<Node>, usize)>,
    /// The lists and mappings that are being read, by where they begin, with whether they are in brackets.
    open: Vec<(Place, bool)>,
    /// Where the list or mapping that was read last ends.
    end: Option<Marker>,
    nodes: usize,
    copied: usize,
    /// How many members that hold secrets lead to where we are.
    secrets: usize,
    tabs: Tabs,
}

impl<'a, E> Reader<'a, E>
where
    E: Iterator<Item = Result<(Event<'a>, Span), ScanError>>,
{
    /// The first document, and a look whether there is a second.
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, span)) = self.events.next().transpose()? {
            match event {
                Event::DocumentStart(..) if documents == 1 => {
                    let place = self.place(&span);
                    let problem = self.error(ProblemCode::SeveralDocuments, place, "a second document begins here");
                    self.report(
                        problem.with_help("a file holds one document: move what follows into a file of its own"),
                    );
                    break;
                }
                Event::DocumentStart(..) => documents += 1,
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(..) => {
                    let node = self.node(event, &span)?;
                    let said = node.kind != Kind::Null || node.place.length > 0;
                    root = said.then_some(node);
                }
                _ => {}
            }
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the file holds more than {MAX_NODES} values");
            return Err(self.limit(ProblemCode::FileTooLarge, span, &message, "split it into several files"));
        }
        self.refuse_tag(span);
        let nodes_before = self.nodes;
        let (node, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, _) => (self.scalar(&text, style, span), anchor),
            Event::SequenceStart(style, anchor, _) => {
                self.open(anchor, style, span)?;
                (self.sequence(style, span)?, anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                self.open(anchor, style, span)?;
                (self.mapping(style, span)?, anchor)
            }
            _ => (Node { place: self.place(span), kind: Kind::Null }, 0),
        };
        self.keep(anchor, &node, self.nodes - nodes_before + 1, span)?;
        Ok(node)
    }

    /// The next event of a list or mapping; `None` at its end.
    fn item(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        loop {
            match self.events.next().transpose()? {
                None => return Ok(None),
                Some((Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd, span)) => {
                    self.end = Some(span.end);
                    return Ok(None);
                }
                Some((event, span)) if event.is_node() => return Ok(Some((event, span))),
                Some(_) => {}
            }
        }
    }

    fn sequence(&mut self, style: StructureStyle, span: &Span) -> Result<Node, Stop> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.item()? {
            items.push(self.node(event, &span)?);
        }
        self.open.pop();
        let place = self.collection_place(style, span, None);
        Ok(Node { place, kind: Kind::Sequence(items) })
    }

    fn mapping(&mut self, style: StructureStyle, span: &Span) -> Result<Node, Stop> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = HashMap::new();
        let mut first = None;
        while let Some((event, span)) = self.item()? {
            let node = self.node(event, &span)?;
            first = first.or(Some(node.place));
            let key = self.key(node);
            let Some((event, span)) = self.item()? else { break };
            let secrets = usize::from(key.as_ref().is_some_and(|key| excerpt::is_secret(&key.text)));
            self.secrets += secrets;
            let value = self.node(event, &span)?;
            self.secrets -= secrets;
            let Some(key) = key else { continue };
            if let Some(place) = place_of(&key, &entries, &mut seen) {
                self.duplicate(&key, place);
            } else {
                entries.push((key, value));
            }
        }
        self.open.pop();
        let place = self.collection_place(style, span, first);
        Ok(Node { place, kind: Kind::Mapping(entries) })
    }

    /// What `node` is as a key, unless it can be none.
    fn key(&mut self, node: Node) -> Option<Key> {
        let place = node.place;
        let (code, message, help) = match node.kind {
            Kind::Scalar(Scalar { text, style: Style::Plain, .. }) if text == "<<" => (
                ProblemCode::MergeKey,
                "the merge key `<<` is not read",
                "write the keys out, so that a rule says all that it says where it stands",
            ),
            Kind::Scalar(Scalar { text, .. }) => return Some(Key { text, place }),
            Kind::Null => (
                ProblemCode::NullValue,
                "a key is missing here",
                "write `key: value`; quote a key that is `null` or `~`",
            ),
            Kind::Sequence(_) | Kind::Mapping(_) => (
                ProblemCode::WrongType,
                "a key must be a text",
                "write `key: value`; quote a text that begins with `[` or `{`",
            ),
        };
        let problem = self.error(code, place, message).with_help(help);
        self.report(problem);
        None
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Node {
        let place = self.place(span);
        let lines = (line(&span.start), line(&span.end));
        match style {
            ScalarStyle::Plain => {}
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => self.tabs.text_in(lines.0 + 1, lines.1),
            // Such a span ends where the line after the block begins, unless the file ends first.
            _ => self.tabs.text_in(lines.0, if span.end.col() == 0 { lines.1 - 1 } else { lines.1 }),
        }
        let raw = span.slice(self.text).unwrap_or_default();
        let null =
            matches!(style, ScalarStyle::Plain) && (raw.is_empty() || matches!(raw, "~" | "null" | "Null" | "NULL"));
        if null {
            return Node { place, kind: Kind::Null };
        }
        let (style, inner) = match style {
            ScalarStyle::Plain if lines.0 == lines.1 => (Style::Plain, 0),
            ScalarStyle::Plain => (Style::PlainLines, 0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => (Style::Quoted, 1),
            _ => return self.block(text, place, span),
        };
        let written = raw.get(inner..raw.len().saturating_sub(inner));
        let layout = if written == Some(text) && lines.0 == lines.1 { TextLayout::Inline } else { TextLayout::Opaque };
        let length = place.length.saturating_sub(2 * u32::from(inner == 1)).max(1);
        let start = Place { column: place.column + u32::from(inner == 1), length, ..place };
        Node { place, kind: Kind::Scalar(Scalar { text: text.into(), style, layout, start }) }
    }

    /// A block scalar, whose span begins in its first line that is not empty, behind the indentation.
    fn block(&self, text: &str, place: Place, span: &Span) -> Node {
        let empty = text.bytes().take_while(|&byte| byte == b'\n').count();
        let line = place.line.saturating_sub(u32::try_from(empty).unwrap_or(u32::MAX)).max(1);
        let start = Place { line, ..place };
        let raw = span.slice(self.text).unwrap_or_default();
        let as_written = stands_as_written(text.get(empty..).unwrap_or_default(), raw, span.start.col());
        let layout = if as_written { TextLayout::Block } else { TextLayout::Opaque };
        let scalar = Scalar { text: text.into(), style: Style::Block, layout, start };
        Node { place, kind: Kind::Scalar(scalar) }
    }

    fn refuse_tag(&mut self, span: &Span) {
        let Some(tag) = span.tag_span() else { return };
        let place = self.place(&tag);
        let message = match tag.slice(self.text) {
            // It may be a password that begins with `!`.
            Some(text) if self.secrets == 0 => format!("the tag `{text}` is not read"),
            _ => "a tag is not read".to_owned(),
        };
        let problem = self
            .error(ProblemCode::YamlTag, place, message)
            .with_help("leave the tag out; quote a text that begins with `!`");
        self.report(problem);
    }

    fn duplicate(&mut self, key: &Key, first: Place) {
        let message = match self.secrets {
            0 => format!("the key `{}` stands here again", key.text),
            _ => "a key stands here again".to_owned(),
        };
        let problem = self
            .error(ProblemCode::DuplicateKey, key.place, message)
            .with_help(format!("it stands first in line {}; keep one of the two", first.line));
        self.report(problem);
    }

    /// Goes one level down, into a list or mapping that may be named by an anchor.
    fn open(&mut self, anchor: usize, style: StructureStyle, span: &Span) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, (None, 0));
        }
        self.open.push((self.place(span), style == StructureStyle::Flow));
        if self.open.len() > MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep here");
            return Err(self.limit(ProblemCode::TooDeep, span, &message, "a policy needs no more than five levels"));
        }
        Ok(())
    }

    /// Keeps what an anchor names for the aliases to come.
    fn keep(&mut self, anchor: usize, node: &Node, size: usize, span: &Span) -> Result<(), Stop> {
        if anchor != 0 {
            self.copy(size, span)?;
            self.anchors.insert(anchor, (Some(node.clone()), size));
        }
        Ok(())
    }

    /// What an alias stands for: at the alias' place, its parts where they were written.
    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Node, Stop> {
        let place = self.place(span);
        let size = self.anchors.get(&anchor).map_or(0, |(_, size)| *size);
        self.copy(size, span)?;
        // What is copied counts for whatever holds it, which may have an anchor of its own.
        self.nodes += size.saturating_sub(1);
        let Some((Some(node), _)) = self.anchors.get(&anchor) else {
            let message = "an alias stands inside of what it names";
            return Err(self.limit(ProblemCode::AliasBomb, span, message, "write out what is meant"));
        };
        let kind = match node.kind.clone() {
            Kind::Scalar(scalar) => Kind::Scalar(Scalar { layout: TextLayout::Opaque, start: place, ..scalar }),
            kind => kind,
        };
        Ok(Node { place, kind })
    }

    fn copy(&mut self, size: usize, span: &Span) -> Result<(), Stop> {
        self.copied = self.copied.saturating_add(size);
        if self.copied > MAX_COPIED_NODES {
            let message = format!("anchors and aliases multiply to more than {MAX_COPIED_NODES} values");
            let help = "name what repeats instead: a model group for models, a team or tag for people";
            return Err(self.limit(ProblemCode::AliasBomb, span, &message, help));
        }
        Ok(())
    }

    fn limit(&self, code: ProblemCode, span: &Span, message: &str, help: &str) -> Stop {
        Stop::Limit(Box::new(self.error(code, self.place(span), message).with_help(help)))
    }

    fn error(&self, code: ProblemCode, place: Place, message: impl Into<String>) -> Problem {
        Problem::error(code, self.file, place, message)
    }

    fn report(&mut self, problem: Problem) {
        if self.problems.len() < MAX_KEPT_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// The place of a span; of one over several lines, as much as is in the first.
    fn place(&self, span: &Span) -> Place {
        let length = if span.start.line() == span.end.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            let rest = span.start.byte_offset().and_then(|start| self.text.get(start..)).unwrap_or_default();
            rest.split(['\n', '\r']).next().map_or(1, |line| line.chars().count())
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Place { line: line(&span.start), column: column(&span.start), length }
    }

    /// Where a list or mapping stands that was just read: one in brackets as far as these go, another where its first key or dash is.
    fn collection_place(&self, style: StructureStyle, span: &Span, first: Option<Place>) -> Place {
        let place = self.place(span);
        match (style, first, self.end) {
            (StructureStyle::Block, Some(first), _) => first,
            (StructureStyle::Flow, _, Some(end)) if line(&end) == place.line => {
                Place { length: column(&end).saturating_sub(place.column).max(1), ..place }
            }
            _ => Place { length: place.length.max(1), ..place },
        }
    }

    fn finish(mut self, outcome: Result<Option<Node>, Stop>) -> Reading {
        let stopped_at = match &outcome {
            Err(Stop::Scan(error)) => Some(error),
            _ => None,
        };
        let tabs = self.tabs.misused(stopped_at);
        let explained = !tabs.is_empty();
        for place in tabs {
            let problem = self
                .error(ProblemCode::TabIndentation, place, format!("line {} is indented with a tab", place.line))
                .with_help("YAML wants spaces: replace each tab at the beginning of the line by spaces");
            self.report(problem);
        }
        let root = match outcome {
            Ok(root) => root,
            Err(Stop::Limit(problem)) => {
                self.report(*problem);
                None
            }
            Err(Stop::Scan(error)) => {
                if !explained {
                    let problem = wording::of(&error, self.file, self.text, self.open_bracket());
                    self.report(problem);
                }
                None
            }
        };
        Reading { root, problems: self.problems }
    }

    /// The line of the innermost bracket that is still open.
    fn open_bracket(&self) -> Option<u32> {
        self.open.iter().rev().find(|(_, flow)| *flow).map(|(place, _)| place.line)
    }
}

/// Where the key stands already; a set helps where there are many.
fn place_of(key: &Key, entries: &[(Key, Node)], seen: &mut HashMap<SmolStr, Place>) -> Option<Place> {
    if entries.len() < FEW_KEYS {
        return entries.iter().find(|(other, _)| other.text == key.text).map(|(other, _)| other.place);
    }
    if seen.is_empty() {
        seen.extend(entries.iter().map(|(key, _)| (key.text.clone(), key.place)));
    }
    match seen.entry(key.text.clone()) {
        Entry::Occupied(entry) => Some(*entry.get()),
        Entry::Vacant(entry) => {
            entry.insert(key.place);
            None
        }
    }
}

/// Whether each line of a block scalar's `text` is the line of `raw` behind `indent` characters (the first of them are
/// cut off already): so it is after `|`, and after `>` where nothing was folded.
fn stands_as_written(text: &str, raw: &str, indent: usize) -> bool {
    let mut raw_lines = raw.lines();
    text.lines().enumerate().all(|(number, line)| {
        let Some(raw) = raw_lines.next() else { return line.is_empty() };
        let spaces = if number == 0 { 0 } else { raw.bytes().take(indent).take_while(|&byte| byte == b' ').count() };
        let cut = if number == 0 { indent } else { spaces };
        raw.get(spaces..) == Some(line) && (cut == indent || line.is_empty())
    })
}

fn line(marker: &Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1)
}

fn column(marker: &Marker) -> u32 {
    number_from(marker.col())
}

/// A count from 0 as one from 1.
fn number_from(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1)
}
