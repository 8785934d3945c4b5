//! Programs in containers.

use std::pin::Pin;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ApiError, Cluster};

/// Bytes of output that wait to be read; a program that writes more waits.
const BUFFER: usize = 1 << 20;

/// What is run and what is connected.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Container; the only one when absent.
    pub container: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it reads from us.
    pub stdin: bool,
    /// Whether it has a terminal; then its errors come with its output.
    pub terminal: bool,
}

/// Why a program did not run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("cannot run `{program}` in pod {pod}")]
    Start {
        /// The program.
        program: String,
        /// Where.
        pod: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The connection broke before it ended.
    #[error("the connection to `{program}` in pod {pod} broke off")]
    Broken {
        /// The program.
        program: String,
        /// Where.
        pod: String,
    },
    /// The node could not run it.
    #[error("`{program}` did not run in pod {pod}: {message}")]
    NotRun {
        /// The program.
        program: String,
        /// Where.
        pod: String,
        /// What the node says.
        message: String,
    },
}

/// A program that runs in a container. Dropped, it loses its connection.
pub struct Process {
    inner: AttachedProcess,
    program: String,
    pod: String,
}

/// The size of a program's terminal.
pub struct Resizer(Box<dyn FnMut(TerminalSize) + Send>);

impl Resizer {
    /// Tells a new size, in characters. Says nothing when the program has ended, or has sizes enough to read.
    pub fn resize(&mut self, width: u16, height: u16) {
        (self.0)(TerminalSize { width, height });
    }
}

impl Cluster {
    /// Starts a program in a container.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        options: &ExecOptions,
    ) -> Result<Process, ExecError> {
        let program = options.command.first().cloned().unwrap_or_default();
        let params = AttachParams {
            container: options.container.clone(),
            stdin: options.stdin,
            stdout: true,
            stderr: !options.terminal,
            tty: options.terminal,
            max_stdin_buf_size: Some(BUFFER),
            max_stdout_buf_size: Some(BUFFER),
            max_stderr_buf_size: Some(BUFFER),
        };
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let inner =
            pods.exec(pod, options.command.clone(), &params).await.map_err(|source| ExecError::Start {
                program: program.clone(),
                pod: pod.to_owned(),
                source: self.unreachable(source),
            })?;
        Ok(Process { inner, program, pod: pod.to_owned() })
    }
}

impl Process {
    /// Its input; once.
    pub fn stdin(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.inner.stdin().map(|writer| Box::pin(writer) as _)
    }

    /// Its output; once. Whoever does not read it keeps the program from going on.
    pub fn stdout(&mut self) -> Option<Pin<Box<dyn AsyncRead + Send>>> {
        self.inner.stdout().map(|reader| Box::pin(reader) as _)
    }

    /// Its errors; once.
    pub fn stderr(&mut self) -> Option<Pin<Box<dyn AsyncRead + Send>>> {
        self.inner.stderr().map(|reader| Box::pin(reader) as _)
    }

    /// Changes the size of its terminal; once.
    pub fn resizer(&mut self) -> Option<Resizer> {
        let mut sender = self.inner.terminal_size()?;
        Some(Resizer(Box::new(move |size| {
            let _ = sender.try_send(size);
        })))
    }

    /// Its exit code, once it ended. Outputs that were not taken are dropped.
    pub async fn exit_code(mut self) -> Result<u8, ExecError> {
        let status = match self.inner.take_status() {
            Some(status) => status.await,
            None => None,
        };
        let Some(status) = status else {
            return Err(ExecError::Broken { program: self.program, pod: self.pod });
        };
        if status.status.as_deref() == Some("Success") {
            return Ok(0);
        }
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        let code = causes
            .iter()
            .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
            .and_then(|cause| cause.message.as_deref()?.parse::<i64>().ok());
        match code {
            Some(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            None => Err(ExecError::NotRun {
                program: self.program,
                pod: self.pod,
                message: status.message.unwrap_or_default(),
            }),
        }
    }
}
