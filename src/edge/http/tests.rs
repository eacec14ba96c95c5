//! Handlers whose clients go away while they wait, and work that panics on another thread or in another task.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, mpsc};

use http_body_util::BodyExt as _;
use hyper::header::HeaderMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::app::App;
use super::errors::{ApiError, ErrorCode};
use super::metrics;
use super::options::HttpOptions;
use super::run::{run_blocking, run_blocking_with, run_uncancelled};
use super::services::Services;
use crate::engine::{Engine, EngineBuilder};
use crate::policy::{Bundle, SourceFile};

const RULES: &str = "authz_rules: [{ users: [a], models: \"*\" }]\nlimits: [{ id: few, users: [a], budget: { input_tokens: 100, \
                     every: total }, warn_at: [50] }]\n";

fn engine() -> EngineBuilder {
    Engine::builder().bundle(Bundle::new(SourceFile::new("rules.yaml", RULES.as_bytes()).into_iter().collect()))
}

fn app(engine: Engine) -> Arc<App> {
    Arc::new(App::new(Services::new(engine), &HttpOptions::default()))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn has_counted(app: &App, panics: u64) -> bool {
    let metrics = metrics::answer(app, &HeaderMap::new()).into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&metrics).contains(&format!("\ntollgate_panics_total {panics}\n"))
}

#[test]
fn work_that_goes_on_without_its_client_holds_its_permit() {
    runtime().block_on(client_goes_away());
}

async fn client_goes_away() {
    let app = app(engine().build().unwrap());
    let pool = Arc::new(Semaphore::new(1));
    let ((started, has_started), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
    let client = {
        let (app, pool) = (Arc::clone(&app), Arc::clone(&pool));
        tokio::spawn(async move {
            let work = move |_: &App| {
                started.send(()).unwrap();
                let _ = ended.recv();
            };
            run_blocking_with(&app, &pool, work).await
        })
    };
    has_started.recv().unwrap();
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(pool.available_permits(), 0, "the work still runs");
    end.send(()).unwrap();
    drop(pool.acquire().await.unwrap());
}

#[test]
fn a_panic_on_another_thread_or_in_another_task_is_counted_once() {
    runtime().block_on(work_panics());
}

async fn work_panics() {
    let app = app(engine().build().unwrap());
    let message = "no decision could be made; the server's log says why";
    let on_thread = run_blocking::<(), _>(&app, |_| panic!("on a thread")).await;
    assert_eq!(on_thread.unwrap_err(), ApiError::new(ErrorCode::Unavailable, message));
    assert!(has_counted(&app, 1).await);
    let in_task = run_uncancelled::<(), _>(&app, |_| async {
        tokio::task::yield_now().await;
        panic!("in a task")
    });
    assert_eq!(in_task.await.unwrap_err(), ApiError::new(ErrorCode::Unavailable, message));
    assert!(has_counted(&app, 2).await);
}
