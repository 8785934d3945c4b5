//! A model that is served: its queue, its workers, and whether it is ready.

mod run;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slipway_types::service::{Batch, RunnerConfig};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batcher::{Full, Limits, Queue, Ticket};
use crate::metrics::{Metrics, ModelMetrics};
use crate::signature::ModelSignature;
use crate::tensor::{NamedTensor, TensorView};
use crate::transport::{BadReply, GatherError, Inputs, Layout};
use crate::worker::WorkerOptions;

/// What is served, and how.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Model name.
    pub name: String,
    /// Another name that URLs may use: the service's.
    pub alias: String,
    /// Model version.
    pub version: u64,
    /// Labels of this version.
    pub labels: Vec<String>,
    /// Batching.
    pub batch: Batch,
    /// Largest request body in bytes.
    pub max_body: usize,
    /// Longest time for one prediction, and for a request with its time in the queue.
    pub timeout: Duration,
    /// How many processes hold the model.
    pub workers: usize,
    /// How each is started.
    pub worker: WorkerOptions,
}

impl ModelOptions {
    /// One worker for what a runner's configuration names.
    pub fn new(config: &RunnerConfig, worker: WorkerOptions) -> Self {
        Self {
            name: config.model.clone(),
            alias: config.service.clone(),
            version: config.version,
            labels: config.labels.clone(),
            batch: config.batch,
            max_body: usize::try_from(config.max_body).unwrap_or(usize::MAX),
            timeout: Duration::from_millis(config.timeout_ms.max(1)),
            workers: 1,
            worker,
        }
    }
}

/// Whether a model takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is loaded for the first time, or again after a worker ended.
    Starting {
        /// Why the last worker ended or could not be started; `None` at the first start.
        reason: Option<String>,
    },
    /// A worker's first prediction succeeded.
    Ready,
    /// It was told to stop.
    Stopped,
}

/// Why a request has no prediction.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PredictError {
    /// No worker is ready.
    #[error("the model is not ready: {0}")]
    NotReady(String),
    /// Too much waits already.
    #[error(transparent)]
    Full(#[from] Full),
    /// Its time is up.
    #[error("Request timeout expired: there was no answer after {0:?}")]
    Deadline(Duration),
    /// The worker ended while it had the request.
    #[error("the worker that had the request {0}; it is started again")]
    Died(String),
    /// The model did not answer in time; its worker is replaced.
    #[error("the model did not answer within {0:?}; its worker is started again")]
    Hung(Duration),
    /// The model refused the request.
    #[error("{text}")]
    Refused {
        /// HTTP status that the user's class asked for.
        status: Option<u16>,
        /// Why.
        text: String,
    },
    /// The worker's reply breaks the rules.
    #[error("the worker sent {0}; it is started again")]
    BadReply(BadReply),
    /// Requests were merged, but the outputs cannot be taken apart.
    #[error(
        "the model gave output {0}: its first dimension must be the batch, or the signature must say \"batch\": false"
    )]
    Uneven(String),
    /// It does not fit the shared memory.
    #[error("the request is too large")]
    TooLarge(#[source] GatherError),
}

/// What a model gave for one request.
#[derive(Clone, Debug)]
pub enum Prediction {
    /// Tensors, perhaps of a whole batch.
    Tensors {
        /// All rows of the batch.
        outputs: Arc<Vec<NamedTensor>>,
        /// The first row of this request, and how many it has; `None` for all.
        rows: Option<(usize, usize)>,
    },
    /// JSON of a class without a signature.
    Json(Bytes),
}

impl Prediction {
    /// Name and rows of each output; empty for JSON.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, TensorView<'_>)> + Clone {
        let (outputs, rows) = match self {
            Self::Tensors { outputs, rows } => (outputs.as_slice(), *rows),
            Self::Json(_) => (&[][..], None),
        };
        outputs.iter().map(move |output| {
            let view = match rows {
                Some((start, count)) => output.tensor.rows_view(start, count),
                None => output.tensor.view(),
            };
            (output.name.as_str(), view)
        })
    }
}

/// A handle of a model that is served. Clones share it.
#[derive(Clone, Debug)]
pub struct Model(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: ModelOptions,
    layout: Layout,
    metrics: ModelMetrics,
    epoch: Instant,
    queue: Mutex<Queue<Job>>,
    added: Notify,
    state: Mutex<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    ready: usize,
    /// Workers that load the model right now.
    loading: usize,
    /// Tries to load it in a row that failed.
    failures: u32,
    reason: Option<String>,
    signature: Option<Arc<ModelSignature>>,
}

impl State {
    /// As many failures in a row say that the next try will fail as well. One alone may be bad luck, and the try after
    /// it may take minutes that must not be cut short.
    const HOPELESS: u32 = 2;

    fn load_begins(&mut self) {
        self.loading += 1;
    }

    fn loaded(&mut self, signature: ModelSignature) {
        self.loading = self.loading.saturating_sub(1);
        self.failures = 0;
        self.ready += 1;
        self.reason = None;
        self.signature = Some(Arc::new(signature));
    }

    fn not_loaded(&mut self, reason: String) {
        self.loading = self.loading.saturating_sub(1);
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
    }

    fn load_failed(&self) -> bool {
        self.signature.is_none()
            && self.reason.is_some()
            && (self.loading == 0 || self.failures >= Self::HOPELESS)
    }
}

#[derive(Debug)]
struct Job {
    inputs: Inputs,
    reply: oneshot::Sender<Result<Prediction, PredictError>>,
}

