//! The cost of the decision log on the thread that decides: the same decisions without a log, at level `forbids`
//! (permits are not recorded) and at level `all`, in files: `cargo bench --bench decision_log`.
//!
//! The records of `all` are written to the disk meanwhile, by the log's own thread. The pauses between batches of decisions
//! keep the queue from filling: a full queue would make dropping cheap records look like recording them.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench sets up a world of its own"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use tollgate::edge::clock::SystemClock;
use tollgate::edge::decision_log::{DecisionLogOptions, Destination, Level, Recorder};
use tollgate::gate::DecisionLog;
use tollgate::{Bundle, Engine, Request, SourceFile};

/// Decisions between two pauses: their records fit into the queue.
const AT_ONCE: u64 = 2_000;

fn engine(log: Option<Arc<dyn DecisionLog>>) -> Engine {
    let text = "users: [{ id: alice, team: research }]\nteams: [{ id: research }]\n\
                authz_rules: [{ id: research-chat, teams: [research], models: [\"openai-main/*\"] }]\n";
    let bundle = Bundle::new(vec![SourceFile::new("rules.yaml", text.as_bytes()).unwrap()]);
    let builder = Engine::builder().bundle(bundle);
    let builder = match log {
        Some(log) => builder.decision_log(log),
        None => builder,
    };
    builder.build().unwrap()
}

fn request() -> Request {
    let context = json!({ "ip": "10.1.2.3", "input_tokens": 900, "metadata": { "env": "prod" } });
    Request::new("User::\"alice\"".parse().unwrap(), "chat", "Model::\"openai-main/gpt-4o\"".parse().unwrap())
        .with_context(context.as_object().unwrap().clone())
}

fn decision_log(criterion: &mut Criterion) {
    let temp = tempfile::TempDir::new().unwrap();
    let mut group = criterion.benchmark_group("decision_log");
    for (name, level) in [("none", None), ("forbids", Some(Level::Forbids)), ("all", Some(Level::All))] {
        let recorder = level.map(|level| {
            let folder = Destination::Folder(temp.path().join(name));
            let options = DecisionLogOptions { level, ..DecisionLogOptions::new(folder) };
            Arc::new(Recorder::open(options, Arc::new(SystemClock)).unwrap())
        });
        let engine = engine(recorder.clone().map(|recorder| recorder as Arc<dyn DecisionLog>));
        let request = request();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut taken = Duration::ZERO;
                for first in (0..count).step_by(AT_ONCE as usize) {
                    let began = Instant::now();
                    for _ in first..count.min(first + AT_ONCE) {
                        black_box(engine.is_authorized(black_box(&request)).unwrap());
                    }
                    taken += began.elapsed();
                    while recorder.as_ref().is_some_and(|recorder| recorder.status().queued_bytes > 0) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                taken
            });
        });
        if let Some(recorder) = recorder {
            assert_eq!(recorder.status().lost, 0, "a record that is dropped costs less");
        }
    }
    group.finish();
}

criterion_group!(benches, decision_log);
criterion_main!(benches);
