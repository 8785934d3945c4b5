//! The task of one worker: start it, hand it batches, replace it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Job, PredictError, Prediction, Shared};
use crate::batcher::{Batch, Entry, Take};
use crate::signature::ModelSignature;
use crate::tensor::NamedTensor;
use crate::worker::{Backoff, StartError, Worker, WorkerError, WorkerOutputs};

/// Runs until the model is stopped.
pub(super) async fn worker(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    loop {
        shared.state().load_begins();
        let started = tokio::select! {
            started = Worker::start(&shared.options.worker, shared.layout) => started,
            () = shared.stop.cancelled() => return,
        };
        let lived = match started {
            Ok((worker, signature)) => {
                let since = Instant::now();
                shared.ready(signature);
                if serve(&shared, worker).await == End::Stopped {
                    shared.not_ready(None);
                    return;
                }
                since.elapsed()
            }
            Err(error) => {
                shared.not_started(&error);
                Duration::ZERO
            }
        };
        tokio::select! {
            () = sleep(backoff.next(lived)) => shared.metrics.worker_restarts.inc(),
            () = shared.stop.cancelled() => return,
        };
    }
}

/// Why a worker is not served any more.
#[derive(PartialEq, Eq)]
enum End {
    /// The model is stopped.
    Stopped,
    /// It ended or misbehaved; the model's state says why.
    Replace,
}

/// Hands batches to a worker as long as it can take them.
async fn serve(shared: &Shared, mut worker: Worker) -> End {
    loop {
        let batch = tokio::select! {
            biased;
            () = shared.stop.cancelled() => {
                worker.stop().await;
                return End::Stopped;
            }
            batch = next_batch(shared) => batch,
            error = worker.idle() => {
                shared.not_ready(Some(error.to_string()));
                worker.kill().await;
                return End::Replace;
            }
        };
        if run(shared, &mut worker, batch).await.is_break() {
            worker.kill().await;
            return End::Replace;
        }
    }
}

/// Waits for requests. Nothing is lost when the future is dropped: it has no await after a batch was taken.
async fn next_batch(shared: &Shared) -> Batch<Job> {
    loop {
        let mut expired = Vec::new();
        let take = {
            let mut queue = shared.queue();
            let take = queue.take(shared.epoch.elapsed(), &mut expired);
            shared.metrics.queue_rows.set(queue.rows() as i64);
            if matches!(take, Take::Batch(_)) && !queue.is_empty() {
                // For another worker that is idle.
                shared.added.notify_one();
            }
            take
        };
        // Their callers have stopped waiting by their own clock.
        drop(expired);
        match take {
            Take::Batch(batch) => return batch,
            Take::Empty => shared.added.notified().await,
            Take::Wait(until) => {
                let wait = until.saturating_sub(shared.epoch.elapsed());
                tokio::select! {
                    () = sleep(wait) => {}
                    () = shared.added.notified() => {}
                }
            }
        }
    }
}

/// Predicts one batch and answers its requests. Breaks when the worker must be replaced; it counts as not ready then,
/// before anyone is told of the failure, so that a client that comes back does not meet it again.
async fn run(shared: &Shared, worker: &mut Worker, batch: Batch<Job>) -> ControlFlow<()> {
    let now = shared.epoch.elapsed();
    let Batch { mut entries, .. } = batch;
    entries.retain(|entry| !entry.item.reply.is_closed());
    for entry in &entries {
        shared.metrics.queue_duration.observe(now.saturating_sub(entry.arrived).as_secs_f64());
    }
    if entries.is_empty() {
        return ControlFlow::Continue(());
    }
    match predict(shared, worker, &entries).await {
        Ok(outputs) => answer(entries, outputs),
        // One bad request must not fail its neighbours: each is tried alone.
        Err(WorkerError::Refused { .. }) if entries.len() > 1 => {
            let mut rest = entries.into_iter();
            while let Some(entry) = rest.next() {
                let alone = [entry];
                let result = predict(shared, worker, &alone).await;
                let [entry] = alone;
                match result {
                    Ok(outputs) => answer(vec![entry], outputs),
                    Err(error) => {
                        if is_fatal(&error) {
                            shared.not_ready(Some(error.to_string()));
                            refuse([entry].into_iter().chain(rest), &error);
                            return ControlFlow::Break(());
                        }
                        refuse([entry], &error);
                    }
                }
            }
        }
        Err(error) if is_fatal(&error) => {
            shared.not_ready(Some(error.to_string()));
            refuse(entries, &error);
            return ControlFlow::Break(());
        }
        Err(error) => refuse(entries, &error),
    }
    ControlFlow::Continue(())
}

