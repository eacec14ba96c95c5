//! Which part of the source may know which other, and what the core must not touch: read from `src/` itself, so that a
//! slip fails with its file and line. Clippy's `disallowed-methods` (clippy.toml) is the other half: it sees calls.

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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A part of the source, and the parts that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("policy", &["model", "meter"]),
    ("meter", &["model"]),
    ("gate", &["model", "policy", "meter"]),
    ("edge", &["model", "policy", "meter", "gate"]),
    ("pdp", &["model", "policy", "meter", "gate", "edge"]),
    ("config", &["model", "policy", "meter", "gate", "edge"]),
    ("engine", &["model", "policy", "meter", "gate", "edge", "pdp"]),
    ("client", &["model", "gate", "edge"]),
    ("cli", &["model", "policy", "meter", "gate", "edge", "config", "pdp", "engine", "client"]),
    ("main", &["model", "policy", "meter", "gate", "edge", "config", "pdp", "engine", "client", "cli"]),
    ("lib", &["model", "policy", "meter", "gate", "edge", "config", "pdp", "engine", "client", "cli"]),
];

/// Parts of the edge that may name another part of it: the wiring hands HTTP what it serves.
const EDGE_MAY_NAME: &[(&str, &[&str])] =
    &[("http", &["clock", "audit", "telemetry", "identity", "store", "files", "outgoing", "answer"])];

/// The server is a caller of the engine and its decision service, as any library user is.
const HTTP_SERVES: &[(&str, &str)] = &[("http", "engine"), ("http", "pdp")];

/// The modules that convert between a protocol and the decision service, and what they may name: the service, the types of
/// a request, and the HTTP form of credentials and statuses. None of them can reach the core, a store or a metric.
const PROTOCOLS: &[&str] = &[
    "src/edge/http/batch.rs",
    "src/edge/http/books.rs",
    "src/edge/http/caller.rs",
    "src/edge/http/cedar_agent.rs",
    "src/edge/http/is_authorized.rs",
    "src/edge/http/run.rs",
    "src/edge/http/spending.rs",
    "src/edge/http/standing.rs",
    "src/edge/http/validate.rs",
    "src/edge/http/wire/",
    "src/engine/layer.rs",
];
const PROTOCOL_MAY_NAME: &[&str] = &["pdp", "model", "edge::answer", "edge::identity", "policy::problem::nearest"];

/// The functions of the core that make or change a decision. Only the decision service calls them.
const DECIDES: &[&str] = &[
    "gate::authenticate",
    "gate::authorize",
    "gate::authorize_and_charge",
    "gate::authorize_candidates",
    "gate::decide",
    "gate::decide_candidates",
    "gate::explain",
    "gate::extend",
    "gate::record",
    "gate::release",
    "gate::settle",
    "gate::standings",
];

/// A part of the edge that every other part may name: the one source of random numbers.
const EDGE_SHARES: &str = "random";

/// What the source names in one file only, or nowhere, and why.
const IN_ONE_PLACE: &[(&str, Option<&str>, &str)] = &[
    (
        "aws_lc_rs::rand",
        Some("src/edge/random.rs"),
        "random numbers come from one source, with one answer to its failure",
    ),
    ("SystemRandom", Some("src/edge/random.rs"), "random numbers come from one source, with one answer to its failure"),
    ("std::sync::Mutex", None, "locks are those of parking_lot, which a panic does not poison"),
    ("std::sync::RwLock", None, "locks are those of parking_lot, which a panic does not poison"),
    ("std::sync::Condvar", None, "locks are those of parking_lot, which a panic does not poison"),
];

/// The core: a function of its inputs.
const CORE: &[&str] = &["model", "policy", "meter", "gate"];

