//! Every number of BENCHMARKS.md about loading and deciding, as tables: `cargo bench --bench scale`.
//!
//! Each size runs in a process of its own, so that its memory is its own. `BENCH_SIZES=1000,10000` takes fewer sizes;
//! a million rules need about 2 GB. `BENCH_ONLY=reload` (decide, flat, extras, cedar, parse) measures one part of it. `-- --write DIRECTORY RULES` writes a bundle for `benches/http.sh`.

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

mod common;

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use common::cedar::Plain;
use common::{Size, facts};
use serde_json::json;
use tollgate::gate::decide;
use tollgate::policy::{Loader, load, parse};
use tollgate::{Bundle, EntityUid, Facts, Request, Snapshot};

/// Different requests of each kind, so that a large bundle is not measured on what happens to be in the cache.
const REQUESTS: usize = 2_048;
/// How often each of them is decided.
const ROUNDS: usize = 25;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str, count: usize| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + count).map(String::as_str)
    };
    if let Some(rules) = after("--size", 1) {
        measure(Size::of(rules.parse().expect("it is a number")));
    } else if let Some(directory) = after("--write", 1) {
        let rules = after("--write", 2).and_then(|rules| rules.parse().ok()).expect("--write DIRECTORY RULES");
        write(directory, Size::of(rules));
    } else if arguments.iter().any(|argument| argument == "--bench") {
        tables();
    }
}

fn tables() {
    let sizes = std::env::var("BENCH_SIZES").unwrap_or_else(|_| "1000,10000,100000,1000000".to_owned());
    let this = std::env::current_exe().expect("the program has a path");
    let runs: Vec<Run> = sizes
        .split(',')
        .map(|size| {
            eprintln!("{size} rules …");
            let output = Command::new(&this).args(["--size", size]).output().expect("the program starts again");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("it prints text");
            let values = text.lines().filter_map(|line| line.split_once('='));
            Run(values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        })
        .collect();
    let table = |title: &str, rows: &[(&str, &str)]| {
        println!("\n{title}\n");
        println!("| |{}", runs.iter().map(|run| format!(" {} rules |", run.get("rules"))).collect::<String>());
        println!("|---|{}", "---|".repeat(runs.len()));
        for (words, name) in rows {
            println!("| {words} |{}", runs.iter().map(|run| format!(" {} |", run.get(name))).collect::<String>());
        }
    };
    table(
        "Loading",
        &[
            ("text of the bundle, MB", "text_mb"),
            ("entities", "entities"),
            ("parse alone, one thread, s", "parse_s"),
            ("**first load: parse, check, validate, compile, index**, s", "load_s"),
            ("the same, CPU s of both cores", "load_cpu_s"),
            ("reload, nothing changed, ms", "unchanged_ms"),
            ("**reload, one file changed**, ms (median)", "reload_ms"),
            ("the same, least, ms", "reload_least_ms"),
            ("resident after the load, MB", "rss_mb"),
            ("**resident bytes a rule**", "rss_per_rule"),
            ("resident at most, MB", "peak_mb"),
        ],
    );
    table(
        "Deciding (median / 99th percentile of single calls, ns)",
        &[
            ("**no rule with a condition fits**", "plain"),
            ("the same, request without context", "plain_bare"),
            ("**a condition is evaluated**", "conditional"),
            ("a user in fifty teams", "crowd"),
            ("+ 1 rule that names nobody and nothing, other action", "bare_1"),
            ("+ 10 such rules", "bare_10"),
            ("+ 1 such rule, conditional", "everyone_1"),
            ("+ 10 such rules, conditional", "everyone_10"),
            ("plain Cedar, the same requests", "cedar"),
        ],
    );
    table(
        "Median of a decision, to that with 1,000 rules in the same process and in turns",
        &[
            ("without a condition, 64 different requests", "plain_growth_64"),
            ("512", "plain_growth_512"),
            ("2,048", "plain_growth_2048"),
            ("with a condition, 64 different requests", "conditional_growth_64"),
            ("512", "conditional_growth_512"),
            ("2,048", "conditional_growth_2048"),
        ],
    );
}

/// What one run printed.
struct Run(HashMap<String, String>);

impl Run {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("–", String::as_str)
    }
}

fn say(name: &str, value: impl Display) {
    println!("{name}={value}");
}

