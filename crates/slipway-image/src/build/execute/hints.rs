//! What to do about a RUN step that failed, for the failures that beginners meet most.

use slipway_types::container::NetworkMode;

/// Looks for a known failure in a step's last lines.
pub(super) fn hint(code: u8, oom_killed: bool, network: NetworkMode, lines: &[String]) -> Option<String> {
    if oom_killed {
        return Some(
            "give the machine more memory, or make the step need less: smaller batches, fewer jobs".into(),
        );
    }
    let find = |needles: &[&str]| -> Option<&String> {
        lines.iter().rev().find(|line| needles.iter().any(|needle| line.contains(needle)))
    };
    let unreachable = find(&[
        "Temporary failure in name resolution",
        "Temporary failure resolving",
        "Could not resolve host",
        "Could not resolve '",
        "Network is unreachable",
        "Failed to establish a new connection",
        "Name or service not known",
    ]);
    if unreachable.is_some() {
        let offline = "this step runs with `--network none`; leave that out to let it reach the network";
        let proxy = "the step could not reach the network; behind a proxy, pass `--build-arg HTTPS_PROXY=…`";
        return Some(if network == NetworkMode::None { offline } else { proxy }.into());
    }
    if find(&["CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "SSL certificate problem"]).is_some()
    {
        return Some("pass the certificates that this network needs with `--ca-certificates FILE`".into());
    }
    if find(&["No space left on device"]).is_some() {
        return Some("free space, for example with `slipway system prune`, and build again".into());
    }
    if find(&["externally-managed-environment"]).is_some() {
        return Some(
            "this Python belongs to the system: install into a virtual environment (`python3 -m venv /venv`), \
             or add `--break-system-packages` to pip"
                .into(),
        );
    }
    if let Some(line) = find(&["No such file or directory", "can't open file", "No such file"]) {
        return Some(format!(
            "`{}`: COPY the file into the image before this step, and look at WORKDIR: paths count from there",
            shorten(line)
        ));
    }
    if code == 127 || find(&["command not found", ": not found"]).is_some() {
        let missing = find(&["not found"]).and_then(|line| missing_command(line));
        return Some(match missing {
            Some("pip" | "pip3" | "python" | "python3") => {
                "the image has no Python: begin with an image that has it (`FROM python:3.12-slim`), or install \
                 it first (`apt-get update && apt-get install -y python3-pip`)"
                    .into()
            }
            Some(command) => format!("`{command}` is not in the image: install it in an earlier RUN step"),
            None => "a program is not in the image: install it in an earlier RUN step".into(),
        });
    }
    if code == 126 || find(&["Permission denied"]).is_some() {
        return Some("look at USER, and at the file's mode (`COPY --chmod=755`, `--chown=`)".into());
    }
    if code == 137 {
        return Some("the step was killed (signal 9), often for lack of memory".into());
    }
    None
}

/// The command in `/bin/sh: 1: pip: not found` or `bash: pip: command not found`.
fn missing_command(line: &str) -> Option<&str> {
    let before = line.split(": command not found").next().filter(|part| part.len() < line.len());
    let before = before.or_else(|| line.split(": not found").next())?;
    let name = before.rsplit(": ").next()?.trim();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

fn shorten(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_failures_get_a_hint() {
        for (code, network, line, expected) in [
            (127, NetworkMode::Host, "/bin/sh: 1: pip: not found", "no Python"),
            (127, NetworkMode::Host, "bash: line 1: jq: command not found", "`jq` is not in the image"),
            (
                1,
                NetworkMode::Host,
                "ERROR: Could not open requirements file: [Errno 2] No such file or directory: 'r.txt'",
                "COPY the file",
            ),
            (2, NetworkMode::Host, "python3: can't open file '/x/train.py': [Errno 2]", "WORKDIR"),
            (100, NetworkMode::None, "Temporary failure resolving 'deb.debian.org'", "--network none"),
            (100, NetworkMode::Host, "curl: (6) Could not resolve host: x", "HTTPS_PROXY"),
            (
                1,
                NetworkMode::Host,
                "ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED",
                "--ca-certificates",
            ),
            (1, NetworkMode::Host, "error: externally-managed-environment", "virtual environment"),
            (126, NetworkMode::Host, "/bin/sh: ./run: Permission denied", "chmod"),
        ] {
            let hint = hint(code, false, network, &["noise".into(), line.into()]);
            assert!(hint.as_deref().is_some_and(|hint| hint.contains(expected)), "{line}: {hint:?}");
        }
        assert!(hint(137, true, NetworkMode::Host, &[]).unwrap().contains("memory"));
        assert_eq!(hint(1, false, NetworkMode::Host, &["AssertionError".into()]), None);
    }
}