/// What the core does not name, and why. `std::thread::scope` is not among it: loading parses on every core.
const OUTSIDE: &[(&str, &str)] = &[
    ("std::fs", "files are read in edge/files; the core takes a Bundle"),
    ("std::env", "config/ is the only reader of the environment"),
    ("std::net::Tcp", "sockets are edge/http's"),
    ("std::net::Udp", "sockets are edge/http's"),
    ("std::process", "ending the process is main's"),
    ("SystemTime", "the clock is read once per request, in edge/clock"),
    ("Instant::now", "the clock is read once per request, in edge/clock"),
    ("Timestamp::now", "the clock is read once per request, in edge/clock"),
    ("Zoned::now", "the clock is read once per request, in edge/clock"),
    ("thread::sleep", "a decision never waits"),
    ("tokio", "the core is sync"),
    ("axum", "the core knows no wire"),
    ("hyper", "the core knows no wire"),
    ("notify", "watching is edge/files'"),
    ("clap", "arguments are cli/'s"),
];

/// Files that may name one kind of resource, and why. All others ask for a column of the table.
const NAMES_ONE_KIND: &[(&str, &str)] = &[
    ("src/model/kind.rs", "the table"),
    ("src/model/limit.rs", "the grammar of limits: `each: model`"),
    ("src/model/identity.rs", "the lists of an API key: `models`, `routers`"),
    ("src/policy/syntax.rs", "the grammar of rules: `models`, `routers`, `model_tags`"),
    ("src/policy/link/models.rs", "declarations: the models of an account, `routers`, and names in `models` lists"),
    ("src/policy/link/people.rs", "declarations: the ids of each section"),
    ("src/policy/snapshot.rs", "lookups of a model by name, for lists and paths that name models"),
    ("src/gate/routes.rs", "the paths of providers' APIs, which name models"),
    ("src/edge/http/keys/change.rs", "the grammar of keys: `models`, `routers`"),
    ("src/edge/http/openapi/operations.rs", "an example of a request"),
];

/// A line of code, without its comment; `tests` modules are left out.
struct Line {
    number: usize,
    code: String,
}

