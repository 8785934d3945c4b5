//! What the caller lends to a step: secrets, and the socket of an SSH agent. None of it is in a layer, a log or, by
//! value, a cache key.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::PathBuf;

use slipway_types::build::Secret;
use slipway_types::container::Mount;

use super::Build;
use super::mounts::{Planned, What};
use super::roots::prepare;
use crate::build::cache::StepKey;
use crate::build::dockerfile::{self, MountKind, Ownership};
use crate::build::error::{Fault, StepErrorKind};
use crate::store::Staging;

/// One thing that is lent.
pub(super) enum LentToStep {
    Secret {
        id: String,
        secret: Secret,
        /// Variable that holds it.
        env: Option<String>,
        owner: Ownership,
    },
    /// An agent's socket, on this host.
    Agent { id: String, socket: PathBuf },
}

type Expand<'e> = dyn Fn(&str) -> Result<String, Fault> + 'e;

impl Build<'_> {
    /// Finds a secret or an agent in the request; nothing when it is neither there nor required. `agents` is how many
    /// mounts of agents come before.
    pub(super) fn plan_lent(
        &self,
        mount: &dockerfile::Mount,
        agents: usize,
        expand: &Expand<'_>,
        inside: &Expand<'_>,
    ) -> Result<Option<Planned>, Fault> {
        let request = self.parts.request;
        match &mount.kind {
            MountKind::Secret { id, target, env, required, owner } => {
                let target = target.as_deref().map(inside).transpose()?;
                let id = match id {
                    Some(id) => expand(id)?,
                    None => {
                        let target = target.as_deref().unwrap_or_default();
                        target.rsplit('/').next().unwrap_or_default().to_owned()
                    }
                };
                let Some(secret) = request.secrets.get(&id).cloned() else {
                    if *required {
                        let hint =
                            format!("give it: `--secret id={id},src=FILE` or `--secret id={id},env=NAME`");
                        return Err(Fault::from(StepErrorKind::NoSecret(id)).hint(&hint));
                    }
                    return Ok(None);
                };
                let target = match (target, env) {
                    (Some(target), _) => target,
                    (None, Some(_)) => String::new(),
                    (None, None) => format!("/run/secrets/{id}"),
                };
                let lent = LentToStep::Secret { id, secret, env: env.clone(), owner: *owner };
                Ok(Some(Planned { target, what: What::Lent(lent) }))
            }
            MountKind::Ssh { id, target, required } => {
                let id = id.as_deref().map(expand).transpose()?.unwrap_or_else(|| "default".to_owned());
                let Some(socket) = request.ssh.get(&id).cloned() else {
                    if *required {
                        let hint =
                            format!("give it: `--ssh {id}` with SSH_AUTH_SOCK set, or `--ssh {id}=SOCKET`");
                        return Err(Fault::from(StepErrorKind::NoAgent(id)).hint(&hint));
                    }
                    return Ok(None);
                };
                if !fs::metadata(&socket).map_err(prepare(&socket))?.file_type().is_socket() {
                    return Err(StepErrorKind::NotAnAgent(socket).into());
                }
                let target = match target.as_deref() {
                    Some(target) => inside(target)?,
                    None => format!("/run/buildkit/ssh_agent.{agents}"),
                };
                Ok(Some(Planned { target, what: What::Lent(LentToStep::Agent { id, socket }) }))
            }
            _ => Ok(None),
        }
    }
}

impl LentToStep {
    pub(super) fn is_agent(&self) -> bool {
        matches!(self, Self::Agent { .. })
    }

    /// The variable that names or holds it.
    pub(super) fn variable(&self, target: &str) -> Result<Option<(String, String)>, Fault> {
        Ok(match self {
            Self::Agent { .. } => Some(("SSH_AUTH_SOCK".to_owned(), target.to_owned())),
            Self::Secret { env: None, .. } => None,
            Self::Secret { id, env: Some(name), secret, .. } => {
                let text = String::from_utf8(secret.0.clone()).ok().filter(|text| !text.contains('\0'));
                let text = text.ok_or_else(|| StepErrorKind::SecretNotText(id.clone()))?;
                Some((name.clone(), text))
            }
        })
    }

    pub(super) fn mount(&self, target: PathBuf, files: &mut SecretFiles) -> Result<Option<Mount>, Fault> {
        if target.as_os_str().is_empty() {
            return Ok(None);
        }
        let source = match self {
            Self::Agent { socket, .. } => socket.clone(),
            Self::Secret { secret, owner, .. } => files.add(secret, *owner)?,
        };
        Ok(Some(Mount::Bind { source, target, read_only: true }))
    }

    /// Names count for the cache; what a secret says does not.
    pub(super) fn add_to(&self, key: StepKey) -> StepKey {
        match self {
            Self::Secret { id, env, .. } => {
                key.text("kind", "secret").text("id", id).option("env", env.as_deref())
            }
            Self::Agent { id, .. } => key.text("kind", "ssh").text("id", id),
        }
    }
}

/// The files of a step's secrets, gone when this is dropped. The folder is root's own.
pub(super) struct SecretFiles {
    folder: PathBuf,
    count: usize,
}

impl SecretFiles {
    pub(super) fn new(staging: &Staging) -> Self {
        Self { folder: staging.path().join("secrets"), count: 0 }
    }

    fn add(&mut self, secret: &Secret, owner: Ownership) -> Result<PathBuf, StepErrorKind> {
        let path = self.folder.join(self.count.to_string());
        let mode = owner.mode.unwrap_or(0o400);
        let write = || {
            if self.count == 0 {
                fs::DirBuilder::new().mode(0o700).create(&self.folder)?;
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&secret.0)?;
            chown(&path, Some(owner.uid.unwrap_or(0)), Some(owner.gid.unwrap_or(0)))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().map_err(prepare(&path))?;
        self.count += 1;
        Ok(path)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        if self.count > 0
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(%error, folder = %self.folder.display(), "a step's secrets were not removed");
        }
    }
}
