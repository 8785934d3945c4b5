//! One worker process, from its start to its end.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use slipway_types::model::ModelFormat;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::logs::{LogSink, Tail, pump};
use super::pids::{Registered, WorkerPids};
use crate::signature::{ModelSignature, SignatureError};
use crate::tensor::{NamedTensor, TensorData};
use crate::transport::frame::{self, collect};
use crate::transport::{Arena, ArenaError, BadReply, Channel, GatherError, Inputs, Layout, Reply, gather};

/// How long a worker may take from its end of the control socket to its end.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The Python interpreter.
    pub interpreter: PathBuf,
    /// [`crate::WORKER_SCRIPT`], where it lies.
    pub script: PathBuf,
    /// Format of the model.
    pub format: ModelFormat,
    /// Folder of the model's files.
    pub model_dir: PathBuf,
    /// Further folders where the user's modules may be.
    pub code_dirs: Vec<PathBuf>,
    /// Class of the user's, as `module:Class`.
    pub entry: Option<String>,
    /// How long loading and the first prediction may take.
    pub start_timeout: Duration,
    /// Where its output goes.
    pub log: LogSink,
    /// Learns its process id.
    pub pids: WorkerPids,
}

/// What the worker is told at its start, as JSON.
#[derive(Serialize)]
struct Hello<'a> {
    format: ModelFormat,
    model_dir: &'a PathBuf,
    code_dirs: &'a [PathBuf],
    entry: Option<&'a str>,
    input: usize,
    output: usize,
}