fn measure(size: Size) {
    let bundle = common::bundle(size);
    let bytes: usize = bundle.files().iter().map(|file| file.bytes.len()).sum();
    say("rules", size.rules);
    say("text_mb", format!("{:.1}", bytes as f64 / 1e6));
    let (mut loader, snapshot) = measure_loading(size, bundle);
    let bundle = common::bundle(size);
    // One part of it, for a profiler.
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("reload") {
        measure_reloads(size, &bundle, &mut loader);
    }
    if wanted("decide") {
        measure_decisions(size, &snapshot);
    }
    if wanted("flat") {
        measure_growth(size, &snapshot);
    }
    if wanted("extras") {
        measure_extras(size, &bundle, &mut loader);
    }
    if wanted("cedar") && size.rules <= 10_000 {
        measure_plain_cedar(size, &snapshot);
    }
    if wanted("parse") {
        parse_alone(&bundle);
    }
}

fn measure_loading(size: Size, bundle: Bundle) -> (Loader, std::sync::Arc<Snapshot>) {
    let mut loader = Loader::default();
    let (cpu, start) = (process_cpu(), Instant::now());
    let loaded = loader.load(&bundle).expect("the bundle is right");
    say("load_s", format!("{:.2}", start.elapsed().as_secs_f64()));
    say("load_cpu_s", format!("{:.2}", (process_cpu() - cpu).as_secs_f64()));
    say("entities", loaded.snapshot.counts().entities);
    drop(bundle);
    let resident = status("VmRSS:");
    say("rss_mb", resident / 1_000_000);
    say("rss_per_rule", resident / size.rules);
    say("peak_mb", status("VmHWM:") / 1_000_000);
    (loader, loaded.snapshot)
}

fn measure_reloads(size: Size, bundle: &Bundle, loader: &mut Loader) {
    let rounds = if size.rules > 100_000 { 3 } else { 9 };
    let timed = |bundle: &Bundle, loader: &mut Loader| {
        let start = Instant::now();
        let loaded = loader.load(bundle).expect("the bundle is right");
        (start.elapsed().as_secs_f64() * 1e3, loaded)
    };
    let unchanged = sorted((0..rounds).map(|_| timed(bundle, loader).0));
    say("unchanged_ms", format!("{:.0}", unchanged[rounds / 2]));
    let reloads = sorted((0..rounds).map(|round| {
        let changed = common::changed(bundle, size, round * 7);
        timed(&changed, loader).0
    }));
    say("reload_ms", format!("{:.0}", reloads[rounds / 2]));
    say("reload_least_ms", format!("{:.0}", reloads[0]));
}

fn parse_alone(bundle: &Bundle) {
    let start = Instant::now();
    for file in bundle.files() {
        black_box(parse::parse(file));
    }
    say("parse_s", format!("{:.2}", start.elapsed().as_secs_f64()));
}

fn measure_decisions(size: Size, snapshot: &Snapshot) {
    let facts = facts();
    let requests = common::requests(snapshot, size, REQUESTS);
    let bare: Vec<Request> =
        requests.plain.iter().cloned().map(|request| request.with_context(serde_json::Map::new())).collect();
    say("plain", times(snapshot, &facts, &requests.plain));
    say("plain_bare", times(snapshot, &facts, &bare));
    say("conditional", times(snapshot, &facts, &requests.conditional));
}

/// How much longer a decision takes than with a thousand rules, both measured in turns: whatever else the machine does
/// meanwhile, it does to both.
fn measure_growth(size: Size, snapshot: &Snapshot) {
    let small = Size::of(1_000);
    let reference = load(&common::bundle(small)).expect("the bundle is right").snapshot;
    let (few, many) = (common::requests(&reference, small, REQUESTS), common::requests(snapshot, size, REQUESTS));
    for (name, few, many) in [("plain", &few.plain, &many.plain), ("conditional", &few.conditional, &many.conditional)]
    {
        for count in [64, 512, REQUESTS] {
            let ratio = ratio(&reference, snapshot, few, many, count);
            say(&format!("{name}_growth_{count}"), format!("{ratio:.2}"));
        }
    }
}

fn ratio(reference: &Snapshot, snapshot: &Snapshot, few: &[Request], many: &[Request], count: usize) -> f64 {
    let facts = facts();
    // As many decisions, however few requests they are about.
    let turns = (REQUESTS / count).max(1);
    let median = |on: &Snapshot, requests: &[Request]| {
        let requests = &requests[..count.min(requests.len())];
        let mut samples = Vec::with_capacity(turns * count);
        for turn in 0..=turns {
            for request in requests {
                let taken = one(on, &facts, request);
                samples.extend((turn > 0).then_some(taken));
            }
        }
        samples.sort_unstable();
        samples[samples.len() / 2].saturating_sub(clock()).as_secs_f64()
    };
    let ratios = (0..15).map(|_| {
        let before = median(reference, few);
        let taken = median(snapshot, many);
        taken * 2.0 / (before + median(reference, few))
    });
    sorted(ratios)[7]
}

