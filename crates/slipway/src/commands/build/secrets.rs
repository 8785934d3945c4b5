//! `--secret` and `--ssh` of `slipway build`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use slipway_types::build::Secret;

use crate::failure::{self, Failure};

/// Reads `id=NAME[,src=FILE|,env=VARIABLE]` for each; without either, the variable or else the file of that name.
pub(super) fn secrets(values: &[String]) -> Result<BTreeMap<String, Secret>, Failure> {
    let mut all = BTreeMap::new();
    for value in values {
        let wrong = |reason: &str| {
            Failure::usage(format!("--secret `{value}`: {reason}; expected id=NAME[,src=FILE|,env=VARIABLE]"))
        };
        let (mut id, mut source, mut variable) = (None, None, None);
        for field in value.split(',') {
            match field.split_once('=') {
                Some(("id", text)) if !text.is_empty() => id = Some(text),
                Some(("src" | "source", text)) if !text.is_empty() => source = Some(text),
                Some(("env", text)) if !text.is_empty() => variable = Some(text),
                Some(("type", "file" | "env")) => {}
                _ => return Err(wrong(&format!("`{field}` is not understood"))),
            }
        }
        let id = id.or(source).ok_or_else(|| wrong("it has no id"))?;
        if source.is_some() && variable.is_some() {
            return Err(wrong("`src` and `env` exclude each other"));
        }
        // As Docker has it: `type=env,src=NAME` is a variable too.
        let is_variable = value.split(',').any(|field| field == "type=env");
        let variable = variable.or(if is_variable { source.or(Some(id)) } else { None });
        let secret = match (variable, source) {
            (Some(variable), _) => from_variable(variable)
                .ok_or_else(|| wrong(&format!("the variable `{variable}` is not set")))?,
            (None, Some(file)) => from_file(Path::new(file))?,
            (None, None) => match from_variable(id) {
                Some(secret) => secret,
                None => from_file(Path::new(id))?,
            },
        };
        if secret.0.len() > Secret::MAX {
            return Err(wrong(&format!("it has more than {} bytes", Secret::MAX)));
        }
        if all.insert(id.to_owned(), secret).is_some() {
            return Err(wrong("this id is given twice"));
        }
    }
    Ok(all)
}

fn from_variable(name: &str) -> Option<Secret> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os(name).map(|value| Secret(value.into_vec()))
}

fn from_file(path: &Path) -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failure::io("read the secret", path, &error))?;
    file.take(Secret::MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure::io("read the secret", path, &error))?;
    Ok(Secret(bytes))
}

/// Reads `default` or `NAME[=SOCKET]` for each; without a socket it is the agent of `SSH_AUTH_SOCK`.
pub(super) fn agents(values: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut all = BTreeMap::new();
    for value in values {
        let wrong =
            |reason: &str| Failure::usage(format!("--ssh `{value}`: {reason}; expected NAME[=SOCKET]"));
        let (id, socket) = match value.split_once('=') {
            Some((id, socket)) => (id, PathBuf::from(socket)),
            None => {
                let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
                (&**value, socket.map(PathBuf::from).ok_or_else(|| wrong("SSH_AUTH_SOCK is not set"))?)
            }
        };
        if id.is_empty() {
            return Err(wrong("the name is empty"));
        }
        let socket =
            socket.canonicalize().map_err(|error| failure::io("open the agent's socket", &socket, &error))?;
        if !socket.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
            return Err(wrong(
                "it is no agent's socket (keys themselves are not taken: add them to an agent)",
            ));
        }
        all.insert(id.to_owned(), socket);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, b"hunter2\n\xff").unwrap();
        let given = [format!("id=a,src={}", file.display()), "id=b,env=PATH".into(), "id=PATH".into()];
        let all = secrets(&given).unwrap();
        assert_eq!(all["a"].0, b"hunter2\n\xff");
        assert_eq!(all["b"], all["PATH"]);
        for bad in
            ["", "id=", "src=x,env=y,id=z", "id=a,env=SURELY_NOT_SET", "id=a,src=/does/not/exist", "x=y"]
        {
            assert!(secrets(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(secrets(&["id=a,env=PATH".into(), "id=a,env=PATH".into()]).is_err());
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent").canonicalize().unwrap_or_else(|_| dir.path().join("agent"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let all = agents(&[format!("default={}", socket.display())]).unwrap();
        assert_eq!(all["default"], socket.canonicalize().unwrap());
        assert!(agents(&[format!("default={}", dir.path().display())]).is_err());
        assert!(agents(&["=x".into()]).is_err());
    }
}
