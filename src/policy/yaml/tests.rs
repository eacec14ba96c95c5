//! What the tree says of a text: its places, its layouts, its limits; and that another reader says the same.

#![allow(clippy::disallowed_methods, clippy::string_slice, reason = "it reads the cases and takes the time")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_yaml::Value;

use super::*;

fn reading(text: &str) -> Reading {
    read(&Arc::from("test.yaml"), text)
}

fn root(text: &str) -> Node {
    let reading = reading(text);
    assert_eq!(reading.problems, [], "{text}");
    reading.root.unwrap_or_else(|| panic!("{text:?} holds nothing"))
}

/// The only value of the mapping that the text holds.
fn value(text: &str) -> Node {
    match root(text).kind {
        Kind::Mapping(entries) => entries.into_iter().next().unwrap().1,
        kind => panic!("{kind:?} is no mapping"),
    }
}

fn scalar(text: &str) -> Scalar {
    match value(text).kind {
        Kind::Scalar(scalar) => scalar,
        kind => panic!("{kind:?} is no scalar"),
    }
}

fn at(line: u32, column: u32, length: u32) -> Place {
    Place { line, column, length }
}

#[test]
fn scalars_keep_their_text() {
    for text in
        ["0755", "1e3", "0.10", "12:30", "yes", "true", "0x1F", "1_000", ".inf", "-0", "+1", "2027-01-01T00:00:00Z"]
    {
        assert_eq!(scalar(&format!("key: {text}\n")).text, text);
    }
}

#[test]
fn the_layout_of_a_text_is_true() {
    for (text, expected, layout, start) in [
        ("when: a == 1 # why\n", "a == 1", TextLayout::Inline, at(1, 7, 6)),
        ("when: 'a == \"x\"'\n", "a == \"x\"", TextLayout::Inline, at(1, 8, 8)),
        ("when: 'it''s'\n", "it's", TextLayout::Opaque, at(1, 8, 5)),
        ("when: \"a\\tb\"\n", "a\tb", TextLayout::Opaque, at(1, 8, 4)),
        ("when: a ||\n  b\n", "a || b", TextLayout::Opaque, at(1, 7, 4)),
        ("when: |\n  a ||\n    b\n", "a ||\n  b\n", TextLayout::Block, at(2, 3, 4)),
        ("when: |  # why\n\n\n  a\n\n  b\n", "\n\na\n\nb\n", TextLayout::Block, at(2, 3, 1)),
        ("when: |-\r\n  a\r\n  b\r\n", "a\nb", TextLayout::Block, at(2, 3, 1)),
        ("when: |2\n    a\n  b\n", "  a\nb\n", TextLayout::Block, at(2, 3, 3)),
        ("when: >-\n  a\n  b\n", "a b", TextLayout::Opaque, at(2, 3, 1)),
        ("when: >-\n  a\n", "a", TextLayout::Block, at(2, 3, 1)),
        ("é: &x 'ü'\n", "ü", TextLayout::Inline, at(1, 8, 1)),
        ("\u{FEFF}when: a", "a", TextLayout::Inline, at(1, 7, 1)),
    ] {
        let scalar = scalar(text);
        assert_eq!((scalar.text.as_str(), scalar.layout, scalar.start), (expected, layout, start), "{text:?}");
    }
}

#[test]
fn an_alias_stands_where_it_is_written() {
    let Kind::Mapping(entries) = root("a: &x [one]\nb: *x\n").kind else { panic!() };
    let Kind::Sequence(items) = &entries[1].1.kind else { panic!() };
    assert_eq!(entries[1].1.place, at(2, 4, 2));
    assert_eq!(items[0].place, at(1, 8, 3));
}

#[test]
fn a_text_without_values_is_nothing() {
    for text in ["", "\n", "# comment", "---\n", "---\n# comment\n...\n", "\u{FEFF}"] {
        let reading = reading(text);
        assert!(reading.root.is_none() && reading.problems.is_empty(), "{text:?}: {reading:?}");
    }
    assert_eq!(root("~").kind, Kind::Null);
}