async fn predict(
    shared: &Shared,
    worker: &mut Worker,
    entries: &[Entry<Job>],
) -> Result<WorkerOutputs, WorkerError> {
    let rows: usize = entries.iter().map(|entry| entry.rows).sum();
    shared.metrics.batch_size.observe(rows as f64);
    let inputs = entries.iter().map(|entry| &entry.item.inputs);
    let (outputs, took) = worker.predict(inputs, rows, shared.options.timeout).await?;
    shared.metrics.inference_duration.observe(took.as_secs_f64());
    Ok(outputs)
}

fn is_fatal(error: &WorkerError) -> bool {
    match error {
        WorkerError::Died(_) | WorkerError::Hung(_) | WorkerError::BadReply(_) => true,
        WorkerError::Refused { .. } | WorkerError::Gather(_) => false,
    }
}

fn answer(entries: Vec<Entry<Job>>, outputs: WorkerOutputs) {
    let outputs = match outputs {
        WorkerOutputs::Tensors(outputs) => outputs,
        WorkerOutputs::Json(text) => {
            for entry in entries {
                let _ = entry.item.reply.send(Ok(Prediction::Json(text.clone())));
            }
            return;
        }
    };
    let rows: usize = entries.iter().map(|entry| entry.rows).sum();
    let merged = entries.len() > 1;
    if merged && let Some(uneven) = outputs.iter().find(|o| o.tensor.shape.first() != Some(&rows)) {
        let error = PredictError::Uneven(shape_of(uneven, rows));
        for entry in entries {
            let _ = entry.item.reply.send(Err(error.clone()));
        }
        return;
    }
    let outputs = Arc::new(outputs);
    let mut start = 0;
    for entry in entries {
        let rows = merged.then_some((start, entry.rows));
        start += entry.rows;
        let _ = entry.item.reply.send(Ok(Prediction::Tensors { outputs: outputs.clone(), rows }));
    }
}

fn shape_of(output: &NamedTensor, rows: usize) -> String {
    format!("\"{}\" of shape {:?} for a batch of {rows} rows", output.name, output.tensor.shape)
}

fn refuse(entries: impl IntoIterator<Item = Entry<Job>>, error: &WorkerError) {
    let error = match error {
        WorkerError::Died(how) => PredictError::Died(how.clone()),
        WorkerError::Hung(limit) => PredictError::Hung(*limit),
        WorkerError::BadReply(bad) => PredictError::BadReply(bad.clone()),
        WorkerError::Refused { status, text } => {
            PredictError::Refused { status: *status, text: text.clone() }
        }
        WorkerError::Gather(error) => PredictError::TooLarge(error.clone()),
    };
    for entry in entries {
        let _ = entry.item.reply.send(Err(error.clone()));
    }
}

impl Shared {
    fn ready(&self, signature: ModelSignature) {
        tracing::info!(model = self.options.name, signature = signature.expects(), "the model is ready");
        let mut state = self.state();
        state.loaded(signature);
        self.metrics.worker_ready.set(state.ready as i64);
    }

    fn not_ready(&self, reason: Option<String>) {
        let none_left = {
            let mut state = self.state();
            state.ready -= 1;
            if let Some(reason) = reason {
                tracing::warn!(model = self.options.name, reason, "a worker is replaced");
                state.reason = Some(reason);
            }
            self.metrics.worker_ready.set(state.ready as i64);
            state.ready == 0
        };
        if none_left {
            self.refuse_waiting();
        }
    }

    fn not_started(&self, error: &StartError) {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        // The whole of it is in the worker's own output and in the answer of the health check.
        let first_line = reason.lines().next().unwrap_or_default();
        tracing::warn!(model = self.options.name, reason = first_line, "a worker did not become ready");
        self.state().not_loaded(reason);
    }
}