/// The same with files more: a user in fifty teams, and rules that are looked at in every decision.
fn measure_extras(size: Size, bundle: &Bundle, loader: &mut Loader) {
    let facts = facts();
    let mut load = |file| loader.load(&common::with(bundle, file)).expect("the bundle is right").snapshot;
    let crowd = load(common::crowd(size));
    let requests = common::crowd_requests(size);
    say("crowd", times(&crowd, &facts, &requests));
    drop(crowd);
    if size.rules > 10_000 {
        return;
    }
    for (conditional, count) in [(false, 1), (false, 10), (true, 1), (true, 10)] {
        let snapshot = load(common::for_everyone(count, conditional));
        let requests = common::requests(&snapshot, size, REQUESTS);
        let (name, requests) =
            if conditional { ("everyone", &requests.conditional) } else { ("bare", &requests.plain) };
        say(&format!("{name}_{count}"), times(&snapshot, &facts, requests));
    }
}

/// Decides the same requests with plain Cedar, which must come to the same outcomes.
fn measure_plain_cedar(size: Size, snapshot: &Snapshot) {
    let facts = facts();
    let plain = Plain::new(size);
    let asked = common::requests(snapshot, size, REQUESTS);
    let requests: Vec<&Request> = asked.plain.iter().step_by(41).chain(asked.conditional.iter().step_by(41)).collect();
    let mut samples = Vec::new();
    for request in requests {
        let for_cedar = Plain::request(request, &facts);
        for _ in 0..3 {
            let start = Instant::now();
            let permits = black_box(plain.permits(&for_cedar));
            samples.push(start.elapsed());
            let decision = decide(snapshot, &facts, request).expect("the schema takes it");
            assert_eq!(permits, decision.is_permit(), "Cedar decides otherwise about {request:?}");
        }
    }
    say("cedar", percentiles(samples));
}

/// Median and 99th percentile of single decisions, without what reading the clock takes.
fn times(snapshot: &Snapshot, facts: &Facts, requests: &[Request]) -> String {
    let mut samples = Vec::with_capacity(requests.len() * ROUNDS);
    for round in 0..=ROUNDS {
        for request in requests {
            let taken = one(snapshot, facts, request);
            // The first round brings into the cache what fits there.
            if round > 0 {
                samples.push(taken);
            }
        }
    }
    percentiles(samples)
}

/// One decision about a request that was just made, as a server has it: it is in the cache, whatever of the rules is not.
fn one(snapshot: &Snapshot, facts: &Facts, request: &Request) -> Duration {
    let request = black_box(request.clone());
    let start = Instant::now();
    let decision = decide(snapshot, facts, &request);
    let taken = start.elapsed();
    drop(black_box(decision));
    taken
}

/// What reading the clock takes.
fn clock() -> Duration {
    let mut samples: Vec<Duration> = (0..1_000).map(|_| Instant::now().elapsed()).collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn percentiles(mut samples: Vec<Duration>) -> String {
    let clock = clock();
    samples.sort_unstable();
    let at = |share: usize| samples[samples.len() * share / 100].saturating_sub(clock).as_nanos();
    format!("{} / {}", at(50), at(99))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What the process has used of both cores, in hundredths of a second.
fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
    Duration::from_millis(fields.take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<usize>().ok()).unwrap_or_default() * 1024
}

/// A bundle, and requests for it as `POST /is_authorized` has them: without a condition to evaluate, and with one.
fn write(directory: &str, size: Size) {
    let directory = std::path::Path::new(directory);
    let bundle = common::bundle(size);
    for file in bundle.files() {
        let path = directory.join("policies").join(&*file.path);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the folder can be made");
        std::fs::write(path, &file.bytes).expect("the file can be written");
    }
    let snapshot = load(&bundle).expect("the bundle is right").snapshot;
    let common::Requests { plain, conditional } = common::requests(&snapshot, size, REQUESTS);
    let uid = |uid: &EntityUid| json!({ "type": uid.kind(), "id": uid.id() });
    for (name, requests) in [("plain", plain), ("conditional", conditional)] {
        let mut bodies = String::new();
        for Request { principal, action, resource, context, .. } in &requests {
            let (action, context) = (action.as_str(), context.to_json());
            let (principal, resource) = (uid(principal), uid(resource));
            let body = json!({ "principal": principal, "action": action, "resource": resource, "context": context });
            writeln!(bodies, "{body}").expect("a string takes all");
        }
        std::fs::write(directory.join(name).with_extension("jsonl"), bodies).expect("the file can be written");
    }
}