/// What is hostile is refused at once. The times are ample: such texts keep bad readers busy for minutes.
#[test]
fn hostile_texts_are_refused_quickly() {
    let bomb = |width: usize| {
        let mut text = format!("a0: &a0 [{}]\n", vec!["x"; width].join(","));
        for level in 1..30 {
            let aliases = vec![format!("*a{}", level - 1); width].join(",");
            let _ = writeln!(text, "a{level}: &a{level} [{aliases}]");
        }
        text
    };
    let nested_anchors: String = (0..30).map(|level| format!("{}- &a{level}\n", "  ".repeat(level))).collect();
    for (text, code) in [
        ("[".repeat(100_000), ProblemCode::TooDeep),
        ("{a: ".repeat(100_000), ProblemCode::TooDeep),
        ("- ".repeat(100_000), ProblemCode::TooDeep),
        (bomb(2), ProblemCode::AliasBomb),
        (bomb(9), ProblemCode::AliasBomb),
        ("a: &a [*a]".to_owned(), ProblemCode::AliasBomb),
        (nested_anchors + &"  ".repeat(30) + &format!("- [{}]", vec!["x"; 50_000].join(",")), ProblemCode::AliasBomb),
        ("a: !x ".to_owned() + &"y".repeat(1_000_000), ProblemCode::YamlTag),
        ("- - -\t".repeat(10_000), ProblemCode::TabIndentation),
    ] {
        let start = Instant::now();
        let problems = reading(&text).problems;
        assert!(start.elapsed() < Duration::from_secs(60), "{} took {:?}", &text[..20], start.elapsed());
        assert!(problems.iter().any(|problem| problem.code == code), "{}: {problems:?}", &text[..10]);
    }
}

/// Whether `value` is what the other reader makes of `node`.
fn alike(node: &Node, value: &Value) -> bool {
    match (&node.kind, value) {
        (Kind::Null, Value::Null) => true,
        (Kind::Scalar(scalar), value) => alike_text(&scalar.text, scalar.style == Style::Plain, value),
        (Kind::Sequence(items), Value::Sequence(values)) => {
            items.len() == values.len() && items.iter().zip(values).all(|(item, value)| alike(item, value))
        }
        (Kind::Mapping(entries), Value::Mapping(values)) => {
            entries.len() == values.len()
                && entries
                    .iter()
                    .zip(values)
                    .all(|((key, item), (name, value))| alike_text(&key.text, true, name) && alike(item, value))
        }
        _ => false,
    }
}

/// The other reader takes some plain texts for numbers and truth values; we keep how they were written.
fn alike_text(text: &str, plain: bool, value: &Value) -> bool {
    match value {
        Value::String(string) => string == text,
        Value::Bool(_) | Value::Number(_) => {
            plain && serde_yaml::from_str::<Value>(text).is_ok_and(|again| again == *value)
        }
        _ => false,
    }
}

/// What both readers accept, both read alike; true where both accept it.
fn compare(text: &str) -> bool {
    let ours = reading(text);
    let (Ok(theirs), true) = (serde_yaml::from_str::<Value>(text), ours.problems.is_empty()) else { return false };
    // The other reader takes a block scalar that is the whole document only if it is indented.
    if ours.root.as_ref().is_some_and(|root| matches!(root.kind, Kind::Scalar(_))) {
        return false;
    }
    let same = ours.root.as_ref().map_or(theirs == Value::Null, |node| alike(node, &theirs));
    assert!(same, "read differently:\n{text}\nours: {ours:#?}\ntheirs: {theirs:#?}");
    true
}

#[test]
fn the_cases_are_read_as_another_reader_reads_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diagnostics");
    let (mut files, mut both) = (0, 0);
    for case in folder.read_dir().unwrap() {
        for file in case.unwrap().path().read_dir().unwrap() {
            let path = file.unwrap().path();
            // Where the other one takes its time without end.
            let Some(text) = std::fs::read_to_string(&path).ok().filter(|text| text.len() < 50_000) else { continue };
            if path.extension().is_some_and(|extension| extension == "yaml") {
                files += 1;
                both += usize::from(compare(&text));
            }
        }
    }
    assert!(files > 40 && both > 20, "only {both} of {files} were read by both");
}

