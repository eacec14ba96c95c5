//! Each folder of `tests/cases/cli` is a transcript: `cmd` is run by `sh` in a copy of the folder, beside the example
//! bundle, and `expected.txt` is all that it says. `UPDATE_EXPECT=1 cargo test --test cli` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{binaries, copy, entries, root};

fn run(case: &Path) -> Output {
    let folder = tempfile::tempdir().unwrap();
    copy(case, folder.path());
    if !folder.path().join("policies").exists() {
        copy(&root().join("policies"), &folder.path().join("policies"));
    }
    fs::remove_file(folder.path().join("expected.txt")).ok();
    let script = fs::read_to_string(case.join("cmd")).unwrap();
    fs::remove_file(folder.path().join("cmd")).unwrap();
    let path = format!("{}:/usr/bin:/bin", binaries().display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).current_dir(&folder).env_clear().env("PATH", path).output().unwrap()
}

/// What was said, with the revision of a bundle replaced: it changes with every letter of it.
fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| without_revisions(std::str::from_utf8(bytes).unwrap());
    let mut transcript = format!("exit {}\n", output.status.code().unwrap());
    for (name, text) in [("stdout", text(&output.stdout)), ("stderr", text(&output.stderr))] {
        if !text.is_empty() {
            let end = if text.ends_with('\n') { "" } else { "<no newline>\n" };
            let _ = write!(transcript, "--- {name}\n{text}{end}");
        }
    }
    transcript
}

fn without_revisions(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if word.len() == 16 && word.chars().all(is_hex) {
            out.push_str(&piece.replace(word, "REVISION"));
        } else {
            out.push_str(piece);
        }
    }
    out
}

fn check(case: &Path) -> Result<(), String> {
    let said = transcript(&run(case));
    let path = case.join("expected.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return fs::write(&path, said).map_err(|error| error.to_string());
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if said == expected {
        return Ok(());
    }
    Err(format!("=== {}\n--- expected\n{expected}--- said\n{said}", case.display()))
}

#[test]
fn every_command_says_what_is_expected() {
    let cases = entries(&root().join("tests/cases/cli"));
    assert!(cases.len() >= 35, "only {} cases were found", cases.len());
    let mut failed = String::new();
    for case in cases {
        if let Err(difference) = check(&case) {
            let _ = writeln!(failed, "{difference}");
        }
    }
    assert!(failed.is_empty(), "{failed}");
}
