//! The output of a run comes back as a tar, through a pod that mounts it.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::{RunError, Runs, phase};
use crate::apply::ApplyOptions;
use crate::client::{ExecError, ExecOptions};
use crate::reason;
use crate::render::inventory::Doomed;
use crate::render::{
    COLLECTOR_LABEL, METRICS_FILE, MODEL_FOLDER, output_place, rank_output, render_collector,
};
use crate::spec::TrainingRun;

/// How long the pod may take to start.
const START_TIME: Duration = Duration::from_secs(300);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(120);
const CHUNK: usize = 1 << 20;
const RUNNER: &str = "/slipway/slipway-runner";

/// Why the output did not come back.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The pod cannot be made.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It does not start.
    #[error("the pod that fetches the output of run {run} does not start: {reason}")]
    NotStarted {
        /// Which run.
        run: String,
        /// Why.
        reason: String,
    },
    /// The program in it did not run, or the connection broke.
    #[error("cannot fetch the output of run {run}")]
    Exec {
        /// Which run.
        run: String,
        /// Why.
        #[source]
        source: ExecError,
    },
    /// It failed.
    #[error("the output of run {run} cannot be read (exit code {code}): {message}")]
    Failed {
        /// Which run.
        run: String,
        /// Exit code.
        code: u8,
        /// What the program says.
        message: String,
    },
    /// It came to a standstill.
    #[error("nothing came of the output of run {run} for {} s", .limit.as_secs())]
    Silent {
        /// Which run.
        run: String,
        /// The limit.
        limit: Duration,
    },
    /// It cannot be written here.
    #[error("cannot write the output of run {run}")]
    Write {
        /// Which run.
        run: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The claim that the output of a run is in.
pub fn output_claim(run: &TrainingRun) -> Option<String> {
    output_place(run).ok().map(|(claim, _)| claim)
}

/// Folder of the model in that claim.
pub fn model_folder(run: &TrainingRun) -> String {
    let inside = rank_output(run, "0");
    let inside = inside.trim_start_matches("/output").trim_start_matches('/');
    let own = output_place(run).ok().and_then(|(_, folder)| folder);
    let parts = [own.as_deref().unwrap_or_default(), inside, MODEL_FOLDER];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

impl CollectError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Run(error) => error.is_transient(),
            Self::NotStarted { .. } | Self::Exec { .. } | Self::Silent { .. } => true,
            Self::Failed { .. } | Self::Write { .. } => false,
        }
    }
}

impl Runs {
    /// Writes, as a tar, the model and the metrics of the first rank, as `model` and `metrics.jsonl`: what of them is there.
    /// Returns how many bytes it has. What was written before a failure is not complete: write aside, and begin anew.
    pub async fn collect(
        &self,
        run: &TrainingRun,
        to: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, CollectError> {
        let pod = self.collector(run).await?;
        let copied = self.copy(run, &pod, to).await;
        // Removed in any case; what is left after a failure here goes with the run.
        if let Err(error) = self.remove_collector(run).await {
            tracing::warn!(run = run.run, %error, "the pod that fetched the output is not removed yet");
        }
        copied
    }

    async fn collector(&self, run: &TrainingRun) -> Result<String, CollectError> {
        let refused = |error| CollectError::Run(Self::apply_error(run, error));
        let mut rendered = render_collector(run).map_err(|error| refused(error.into()))?;
        self.inventory.adopt(&mut rendered.objects).await.map_err(refused)?;
        self.applier.apply_all(&rendered.objects, ApplyOptions::default()).await.map_err(refused)?;
        let until = Instant::now() + START_TIME;
        let mut changes = self.store.subscribe();
        let label = phase::mapped(run);
        loop {
            let snapshot = self.store.snapshot();
            let events = snapshot.events();
            let mut why = "its pod has not been made".to_owned();
            let of = |pod: &&Value| {
                pod["metadata"]["labels"][COLLECTOR_LABEL] == label.as_str()
                    && pod["metadata"]["deletionTimestamp"].is_null()
            };
            for pod in snapshot.of("Pod").iter().map(|pod| &**pod).filter(of) {
                if pod["status"]["phase"] == "Running" {
                    return Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
                }
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                if let Some(reason) = reason::pod(pod, events.get(uid).map_or(&[][..], Vec::as_slice)) {
                    why = reason.text;
                }
            }
            if tokio::time::timeout_at(until, changes.changed()).await.is_err() {
                return Err(CollectError::NotStarted { run: run.run.clone(), reason: why });
            }
        }
    }

    async fn copy(
        &self,
        run: &TrainingRun,
        pod: &str,
        to: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<u64, CollectError> {
        let name = || run.run.clone();
        let folder = rank_output(run, "0");
        let options = ExecOptions {
            command: [RUNNER, "archive", &folder, MODEL_FOLDER, METRICS_FILE].map(str::to_owned).into(),
            ..ExecOptions::default()
        };
        let failed = |source| CollectError::Exec { run: name(), source };
        let mut process = self.applier.cluster().exec(&run.namespace, pod, &options).await.map_err(failed)?;
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let said = tokio::spawn(async move {
            let mut text = Vec::new();
            if let Some(stderr) = stderr {
                let _ = stderr.take(8 << 10).read_to_end(&mut text).await;
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let mut total = 0;
        if let Some(mut stdout) = stdout {
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = tokio::time::timeout(SILENCE, stdout.read(&mut chunk))
                    .await
                    .map_err(|_| CollectError::Silent { run: name(), limit: SILENCE })?
                    .map_err(|source| CollectError::Write { run: name(), source })?;
                if read == 0 {
                    break;
                }
                to.write_all(&chunk[..read])
                    .await
                    .map_err(|source| CollectError::Write { run: name(), source })?;
                total += read as u64;
            }
        }
        to.flush().await.map_err(|source| CollectError::Write { run: name(), source })?;
        let code = process.exit_code().await.map_err(failed)?;
        let message = said.await.unwrap_or_default();
        if code == 0 { Ok(total) } else { Err(CollectError::Failed { run: name(), code, message }) }
    }

    async fn remove_collector(&self, run: &TrainingRun) -> Result<(), crate::apply::ApplyError> {
        for object in render_collector(run)?.objects {
            let resource = self.applier.discovery().resource(object.api_version(), object.kind()).await?;
            let live =
                self.applier.cluster().get_metadata(&resource, object.namespace(), object.name()).await;
            let uid = match live {
                Ok(Some(live)) if self.inventory.set().has(&live) => {
                    live["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
                }
                Ok(_) => continue,
                Err(source) => {
                    let namespace = object.namespace().to_owned();
                    return Err(crate::apply::ApplyError::Inventory { namespace, source });
                }
            };
            let api_version = object.api_version().to_owned();
            self.inventory.delete(&Doomed { key: object.key(), api_version, uid }).await?;
        }
        Ok(())
    }
}
