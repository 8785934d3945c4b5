//! The library without a listener, as the gateway uses it.

mod harness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{MODEL, instances, prepare, python};
use hyper::{Method, Request};
use slipway_serving::http::Frontend;
use slipway_serving::metrics::Metrics;
use slipway_serving::model::{Model, ModelOptions, Readiness};
use slipway_serving::worker::{LogSink, WorkerOptions, WorkerPids};
use slipway_types::service::RunnerConfig;

fn predict(firsts: &[u32]) -> Request<http_body_util::Full<hyper::body::Bytes>> {
    let request = Request::builder().method(Method::POST).uri("/v1/models/adder:predict");
    request.body(instances(firsts).into()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_on_two_threads() {
    let folder = prepare(MODEL, |_| {});
    let config = std::fs::read(folder.path().join("runner.json")).unwrap();
    let config: RunnerConfig = serde_json::from_slice(&config).unwrap();
    let pids = WorkerPids::default();
    let worker = WorkerOptions {
        interpreter: python(),
        script: config.python_dir.join(slipway_serving::WORKER_SCRIPT),
        format: config.format,
        model_dir: config.model_dir.clone(),
        code_dirs: vec![],
        entry: None,
        start_timeout: Duration::from_secs(30),
        log: LogSink::new(|_| {}),
        pids: pids.clone(),
    };
    let metrics = Arc::new(Metrics::new());
    let model = Model::start(ModelOptions { workers: 2, ..ModelOptions::new(&config, worker) }, &metrics);
    let frontend = Frontend::new(vec![model.clone()], metrics.clone());
    let deadline = Instant::now() + Duration::from_secs(20);
    while model.metrics().worker_ready.get() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((model.readiness(), pids.all().len()), (Readiness::Ready, 2));

    // Each request sleeps 0.4 s: both are done sooner than one after the other.
    let started = Instant::now();
    let first = tokio::spawn({
        let frontend = frontend.clone();
        async move { frontend.handle(predict(&[444])).await.status() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = frontend.handle(predict(&[444])).await.status();
    assert_eq!((first.await.unwrap().as_u16(), second.as_u16()), (200, 200));
    assert!(started.elapsed() < Duration::from_millis(780), "{:?}", started.elapsed());

    // One dies; the other goes on, so the model stays ready.
    assert_eq!(frontend.handle(predict(&[666])).await.status(), 503);
    assert_eq!(model.readiness(), Readiness::Ready);
    assert_eq!(frontend.handle(predict(&[1])).await.status(), 200);

    // A caller that gives up takes its request back: nobody dies of it.
    while model.metrics().worker_ready.get() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut busy = Vec::new();
    for _ in 0..2 {
        let frontend = frontend.clone();
        busy.push(tokio::spawn(async move { frontend.handle(predict(&[444])).await.status() }));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let given_up = tokio::time::timeout(Duration::from_millis(20), frontend.handle(predict(&[666]))).await;
    assert!(given_up.is_err());
    for request in busy {
        assert_eq!(request.await.unwrap(), 200);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(model.metrics().worker_ready.get(), 2);

    model.stop().await;
    assert_eq!((model.readiness(), pids.all().len()), (Readiness::Stopped, 0));
    assert_eq!(frontend.handle(predict(&[1])).await.status(), 503);
}
