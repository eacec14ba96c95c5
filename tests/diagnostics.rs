//! What people are told about broken bundles: each folder of `tests/cases/diagnostics` is a bundle, and its
//! `expected.txt` is all that is said about it. `UPDATE_EXPECT=1 cargo test --test diagnostics` writes it anew.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate::policy::{Bundle, Loader, Problem, ProblemCode, SkippedFile, SourceFile, load, report};

/// Everything that is said about the bundle, in order; warnings and notes where it loads.
fn problems(bundle: &Bundle) -> Vec<Problem> {
    match load(bundle) {
        Ok(loaded) => loaded.problems,
        Err(problems) => problems,
    }
}

/// Compares what is said about the bundle in `folder` with its `expected.txt`; tells how they differ.
fn check(folder: &Path) -> Result<(), String> {
    let bundle = read(folder);
    let problems = problems(&bundle);
    let said = match report::text(&problems, false) {
        text if text.is_empty() => "nothing is wrong\n".to_owned(),
        text => text,
    };
    let path = folder.join("expected.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, said).map_err(|error| error.to_string())?;
        return Ok(());
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if said == expected {
        return Ok(());
    }
    Err(format!("=== {}\n--- expected\n{expected}--- said\n{said}", folder.display()))
}

fn read(folder: &Path) -> Bundle {
    let file = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        SourceFile::new(name, fs::read(&path).ok()?)
    };
    let skipped = |path: PathBuf| SkippedFile::of(path.file_name()?.to_str()?, &fs::read(&path).ok()?);
    Bundle::new(entries(folder).into_iter().filter_map(file).collect())
        .with_skipped(entries(folder).into_iter().filter_map(skipped).collect())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn every_case_is_told_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diagnostics");
    let cases = entries(&folder);
    assert!(cases.len() >= 40, "only {} cases were found", cases.len());
    let mut failed = String::new();
    for case in cases.iter().filter(|path| path.is_dir()) {
        if let Err(difference) = check(case) {
            let _ = writeln!(failed, "{difference}");
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// Every place that is reported is in the file, and every problem has a line to show.
#[test]
fn every_place_is_in_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diagnostics");
    for case in entries(&folder).iter().filter(|path| path.is_dir()) {
        for problem in problems(&read(case)) {
            if problem.place.line == 0 {
                // What is not read has no line.
                if problem.code == ProblemCode::FileSkipped {
                    continue;
                }
                assert!(problem.file.is_empty(), "{problem} is in a file but has no line");
                continue;
            }
            let line = problem.source_line.as_deref().unwrap_or_else(|| panic!("{problem} has no line"));
            let width = line.chars().count() as u32;
            assert!(problem.place.column <= width + 1 || width >= 400, "{problem} stands behind its line");
        }
    }
}

/// What of a help is Cedar: what stands between backticks and reads something of a request, or names an entity.
fn cedar_in(help: &str) -> Vec<&str> {
    let marks = ["context", "principal", "resource", "::\"", "permit (", "forbid ("];
    // In YAML a uid stands in quotes.
    let shown = help.split('`').skip(1).step_by(2).map(|text| text.trim_matches('\''));
    // A slot is what the help says not to write.
    shown.filter(|text| marks.iter().any(|mark| text.contains(mark)) && !text.starts_with('?')).collect()
}

fn parses(text: &str) -> bool {
    text.parse::<cedar_policy::PolicySet>().is_ok() || text.parse::<cedar_policy::RestrictedExpression>().is_ok() || {
        // An expression, as the condition of a policy.
        format!("permit (principal, action, resource) when {{ {text} }};").parse::<cedar_policy::PolicySet>().is_ok()
    }
}

#[test]
fn every_help_that_shows_cedar_shows_cedar_that_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diagnostics");
    let mut seen = std::collections::BTreeSet::new();
    for case in entries(&folder).iter().filter(|path| path.is_dir()) {
        for problem in problems(&read(case)) {
            for text in cedar_in(problem.help.as_deref().unwrap_or_default()) {
                assert!(parses(text), "{problem}\n`{text}` is no Cedar");
                seen.insert(problem.code);
            }
        }
    }
    use tollgate::policy::ProblemCode::{
        CedarValidation, GuardedForbid, NearMiss, UnguardedMember, UnknownModel, UnknownReference, UnlessAnyOf,
    };
    let expected =
        [CedarValidation, GuardedForbid, NearMiss, UnguardedMember, UnknownModel, UnknownReference, UnlessAnyOf];
    assert!(expected.iter().all(|code| seen.contains(code)), "Cedar is shown for {seen:?} alone");
}

/// Conditions with a mistake that a help mends.
const MENDED: [&str; 13] = [
    "context.limits[\"month\"].used_percent < 80",
    "context.ip.isLoopback()",
    "context.ip.isLoopback() || context.budget.used_percent > 5",
    "context.budget.used_percent > 5 && context.ip.isLoopback() && context.stream",
    "if context.stream then true else context.budget.used_percent > 5",
    "context.ip.isLoopback() // from here alone",
    "// why\ncontext.budget.used_percent > 5 // much\n  || context.stream",
    "context.limits.month.used_percent < 80",
    "context.limits[\"of day\"].used_percent < 80 && context.path like \"https://*\"",
    "!(context.end_user == \"x\")",
    "resource is Model && resource.max_output_tokens > 5",
    "principal is User && principal.email like \"*@acme.example\"",
    "context.budget.used_percent > 5 && context has ip && context.ip.isLoopback()",
];

/// The bundle of one rule with that condition.
fn with_condition(native: bool, (effect, key): (&str, &str), condition: &str) -> Bundle {
    let others = "limits:\n  - { id: month, users: \"*\", concurrency: 1 }\n  - { id: of day, users: \"*\", concurrency: 1 }\n\
                  provider_accounts: [{ id: a }]\nauthz_rules:\n  - { users: [x], models: [a/m] }\n";
    let mut files = vec![("others.yaml", others.to_owned())];
    if native {
        let policy = format!(
            "{effect} (principal is User, action == Action::\"chat\", resource is Model)\n{key} {{\n{condition}\n}};\n"
        );
        files.push(("own.cedar", policy));
    } else {
        let block: String = condition.lines().map(|line| format!("      {line}\n")).collect();
        files.push((
            "rule.yaml",
            format!(
                "authz_rules:\n  - effect: {effect}\n    users: [alice]\n    models: [\"a/*\"]\n    {key}: |\n{block}"
            ),
        ));
    }
    Bundle::new(files.iter().map(|(path, text)| SourceFile::new(*path, text.as_bytes()).unwrap()).collect())
}

/// What the help shows, put in the place of the condition, mends it, step by step where there is more than one mistake.
#[test]
fn every_condition_that_a_help_shows_mends_the_rule() {
    use tollgate::policy::ProblemCode::{GuardedForbid, UnguardedMember};
    for condition in MENDED {
        for native in [false, true] {
            // A policy's `&&` parts are told apart there, and the help shows the part alone.
            if native && condition.contains("&&") {
                continue;
            }
            for clause in [("permit", "when"), ("permit", "unless"), ("forbid", "when"), ("forbid", "unless")] {
                let mut written = condition.to_owned();
                for _ in 0..5 {
                    let found = problems(&with_condition(native, clause, &written));
                    let wrong: Vec<&Problem> = found.iter().filter(|problem| problem.is_error()).collect();
                    assert!(wrong.iter().all(|one| one.code == UnguardedMember), "{clause:?} {written}\n{wrong:?}");
                    let guarded = found.iter().find(|problem| problem.code == GuardedForbid);
                    let Some(next) = wrong.first().copied().or(guarded) else { break };
                    let help = next.help.as_deref().unwrap();
                    let shown = cedar_in(help);
                    assert!(
                        !help.contains('…') && shown.len() == 1 && parses(shown[0]),
                        "{clause:?} {written}\n{help}"
                    );
                    shown[0].clone_into(&mut written);
                }
                let found = problems(&with_condition(native, clause, &written));
                let wrong = found.iter().find(|problem| problem.is_error() || problem.code == GuardedForbid);
                assert!(wrong.is_none(), "{clause:?} {condition} became {written}: {wrong:?}");
            }
        }
    }
}

/// Each is a way to write a password in YAML, with `@` where the mistake stands that makes the line be shown.
const WAYS_TO_WRITE_A_PASSWORD: &[&str] = &[
    "    password_hash: hunter2\n    @: 1\n",
    "    password_hash:\n      hunter2\n    @: 1\n",
    "    password_hash: # see below\n\n      # here\n      hunter2\n    @: 1\n",
    "    password_hash: |\n      hunter2\n      hunter2\n    @: 1\n",
    "    password_hash: >-\n\n      hunter2\n    @: 1\n",
    "    password_hash: \"hunter2\n      hunter2\"\n    @: 1\n",
    "    password_hash: 'it''s hunter2'\n    @: 1\n",
    "    password_hash: \"a\\\"hunter2\"\n    @: 1\n",
    "    \"password\\u005fhash\": hunter2\n    @: 1\n",
    "    \"\\x70assword_hash\":\n      hunter2\n    @: 1\n",
    "    ? password_hash\n    : hunter2\n    @: 1\n",
    "    ? |-\n      password_hash\n    : hunter2\n    @: 1\n",
    "    password_hash: &a hunter2\n    @: *a\n",
    "    email: &a hunter2\n    password_hash: *a\n    @: 1\n",
    "    metadata: &a { b: hunter2 }\n    password_hash: *a\n    @: 1\n",
    "    password_hash: !hunter2 x\n    @: 1\n",
    "    password_hash: !hunter2\n    @: 1\n",
    "    password_hash: *hunter2\n    @: 1\n",
    "    password_hash: @hunter2\n",
    "    password_hash: `hunter2\n    @: 1\n",
    "    password_hash: [hunter2, hunter2]\n    @: 1\n",
    "    password_hash: { hunter2: hunter2, hunter2: 1 }\n    @: 1\n",
    "    password_hash:\n      - hunter2\n      - { a: hunter2 }\n    @: 1\n",
    "    password_hash: hunter2: x\n    @: 1\n",
    "    password_hash:hunter2\n    @: 1\n",
    "    password_hash: \"hunter2\n    @: 1\n",
    "    password_hash: \"hunter2 \\q\"\n    @: 1\n",
    "    password_hash: 'hunter2' 'hunter2'\n    @: 1\n",
    "    password_hash: hunter2\n    password_hash: hunter2\n",
    "    \tpassword_hash: hunter2\n    @: 1\n",
    "    password_hash:\n\thunter2\n    @: 1\n",
    "    email: \"https://a:hunter2@b\"\n    @: 1\n",
    "    email: \"https:\\/\\/a:hunter2\\u0040b\"\n    @: 1\n",
    "    @: { secret: hunter2, token: 'hunter2' }\n",
    "    @: { secret:\n  hunter2 }\n",
    "    @: [{ passwords: [hunter2,\n hunter2] }]\n",
];

/// What is shown of a file has no secret in it, wherever the mistake stands and however the secret is written.
#[test]
fn no_secret_is_shown_however_yaml_writes_it() {
    let (mut loader, mut masked) = (Loader::default(), 0);
    for way in WAYS_TO_WRITE_A_PASSWORD {
        for mistake in ["bogus", "id"] {
            for end in ["", "    @broken\n", "    roles: [\n"] {
                let text = format!("users:\n  - id: alice\n{}{end}  - id: bob\n", way.replace('@', mistake));
                let text = text.replace("hash: bogushunter2", "hash: @hunter2");
                let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
                let problems = loader.load(&bundle).unwrap_err();
                masked += usize::from(report::text(&problems, false).contains("***"));
                for said in [
                    report::text(&problems, false),
                    report::json(&problems),
                    report::sarif(&problems, ""),
                    report::github(&problems, ""),
                ] {
                    assert!(!said.contains("hunter2"), "{text}\n{said}");
                }
            }
        }
    }
    // Else this would say nothing.
    assert!(masked > 100, "only {masked} lines with a secret were shown");
}

/// A key may be pasted where no secret belongs, so that nothing around it says that it is one.
#[test]
fn a_key_is_not_shown_wherever_it_stands() {
    let key = "tg_hQRzUPc5ZUsT_bbdZ7sbeYofALUmaN3JWgNbKAUoxSPlp8QvPqDBxKZR1sT6UC";
    for text in [
        format!("users:\n  - {{ id: a, bogus: {key} }}\n"),
        format!("users:\n  - {{ id: a, tags: {key} }}\n"),
        format!("users:\n  - {{ id: a, {key}: 1 }}\n"),
        format!("authz_rules:\n  - {{ teams: [\"{key}\"], models: [a/b] }}\n"),
        format!("authz_rules:\n  - {{ users: \"*\", models: [\"{key}\"] }}\n"),
        format!("authz_rules:\n  - {{ users: \"*\", models: \"*\", when: 'principal in Team::\"{key}\"' }}\n"),
    ] {
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let problems = load(&bundle).unwrap_err();
        for said in [report::text(&problems, false), report::json(&problems), report::sarif(&problems, "")] {
            assert!(said.contains("***") || !said.contains("tg_"), "{text}\n{said}");
            assert!(!said.contains("hQRzUPc5"), "{text}\n{said}");
        }
    }
}

/// Somebody pastes a secret where it is not indented, or forgets a quote: behind the key, anything may go wrong.
#[test]
fn no_secret_is_shown_whatever_is_wrong_behind_its_key() {
    let mut loader = Loader::default();
    for value in
        ["hunter2", " |\n      hunter2", " \"hunter2\"", "\n      - hunter2", " [hunter2]", " >\n\n      hunter2"]
    {
        // What begins a line as an item or a key is one, and no secret.
        let begins_lines = |inserted: &&str| !(value.contains('\n') && matches!(*inserted, "- " | "? "));
        for inserted in [
            "\"", "'", "[", "{", "}", "]", ":", ": ", "#", " #", "&", "*", "!", "- ", "? ", "\t", "\n", "\n\t", "|",
            ">", "\u{7}", "---\n",
        ]
        .into_iter()
        .filter(begins_lines)
        {
            for (at, _) in value.char_indices().filter(|(at, _)| *at <= value.find("hunter2").unwrap()) {
                let (before, after) = value.split_at(at);
                for ends in ["    bogus: 1\n", "  bogus\n"] {
                    let text = format!(
                        "users:\n  - id: alice\n    password_hash: {before}{inserted}{after}\n{ends}  - id: bob\n"
                    );
                    let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
                    let Err(problems) = loader.load(&bundle) else { continue };
                    let said = report::text(&problems, false);
                    assert!(!said.contains("hunter2"), "{text}\n{said}");
                }
            }
        }
    }
}

#[test]
fn names_of_files_are_shown() {
    let text = "users:\n  - { id: alice, password_file: /run/secrets/x, token_path: /etc/y }\n";
    let problems = problems(&Bundle::new(vec![SourceFile::new("secret.yaml", text.as_bytes()).unwrap()]));
    let said = report::text(&problems, false);
    assert!(["/run/secrets/x", "/etc/y", "secret.yaml:2"].iter().all(|name| said.contains(name)), "{said}");
}