/// Why a worker did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No shared memory.
    #[error("cannot start a worker")]
    Arena(#[from] ArenaError),
    /// No control socket.
    #[error("cannot make the control socket of a worker")]
    Socket(#[source] io::Error),
    /// The interpreter cannot be executed.
    #[error("cannot execute the Python interpreter {}", program.display())]
    Spawn {
        /// The interpreter.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The model cannot be loaded, or its first prediction failed; the text is the worker's.
    #[error("{0}")]
    Load(String),
    /// It ended by itself.
    #[error("the worker {how} while it loaded the model{}{output}", if output.is_empty() { "" } else { ":\n" })]
    Died {
        /// How it ended.
        how: String,
        /// Its last lines of output.
        output: String,
    },
    /// It sent what it should not.
    #[error("the worker sent {0}")]
    BadReply(#[from] BadReply),
    /// It reported a signature that cannot be served.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It took too long.
    #[error("the model was not loaded after {0:?}")]
    Timeout(Duration),
}

/// Why a batch has no outputs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkerError {
    /// The worker ended; it must be replaced.
    #[error("the worker {0}")]
    Died(String),
    /// No reply in time; it must be replaced.
    #[error("the model did not answer within {0:?}")]
    Hung(Duration),
    /// It sent what it should not; it must be replaced.
    #[error("the worker sent {0}")]
    BadReply(#[from] BadReply),
    /// The model refused the batch.
    #[error("{text}")]
    Refused {
        /// HTTP status that the user's class asked for.
        status: Option<u16>,
        /// Why.
        text: String,
    },
    /// The batch cannot be sent.
    #[error(transparent)]
    Gather(#[from] GatherError),
}

/// What a batch gave.
#[derive(Debug)]
pub enum WorkerOutputs {
    /// Tensors.
    Tensors(Vec<NamedTensor>),
    /// One JSON value, unchecked.
    Json(Bytes),
}

/// A worker that is ready.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    channel: Channel,
    arena: Arena,
    frame: Vec<u8>,
    batch: u64,
    output_used: usize,
    group: Option<Pid>,
    _registered: Registered,
}

impl Worker {
    /// Starts a process and waits until its model is loaded and a first prediction succeeded.
    pub async fn start(
        options: &WorkerOptions,
        layout: Layout,
    ) -> Result<(Self, ModelSignature), StartError> {
        let arena = Arena::new(layout)?;
        let (channel, theirs) = Channel::pair().map_err(StartError::Socket)?;
        let mut child = Command::new(&options.interpreter)
            .arg("-u")
            .arg(&options.script)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that processes of the user's code end with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| StartError::Spawn { program: options.interpreter.clone(), source })?;
        let registered = options.pids.register(child.id());
        let tail = Tail::default();
        let mut pumps = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            pumps.push(tokio::spawn(pump(stdout, options.log.clone(), tail.clone())));
        }
        if let Some(stderr) = child.stderr.take() {
            pumps.push(tokio::spawn(pump(stderr, options.log.clone(), tail.clone())));
        }
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let mut worker = Self {
            child,
            channel,
            arena,
            frame: Vec::new(),
            batch: 0,
            output_used: 0,
            group,
            _registered: registered,
        };
        let started = timeout(options.start_timeout, worker.shake_hands(options)).await;
        let error = match started {
            Ok(Ok(signature)) => return Ok((worker, signature)),
            Ok(Err(error)) => error,
            Err(_) => StartError::Timeout(options.start_timeout),
        };
        worker.kill().await;
        Err(match error {
            StartError::Died { how, .. } => {
                // Its last words may still be in the pipe.
                for pump in pumps {
                    let _ = timeout(Duration::from_millis(200), pump).await;
                }
                StartError::Died { how, output: tail.text() }
            }
            error => error,
        })
    }

    async fn shake_hands(&mut self, options: &WorkerOptions) -> Result<ModelSignature, StartError> {
        let layout = self.arena.layout();
        let hello = Hello {
            format: options.format,
            model_dir: &options.model_dir,
            code_dirs: &options.code_dirs,
            entry: options.entry.as_deref(),
            input: layout.input,
            output: layout.output,
        };
        // Numbers and paths of a configuration that was JSON itself.
        let hello = serde_json::to_vec(&hello).map_err(|e| StartError::Socket(e.into()))?;
        let sent = self.channel.send_with_fd(&frame::hello(&hello), self.arena.fd()).await;
        let died = |how| StartError::Died { how, output: String::new() };
        if sent.is_err() {
            return Err(died(self.how_it_ended().await));
        }
        match self.next_reply().await {
            Ok(Reply::Ready { len }) => {
                let json = self.arena.read(0, len).map_err(BadReply::from)?;
                Ok(ModelSignature::from_json(&json)?)
            }
            Ok(Reply::Failed { text }) => Err(StartError::Load(text)),
            Ok(Reply::Result { id, .. } | Reply::Error { id, .. }) => Err(BadReply::Id(id).into()),
            Err(WorkerError::BadReply(error)) => Err(error.into()),
            Err(error) => Err(died(match error {
                WorkerError::Died(how) => how,
                error => error.to_string(),
            })),
        }
    }

    /// Predicts one batch: one request, or several whose tensors differ only in their first dimension, `rows` in all.
    pub async fn predict<'a>(
        &mut self,
        batch: impl ExactSizeIterator<Item = &'a Inputs> + Clone,
        rows: usize,
        limit: Duration,
    ) -> Result<(WorkerOutputs, Duration), WorkerError> {
        self.batch += 1;
        let used = gather(&mut self.arena, &mut self.frame, batch, rows, self.batch)?;
        if self.channel.send(&self.frame).await.is_err() {
            return Err(WorkerError::Died(self.how_it_ended().await));
        }
        let reply = timeout(limit, self.next_reply()).await.map_err(|_| WorkerError::Hung(limit))??;
        let result = match reply {
            Reply::Result { id, nanos, outputs, json } if id == self.batch => {
                self.output_used =
                    outputs.iter().map(|o| (o.offset + o.bytes) as usize).max().unwrap_or_default();
                let mut tensors = collect(&self.arena, outputs)?;
                let outputs = match tensors.pop() {
                    Some(NamedTensor { tensor, .. }) if json => match tensor.data {
                        TensorData::Fixed(text) => WorkerOutputs::Json(text),
                        TensorData::Strings { .. } => return Err(BadReply::Json.into()),
                    },
                    last => {
                        tensors.extend(last);
                        WorkerOutputs::Tensors(tensors)
                    }
                };
                Ok((outputs, Duration::from_nanos(nanos)))
            }
            Reply::Error { id, status, text } if id == self.batch => {
                Err(WorkerError::Refused { status: (400..500).contains(&status).then_some(status), text })
            }
            Reply::Result { id, .. } | Reply::Error { id, .. } => Err(BadReply::Id(id).into()),
            Reply::Ready { .. } => Err(BadReply::Kind(2).into()),
            Reply::Failed { .. } => Err(BadReply::Kind(6).into()),
        };
        self.arena.trim(used, std::mem::take(&mut self.output_used));
        result
    }

    /// Waits until it ends, or breaks the rules, though it has nothing to do.
    pub async fn idle(&mut self) -> WorkerError {
        match self.next_reply().await {
            Ok(Reply::Result { id, .. } | Reply::Error { id, .. }) => BadReply::Id(id).into(),
            Ok(Reply::Ready { .. }) => BadReply::Kind(2).into(),
            Ok(Reply::Failed { .. }) => BadReply::Kind(6).into(),
            Err(error) => error,
        }
    }

    /// Ends it with all processes that it started.
    pub async fn kill(mut self) {
        self.end_group();
        let _ = self.child.wait().await;
    }

    /// Lets it end by itself, for a moment, before it is killed.
    pub async fn stop(mut self) {
        self.channel.close();
        let _ = timeout(EXIT_TIME, self.child.wait()).await;
        self.kill().await;
    }

    async fn next_reply(&mut self) -> Result<Reply, WorkerError> {
        let layout = self.arena.layout();
        tokio::select! {
            biased;
            received = self.channel.receive() => match received {
                Ok(Some(bytes)) => return Ok(frame::reply(bytes, layout)?),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(BadReply::Short.into()),
                Err(_) => {}
            },
            // A process that it forked may hold the socket open beyond its end.
            status = self.child.wait() => return Err(WorkerError::Died(describe(status))),
        }
        Err(WorkerError::Died(self.how_it_ended().await))
    }

    async fn how_it_ended(&mut self) -> String {
        match timeout(EXIT_TIME, self.child.wait()).await {
            Ok(status) => describe(status),
            Err(_) => "closed its control socket".to_owned(),
        }
    }

    /// The number is taken while any process is in the group; and this runs so soon after a leader was waited for that
    /// no other process can have got it.
    fn end_group(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(9)) => "was killed by signal 9 (perhaps it had no memory left)".to_owned(),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("ended ({error})"),
    }
}