#[test]
fn layering_every_import_points_inwards() {
    let mut wrong = Vec::new();
    let files = sources();
    assert!(files.len() > 30, "only {} files were found", files.len());
    for path in &files {
        let (part, inner) = part_of(path);
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{}: the table of directions has no `{part}`", shown(path)));
            continue;
        };
        for line in code(path) {
            for named in named_parts(&line.code) {
                if !is_part(&named) {
                    wrong.push(format!(
                        "{}:{}: name `{named}` by its part, not by the crate's front",
                        shown(path),
                        line.number
                    ));
                } else if named != part
                    && !allowed.contains(&named.as_str())
                    && !HTTP_SERVES.contains(&(inner.as_str(), named.as_str()))
                {
                    wrong.push(format!("{}:{}: `{part}` may not name `{named}`", shown(path), line.number));
                }
            }
            for other in named_edges(&line.code).filter(|other| part == "edge" && *other != inner) {
                let allowed = EDGE_MAY_NAME.iter().find(|(name, _)| *name == inner).map_or(&[] as &[_], |(_, to)| to);
                if other != EDGE_SHARES && !allowed.contains(&other.as_str()) {
                    wrong.push(format!("{}:{}: `edge/{inner}` may not name `edge/{other}`", shown(path), line.number));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layering_the_core_names_nothing_of_the_outside_world() {
    let mut wrong = Vec::new();
    for path in sources().iter().filter(|path| CORE.contains(&part_of(path).0.as_str())) {
        for line in code(path) {
            for (name, why) in OUTSIDE.iter().filter(|(name, _)| mentions(&line.code, name)) {
                wrong.push(format!("{}:{}: the core may not name `{name}`: {why}", shown(path), line.number));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layering_locks_and_random_numbers_come_from_one_place() {
    let mut wrong = Vec::new();
    for path in &sources() {
        for line in code(path) {
            for (name, file, why) in IN_ONE_PLACE {
                if mentions(&line.code, name) && *file != Some(shown(path).as_str()) {
                    wrong.push(format!("{}:{}: `{name}`: {why}", shown(path), line.number));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the process reports is a `tracing` event. Commands speak to people, the subscriber of the server writes lines, and
/// the decision log goes to standard output where it is configured to.
#[test]
fn layering_nothing_prints_by_hand() {
    let speaks = ["cli", "main"];
    let writes = ["src/edge/telemetry/layer.rs", "src/edge/decision_log/files.rs"].map(Path::new);
    let mut wrong = Vec::new();
    for path in &sources() {
        let is_serve = shown(path).starts_with("src/cli/serve");
        if (speaks.contains(&part_of(path).0.as_str()) && !is_serve) || writes.contains(&Path::new(&shown(path))) {
            continue;
        }
        for line in code(path) {
            for name in ["println", "eprintln", "print", "eprint", "dbg"] {
                if mentions(&line.code, name) && line.code.contains(&format!("{name}!")) {
                    wrong.push(format!("{}:{}: `{name}!`", shown(path), line.number));
                }
            }
            let asks_for_it = is_serve && line.code.contains("let stderr =");
            // Records of decisions are data, and may be asked for on stdout.
            let is_sink = shown(path).starts_with("src/edge/decision_log/");
            for name in ["stderr()", "stdout()", "set_global_default"] {
                if line.code.contains(name) && !asks_for_it && !(is_sink && name == "stdout()") {
                    wrong.push(format!("{}:{}: `{name}`", shown(path), line.number));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file of the HTTP folder that imports another may not be imported by it, directly or through others: what two files share
/// belongs in a third one below both.
#[test]
fn layering_a_protocol_names_the_decision_service_alone() {
    let mut wrong = Vec::new();
    for protocol in PROTOCOLS {
        let lines = protocol_lines(protocol);
        assert!(lines.len() > 20, "{protocol} is not there");
        for line in &lines {
            let names: Vec<&str> = line.code.split("crate::").skip(1).collect();
            let is_allowed = |name: &&str| PROTOCOL_MAY_NAME.iter().any(|allowed| name.starts_with(allowed));
            if !names.iter().all(is_allowed) || line.code.contains(".metrics") || line.code.contains(".meters()") {
                wrong.push(format!("{protocol}:{}: {}", line.number, line.code.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "a protocol converts to and from `pdp`, and nothing else:\n{}", wrong.join("\n"));
}

/// The lines of a file, or of all files of a folder.
fn protocol_lines(protocol: &str) -> Vec<Line> {
    let path = root().join(Path::new(protocol).strip_prefix("src").unwrap());
    sources().iter().filter(|source| source.starts_with(&path)).flat_map(|source| code(source)).collect()
}

#[test]
fn layering_only_the_decision_service_decides() {
    let mut wrong = Vec::new();
    for path in sources().iter().filter(|path| !["gate", "pdp"].contains(&part_of(path).0.as_str())) {
        for line in code(path) {
            let calls = |name: &&&str| line.code.contains(&format!("{name}("));
            if let Some(name) = DECIDES.iter().find(calls) {
                wrong.push(format!("{}:{}: calls `{name}`", shown(path), line.number));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layering_the_files_of_http_import_each_other_in_one_direction() {
    let graph = http_imports();
    assert!(graph.len() > 20, "only {} files were found", graph.len());
    assert!(graph["router"].contains("app") && graph["keys"].contains("services"), "{graph:?}");
    let found = cycles(&graph);
    let shown: Vec<String> = found.iter().map(|cycle| cycle.join(" -> ")).collect();
    assert!(found.is_empty(), "import cycles in src/edge/http:\n{}", shown.join("\n"));
}

#[test]
fn layering_a_cycle_of_imports_is_found() {
    let graph = |edges: &[(&str, &[&str])]| -> Imports {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(name, imported)| ((*name).to_owned(), own(imported))).collect()
    };
    assert!(cycles(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    assert_eq!(cycles(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])), [["b", "c", "b"]]);
    let text = "use super::app::App;\nuse super::{\n    batch, body::{self, json},\n};\nfn f() { crate::edge::http::wire::g() }\n";
    let names = |depth| -> Vec<String> { siblings(&stripped(text), depth).into_iter().collect() };
    assert_eq!(names(1), ["app", "batch", "body", "wire"]);
    // In a file of a folder, `super` is the folder itself.
    assert_eq!(names(2), ["wire"]);
}

/// A new kind of resource is a row of the table in `src/model/kind.rs`, and not a comparison in many files.
#[test]
fn layering_kinds_of_resources_are_columns() {
    let files = sources().into_iter().filter(|path| !shown(path).ends_with("tests.rs"));
    let named: Vec<(String, String)> = files.flat_map(|path| kinds_named(&path)).collect();
    let allowed = |file: &str| NAMES_ONE_KIND.iter().any(|(allowed, _)| *allowed == file);
    let wrong: Vec<&str> = named.iter().filter(|(file, _)| !allowed(file)).map(|(_, place)| place.as_str()).collect();
    assert!(wrong.is_empty(), "ask for a column of `Kind`:\n{}", wrong.join("\n"));
    for (file, why) in NAMES_ONE_KIND {
        assert!(named.iter().any(|(with, _)| with == file), "{file} names no kind any more: {why}");
    }
}

/// The lines of a file that name one kind of resource, by its constant or by its entity type.
fn kinds_named(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    let names = ["Kind::MODEL", "Kind::ROUTER", "\"Model\"", "\"Router\""];
    let names_one = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let is_word = |at: usize, name: &str| !code[at + name.len()..].starts_with('_');
        names.iter().any(|name| code.match_indices(name).any(|(at, _)| is_word(at, name)))
    };
    let lines = shipped.lines().enumerate().filter(|(_, line)| names_one(line));
    lines.map(|(at, _)| (shown(path), format!("{}:{}", shown(path), at + 1))).collect()
}

#[test]
fn layering_the_reader_of_lines_sees_what_it_is_to_see() {
    assert_eq!(named_parts("use crate::edge::files::{Reader, manifest};"), ["edge"]);
    assert_eq!(named_parts("use crate::{gate, policy::Bundle};"), ["gate", "policy"]);
    assert_eq!(named_parts("let x = crate::policy::problem::nearest(crate::model::y());"), ["policy", "model"]);
    assert_eq!(named_edges("use crate::edge::files::Reader;").collect::<Vec<_>>(), ["files"]);
    assert!(mentions("use std::{fs, io};", "std::fs"));
    assert!(mentions("use std::sync::{Arc, Mutex};", "std::sync::Mutex"));
    assert!(!mentions("use tokio::sync::{Arc, Mutex};", "std::sync::Mutex"));
    assert!(mentions("let now = std::time::SystemTime::now();", "SystemTime"));
    assert!(!mentions("let notify_all = 1;", "notify"));
    let text = "/// std::fs is not named here\nlet a = \"std::env // no\"; // std::fs\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert!(stripped(text).iter().all(|line| !mentions(&line.code, "std::fs") && !mentions(&line.code, "std::env")));
}

/// For each file, the files that it imports. A folder counts as one file.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn http_imports() -> Imports {
    let folder = root().join("edge").join("http");
    let mut graph = Imports::new();
    for path in sources().iter().filter(|path| path.starts_with(&folder)) {
        let inside = path.strip_prefix(&folder).unwrap();
        let name = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if name == "mod" {
            continue;
        }
        // `super` is the HTTP folder in its files and in the `mod.rs` of a folder in it.
        let depth = if inside.ends_with("mod.rs") { 1 } else { inside.components().count() };
        let imports = graph.entry(name.clone()).or_default();
        imports.extend(siblings(&code(path), depth).into_iter().filter(|other| *other != name));
    }
    let files: BTreeSet<String> = graph.keys().cloned().collect();
    for imports in graph.values_mut() {
        imports.retain(|name| files.contains(name));
    }
    graph
}

/// The files of the HTTP folder that these lines name: behind `crate::edge::http::`, or behind as many `super::` as the depth of
/// the file.
fn siblings(lines: &[Line], depth: usize) -> BTreeSet<String> {
    let text: String = lines.iter().map(|line| line.code.trim().to_owned() + " ").collect();
    let mut found = BTreeSet::new();
    for prefix in ["crate::edge::http::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&prefix) {
            if !text[..at].ends_with("super::") {
                found.extend(first_names(&text[at + prefix.len()..]));
            }
        }
    }
    found
}

/// Each import cycle that a search in depth meets, from a file back to itself.
fn cycles(graph: &Imports) -> Vec<Vec<String>> {
    fn visit(graph: &Imports, name: &str, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Vec<Vec<String>> {
        if let Some(at) = path.iter().position(|before| before == name) {
            return vec![path[at..].iter().cloned().chain([name.to_owned()]).collect()];
        }
        if done.contains(name) {
            return Vec::new();
        }
        path.push(name.to_owned());
        let found = graph[name].iter().flat_map(|next| visit(graph, next, path, done)).collect();
        path.pop();
        done.insert(name.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().flat_map(|name| visit(graph, name, &mut Vec::new(), &mut done)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn shown(path: &Path) -> String {
    Path::new("src").join(path.strip_prefix(root()).unwrap()).display().to_string()
}

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The part of the source that a file belongs to, and within that, the file or folder.
fn part_of(path: &Path) -> (String, String) {
    let inside = path.strip_prefix(root()).unwrap();
    let mut names = inside.components().map(|name| name.as_os_str().to_string_lossy().replace(".rs", ""));
    (names.next().unwrap_or_default(), names.next().unwrap_or_default())
}

fn is_part(name: &str) -> bool {
    MAY_NAME.iter().any(|(part, _)| *part == name)
}

fn code(path: &Path) -> Vec<Line> {
    stripped(&fs::read_to_string(path).unwrap())
}

/// The lines of code of a file, without comments, texts, and what is compiled for tests alone.
fn stripped(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    // At the end of a file, by custom.
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for (at, line) in shipped.lines().enumerate() {
        let mut code = String::new();
        let mut in_text = false;
        let mut rest = line.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '\\' if in_text => drop(rest.next()),
                '"' => in_text = !in_text,
                '/' if !in_text && rest.peek() == Some(&'/') => break,
                _ if in_text => {}
                _ => code.push(next),
            }
        }
        lines.push(Line { number: at + 1, code });
    }
    lines
}

/// The parts that a line names behind `crate::`.
fn named_parts(code: &str) -> Vec<String> {
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

/// The first name of a path; of a list in braces, the first name of each item.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut found = Vec::new();
    let mut depth = 0;
    let mut start = true;
    for (at, next) in list.char_indices() {
        match next {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && !next.is_whitespace() => {
                found.push(word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn named_edges(code: &str) -> impl Iterator<Item = String> + '_ {
    code.split("crate::edge::").skip(1).map(word).filter(|name| !name.is_empty())
}

fn word(text: &str) -> String {
    text.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect()
}

/// Whether the line names it, in full, as a word, or out of a `use std::{…}`.
fn mentions(code: &str, name: &str) -> bool {
    let is_word = |at: usize, name: &str| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let part = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '_');
        !part(before) && (!part(after) || name.ends_with("Tcp") || name.ends_with("Udp"))
    };
    let whole = code.match_indices(name).any(|(at, _)| is_word(at, name));
    let within =
        |list: &str, inner: &str| code.contains(list) && code.match_indices(inner).any(|(at, _)| is_word(at, inner));
    let listed = name.strip_prefix("std::").is_some_and(|inner| within("std::{", inner))
        || name.strip_prefix("std::sync::").is_some_and(|inner| within("std::sync::{", inner));
    whole || listed
}