/// A value to be written as YAML in one of many ways.
#[derive(Debug, Clone)]
enum Written {
    Null,
    Plain(String),
    Single(String),
    Double(String),
    Literal(Vec<String>),
    Sequence(Vec<Written>, bool),
    Mapping(Vec<(String, Written)>, bool),
}

impl Written {
    fn write(&self, out: &mut String, indent: usize, flow: bool) {
        match self {
            Self::Null => out.push_str(" ~"),
            Self::Plain(text) => write!(out, " {text}").unwrap(),
            Self::Single(text) => write!(out, " '{}'", text.replace('\'', "''")).unwrap(),
            Self::Double(text) => write!(out, " {}", serde_json::Value::from(text.as_str())).unwrap(),
            Self::Literal(lines) if flow => write!(out, " '{}'", lines.join(" ").replace('\'', "''")).unwrap(),
            Self::Literal(lines) => {
                out.push_str(" |");
                for line in lines {
                    write!(out, "\n{:indent$}{line}", "").unwrap();
                }
            }
            Self::Sequence(items, brackets) if flow || *brackets || items.is_empty() => {
                out.push_str(" [");
                for item in items {
                    item.write(out, indent, true);
                    out.push_str(" ,");
                }
                out.push(']');
            }
            Self::Sequence(items, _) => {
                for item in items {
                    write!(out, "\n{:indent$}-", "").unwrap();
                    item.write(out, indent + 2, false);
                }
            }
            Self::Mapping(entries, brackets) if flow || *brackets || entries.is_empty() => {
                out.push_str(" {");
                for (number, (key, value)) in entries.iter().enumerate() {
                    write!(out, "{key}{number}:").unwrap();
                    value.write(out, indent, true);
                    out.push_str(" ,");
                }
                out.push('}');
            }
            Self::Mapping(entries, _) => {
                for (number, (key, value)) in entries.iter().enumerate() {
                    write!(out, "\n{:indent$}{key}{number}:", "").unwrap();
                    value.write(out, indent + 2, false);
                }
            }
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    let line = "[a-zé][a-z 0-9:#'\"-]{0,8}[a-z]";
    let leaf = prop_oneof![
        Just(Written::Null),
        "[a-zA-Z][a-z0-9/._*-]{0,10}".prop_map(Written::Plain),
        "[0-9]{1,4}(\\.[0-9]{1,3})?".prop_map(Written::Plain),
        "[ -~é\u{4e00}]{0,12}".prop_map(Written::Single),
        "[ -~\n\t]{0,12}".prop_map(Written::Double),
        prop::collection::vec(line, 1..4).prop_map(Written::Literal),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), any::<bool>())
                .prop_map(|(items, flow)| Written::Sequence(items, flow)),
            (prop::collection::vec(("[a-z]{1,5}", inner), 0..5), any::<bool>())
                .prop_map(|(entries, flow)| Written::Mapping(entries, flow)),
        ]
    })
}

proptest! {
    #[test]
    fn documents_are_read_as_another_reader_reads_them(document in written()) {
        let mut text = String::from("---");
        document.write(&mut text, 0, false);
        text.push('\n');
        prop_assume!(matches!(document, Written::Sequence(..) | Written::Mapping(..)));
        prop_assert!(compare(&text), "not read by both:\n{}\n{:?}", text, reading(&text).problems);
    }

    #[test]
    fn texts_like_yaml_are_read_as_another_reader_reads_them(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "key: ", ": ", ":", "- ", "-", "\n", "\n", "\n  ", "\n    ", "  ", "\t", "[", "]", "{", "}", ", ", "'", "\"", "\\",
            "|\n", ">-\n", "# c", "#", "&x ", "*x", "!t ", "~", "null", "\r\n", "é", "? ", "---\n", "...\n", "%", "@", "<<: ",
        ]), 0..24)
    ) {
        compare(&parts.concat());
    }

    #[test]
    fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = reading(&String::from_utf8_lossy(&bytes));
    }
}