impl Model {
    /// Starts its workers. Needs a tokio runtime with IO and time.
    pub fn start(options: ModelOptions, metrics: &Metrics) -> Self {
        let rows = options.batch.max_size.max(1) as usize;
        let layout = Layout::for_bodies(options.max_body, rows);
        let limits = Limits {
            max_rows: rows,
            max_bytes: layout.input / 2,
            max_delay: Duration::from_micros(options.batch.max_delay_us),
            queue_rows: options.batch.max_queue as usize,
            queue_bytes: layout.input,
        };
        let workers = options.workers.max(1);
        let model = Self(Arc::new(Shared {
            metrics: metrics.for_model(&options.name, options.version),
            options,
            layout,
            epoch: Instant::now(),
            queue: Mutex::new(Queue::new(limits)),
            added: Notify::new(),
            state: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        for _ in 0..workers {
            model.0.tasks.spawn(run::worker(model.0.clone()));
        }
        model.0.tasks.close();
        model
    }

    /// What it was started with.
    pub fn options(&self) -> &ModelOptions {
        &self.0.options
    }

    /// Its metrics.
    pub fn metrics(&self) -> &ModelMetrics {
        &self.0.metrics
    }

    /// Whether it takes requests.
    pub fn readiness(&self) -> Readiness {
        let state = self.0.state();
        if self.0.stop.is_cancelled() {
            Readiness::Stopped
        } else if state.ready > 0 {
            Readiness::Ready
        } else {
            Readiness::Starting { reason: state.reason.clone() }
        }
    }

    /// Whether it was never ready and the last try to load it failed. While it is tried again after a first failure, it
    /// is not known yet.
    pub fn load_failed(&self) -> bool {
        self.0.state().load_failed()
    }

    /// What it takes and gives; `None` until it was loaded once.
    pub fn signature(&self) -> Option<Arc<ModelSignature>> {
        self.0.state().signature.clone()
    }

    /// The signature, if it takes requests now.
    pub fn ready_signature(&self) -> Result<Arc<ModelSignature>, PredictError> {
        let state = self.0.state();
        match &state.signature {
            Some(signature) if state.ready > 0 => Ok(signature.clone()),
            _ => Err(PredictError::NotReady(self.0.why_not(&state))),
        }
    }

    /// Predicts. Tensors must fit the signature, in its order, and have equal first dimensions where it is batched.
    ///
    /// `limit` shortens the configured time. Dropping the future takes a request that still waits out of the queue.
    pub async fn predict(
        &self,
        signature: &ModelSignature,
        inputs: Inputs,
        limit: Option<Duration>,
    ) -> Result<Prediction, PredictError> {
        let shared = &self.0;
        let limit = limit.unwrap_or(shared.options.timeout).min(shared.options.timeout);
        let (rows, key) = merging(signature, &inputs);
        let bytes = inputs.arena_len();
        let (reply, answer) = oneshot::channel();
        let now = shared.epoch.elapsed();
        let ticket = {
            let mut queue = shared.queue();
            let ticket = queue.push(Job { inputs, reply }, rows, bytes, key, now, now + limit)?;
            shared.metrics.queue_rows.set(queue.rows() as i64);
            ticket
        };
        shared.added.notify_one();
        let mut waiting = Waiting { shared, ticket: Some(ticket) };
        let answer = timeout_at((shared.epoch + now + limit).into(), answer).await;
        match answer {
            Ok(answer) => {
                waiting.ticket = None;
                // A job is dropped without an answer only when its time was up.
                answer.unwrap_or(Err(PredictError::Deadline(limit)))
            }
            Err(_) => Err(PredictError::Deadline(limit)),
        }
    }

    /// Ends the workers. Requests that wait are refused.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.refuse_waiting();
        self.0.tasks.wait().await;
    }
}

/// Rows of a request, and what must be equal for it to be merged with another.
fn merging(signature: &ModelSignature, inputs: &Inputs) -> (usize, Option<Vec<usize>>) {
    let Inputs::Tensors(tensors) = inputs else { return (1, None) };
    if !signature.batched {
        return (1, None);
    }
    let mut open = Vec::new();
    for (tensor, spec) in tensors.iter().zip(&signature.inputs) {
        for (dim, accepted) in tensor.shape.iter().zip(&spec.shape).skip(1) {
            if *accepted == -1 {
                open.push(*dim);
            }
        }
    }
    (tensors.first().map_or(1, |t| t.rows()), Some(open))
}

struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut queue = self.shared.queue();
            queue.cancel(ticket);
            self.shared.metrics.queue_rows.set(queue.rows() as i64);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why_not(&self, state: &State) -> String {
        if self.stop.is_cancelled() {
            return "it is being stopped".to_owned();
        }
        state.reason.clone().unwrap_or_else(|| "it is being loaded".to_owned())
    }

    fn refuse_waiting(&self) {
        let reason = self.why_not(&self.state());
        let jobs = {
            let mut queue = self.queue();
            let jobs = queue.drain();
            self.metrics.queue_rows.set(0);
            jobs
        };
        for job in jobs {
            let _ = job.reply.send(Err(PredictError::NotReady(reason.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> ModelSignature {
        ModelSignature {
            name: "m".to_owned(),
            platform: "python".to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            batched: false,
            free_form: true,
        }
    }

    #[test]
    fn a_first_failure_says_nothing_of_the_try_after_it() {
        let mut state = State::default();
        state.load_begins();
        assert!(!state.load_failed());
        state.not_loaded("no memory".to_owned());
        assert!(state.load_failed());
        state.load_begins();
        assert!(!state.load_failed(), "it may take long and succeed");
        state.not_loaded("no memory".to_owned());
        state.load_begins();
        assert!(state.load_failed(), "a third try changes nothing");
        state.loaded(signature());
        assert!(!state.load_failed());
        state.load_begins();
        state.not_loaded("no memory".to_owned());
        assert!(!state.load_failed(), "it was ready once");
    }
}
