//! What stands before Cedar's parser: it recurses, and text nested too deeply would end the process.
//! Bounded here, on the bytes: nesting, and how many operators one expression may chain.

/// Deepest nesting of brackets. Cedar's parser takes about 13 KiB of stack a level.
pub const MAX_NESTING: usize = 64;
/// Most operators, member accesses and `if`s between two statements. Left-nested chains deepen by one each.
pub const MAX_CHAIN: usize = 4096;
/// The way out of both.
pub const HELP: &str = "write long lists as `resource in [ProviderAccount::\"a\", ProviderAccount::\"b\"]`, and split what is left into several rules";

/// Text that is not handed to Cedar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct TooComplex {
    /// Where the bound is passed, in bytes.
    pub offset: usize,
    kind: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Bound {
    #[error("brackets are nested more than {MAX_NESTING} deep")]
    Nesting,
    #[error("more than {MAX_CHAIN} operators in one policy")]
    Chain,
}

/// Checks policies or an expression.
///
/// # Errors
/// The first place where the text passes a bound.
pub fn cedar_text(text: &str) -> Result<(), TooComplex> {
    check(text, false)
}

/// Checks a schema, in which `<` and `>` are brackets too.
///
/// # Errors
/// The first place where the text passes a bound.
pub fn schema_text(text: &str) -> Result<(), TooComplex> {
    check(text, true)
}

fn check(text: &str, angled: bool) -> Result<(), TooComplex> {
    let bytes = text.as_bytes();
    let (mut depth, mut chain, mut at) = (0_usize, 0_usize, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = bytes.iter().skip(at).position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end);
                continue;
            }
            b'<' if angled => depth += 1,
            b'>' if angled => depth = depth.saturating_sub(1),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => chain = 0,
            b'|' | b'&' | b'!' | b'-' | b'+' | b'*' | b'.' | b'<' => chain += 1,
            b'i' if is_word(bytes, at, b"if") => chain += 1,
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(TooComplex { offset: at, kind: Bound::Nesting });
        }
        if chain > MAX_CHAIN {
            return Err(TooComplex { offset: at, kind: Bound::Chain });
        }
        at += 1;
    }
    Ok(())
}

/// Whether `word` stands there, and not as a part of a longer one.
fn is_word(bytes: &[u8], at: usize, word: &[u8]) -> bool {
    let part = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at)).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    bytes.get(at..at + word.len()) == Some(word) && !part(at.checked_sub(1)) && !part(Some(at + word.len()))
}

fn end_of_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_long_text_is_refused() {
        assert!(cedar_text(&format!("{}true{}", "(".repeat(64), ")".repeat(64))).is_ok());
        assert_eq!(cedar_text(&"(".repeat(65)).unwrap_err().offset, 64);
        assert!(cedar_text(&"true || ".repeat(5000)).is_err());
        assert!(cedar_text(&"permit(principal, action, resource) when { a.b };\n".repeat(5000)).is_ok());
        assert!(cedar_text(&format!("\"{}\"", "(((".repeat(100))).is_ok());
        assert!(cedar_text(&format!("// {}\ntrue", "(((".repeat(100))).is_ok());
        assert!(cedar_text("\"unended \\").is_ok());
        assert!(cedar_text(&"if(true)then(true)else ".repeat(5000)).is_err());
        assert!(cedar_text(&"elif ifs _if if_ ".repeat(5000)).is_ok());
        assert!(schema_text(&"Set<".repeat(65)).is_err());
        assert!(schema_text(&"type A = Set<Set<Long>>;\n".repeat(5000)).is_ok());
    }
}
