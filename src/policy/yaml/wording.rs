//! What the YAML reader finds wrong, in our words and codes: what was expected, and the way out.

use std::sync::Arc;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::Place;

/// The problem that `error` is about; `bracket` is the line of the bracket that was open.
pub(super) fn of(error: &ScanError, file: &Arc<str>, text: &str, bracket: Option<u32>) -> Problem {
    let (line, column) = (super::line(error.marker()), super::column(error.marker()));
    let kind = error.kind();
    let place = match kind {
        ErrorKind::UnexpectedCharacter { character } => {
            Place { line, column: column + before(error, text, *character), length: 1 }
        }
        _ => within(text, Place { line, column, length: 1 }),
    };
    if is_about_tabs(kind) {
        return Problem::error(ProblemCode::TabIndentation, file, place, "a tab stands where YAML takes only spaces")
            .with_help("replace the tab by spaces");
    }
    if *kind == ErrorKind::RecursionLimitExceeded {
        return Problem::error(ProblemCode::TooDeep, file, place, "lists and mappings are nested too deep here")
            .with_help("a policy needs no more than five levels");
    }
    let (message, help) = words(kind);
    let problem = Problem::error(ProblemCode::YamlSyntax, file, place, message);
    match (help, bracket) {
        ("", _) => problem,
        (CLOSE_LIST | CLOSE_MAPPING, Some(line)) => problem.with_help(format!("{help}; it begins in line {line}")),
        (help, _) => problem.with_help(help),
    }
}

pub(super) fn is_about_tabs(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            // Said of a tab between two dashes.
            | ErrorKind::InvalidBlockEntryWhitespace
    )
}

pub(super) fn is_about_quotes(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnclosedQuotedScalar)
}

/// How many characters stand between the scalar that the reader points at and the `character` that it means.
fn before(error: &ScanError, text: &str, character: char) -> u32 {
    let rest = error.marker().byte_offset().and_then(|start| text.get(start..)).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    line.chars().position(|other| other == character).and_then(|count| u32::try_from(count).ok()).unwrap_or_default()
}

/// `place`, drawn back into the text where the reader gives the end of a file that ends with a line break.
fn within(text: &str, place: Place) -> Place {
    let lines = text.lines().count();
    let last = u32::try_from(lines).unwrap_or(u32::MAX).max(1);
    if place.line <= last {
        return place;
    }
    let width = text.lines().last().unwrap_or_default().trim_end().chars().count();
    Place { line: last, column: u32::try_from(width).unwrap_or(u32::MAX).saturating_add(1), length: 1 }
}

const CLOSE_LIST: &str = "put a `,` between the items, or close the list by `]`";
const CLOSE_MAPPING: &str = "put a `,` between the keys, or close the mapping by `}`";
const ALIGN: &str = "check the indentation: what belongs together begins in the same column";
const QUOTE: &str = "quote a text that holds `: `, `#`, or begins with one of - ? : , [ ] { } # & * ! | > @ % `";

fn words(kind: &ErrorKind) -> (String, &'static str) {
    if let Some(words) = words_for_brackets(kind) {
        return words;
    }
    let (message, help) = match kind {
        ErrorKind::MissingAnchorOrAliasName | ErrorKind::UnknownAnchor => {
            let message = match kind {
                ErrorKind::UnknownAnchor => "`*` begins an alias, and no anchor of this name stands before it",
                _ => "a bare `*` or `&` is no text in YAML",
            };
            return (message.to_owned(), "quote a name that begins with `*` or `&`: `\"*\"`, `\"*/llama-*\"`");
        }
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => {
            return (format!("the character U+{:04X} may not stand in YAML", u32::from(*character)), "take it out");
        }
        ErrorKind::UnexpectedCharacter { character } => {
            return (format!("no text can begin with `{character}` in YAML"), "put the text in quotes");
        }
        ErrorKind::MappingValueNotAllowed => ("a `:` is not expected here", QUOTE),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => ("a key without its `:`", "write `key: value`"),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::MappingKeyNotAllowed => ("a key is expected here", ALIGN),
        ErrorKind::ExpectedBlockSequenceEntry => ("a `- ` is expected here", ALIGN),
        ErrorKind::BlockSequenceEntryNotAllowed => {
            ("a list cannot begin here", "begin the list, `- `, on a line of its own")
        }
        ErrorKind::InvalidIndentation | ErrorKind::InvalidFlowScalarIndent => ("the indentation does not fit", ALIGN),
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::InvalidBlockScalarIndent => {
            ("this line of the text is indented too little", "indent it further than its key")
        }
        ErrorKind::ExpectedDocumentStart => ("this does not belong to what stands above", ALIGN),
        ErrorKind::ExpectedNodeContent => ("a value is expected here", QUOTE),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            ("the quote that begins here is not closed", "close it; within single quotes a quote is written twice")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => (
            "something follows the closing quote",
            "put the whole text into one pair of quotes, '…' around a text that holds \"…\"",
        ),
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape => {
            ("this text in double quotes holds an unknown escape", "write `\\\\` for a backslash, or use single quotes")
        }
        ErrorKind::CommentNotSeparated => {
            ("a comment needs a space before its `#`", "put a space before it, or quote the text")
        }
        ErrorKind::UndeclaredTagHandle => {
            ("a tag that is nowhere declared", "leave the tag out; quote a text that begins with `!`")
        }
        ErrorKind::BomInsideDocument => ("a byte order mark stands within the text", "take it out"),
        _ => return (unworded(kind), ""),
    };
    (message.to_owned(), help)
}

fn words_for_brackets(kind: &ErrorKind) -> Option<(String, &'static str)> {
    let words = match kind {
        ErrorKind::UnclosedFlowCollection { open } => (format!("the `{open}` is not closed"), "close it"),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), "close each bracket by its own kind")
        }
        ErrorKind::MisplacedFlowCollectionEnd => ("a bracket is closed that was not opened".to_owned(), QUOTE),
        ErrorKind::InvalidColonPlacement | ErrorKind::ExpectedFlowSequenceSeparator => {
            ("a `,` or `]` is expected here".to_owned(), CLOSE_LIST)
        }
        ErrorKind::ExpectedFlowMappingSeparator => ("a `,` or `}` is expected here".to_owned(), CLOSE_MAPPING),
        ErrorKind::UnexpectedEofFlowSequence => ("the file ends before a `]`".to_owned(), "close the list"),
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            ("the file ends before a `}`".to_owned(), "close the mapping")
        }
        _ => return None,
    };
    Some(words)
}

/// What the reader itself says, for what hardly ever happens.
fn unworded(kind: &ErrorKind) -> String {
    let said = kind.to_string();
    if said.is_empty() { "this is not YAML".to_owned() } else { format!("this is not YAML: {said}") }
}
