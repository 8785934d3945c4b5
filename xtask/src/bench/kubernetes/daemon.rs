//! What is asked of the daemon, and what it takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::error::Error;

/// How long the daemon may take for an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks the daemon; a refusal is an error.
pub fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Error> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let exchange = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: daemon\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(Error::io("ask", socket))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        return Err(Error::unexpected(
            format!("{method} {path}"),
            answer.chars().take(400).collect::<String>(),
        ));
    }
    serde_json::from_str(body)
        .map_err(|error| Error::unexpected(format!("{method} {path}"), error.to_string()))
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, MiB.
    pub memory: f64,
    /// Its share of memory, what it shares divided among those who do, MiB.
    pub share: f64,
    /// Processor time since its start, seconds.
    pub cpu: f64,
}

/// What a process takes now.
pub fn usage(pid: u32) -> Result<Usage, Error> {
    let read = |name: &str| {
        let path = Path::new("/proc").join(pid.to_string()).join(name);
        std::fs::read_to_string(&path).map_err(Error::io("read", &path))
    };
    let mib = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    Ok(Usage {
        memory: mib(&read("status")?, "VmRSS:"),
        share: mib(&read("smaps_rollup")?, "Pss:"),
        cpu: cpu(&read("stat")?),
    })
}

/// Processor time of a line of `/proc/PID/stat`, in seconds.
fn cpu(stat: &str) -> f64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on all of Linux that matters here.
    ticks / 100.0
}

/// How long passes over a cluster took, in milliseconds, by the daemon's log since a line.
pub fn passes(log: &Path, from: usize) -> Result<(Vec<f64>, usize), Error> {
    let file = std::fs::File::open(log).map_err(Error::io("read", log))?;
    let mut took = Vec::new();
    let mut lines = 0;
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        lines += 1;
        if lines > from {
            took.extend(pass(&line));
        }
    }
    Ok((took, lines))
}

fn pass(line: &str) -> Option<f64> {
    let rest = line.split_once("a pass of the reconciler ended")?;
    let text = [rest.0, rest.1].concat();
    if !text.contains("engine=\"kubernetes\"") {
        return None;
    }
    text.split_once("took_ms=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process_and_lines_of_the_log() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.memory > 1.0 && usage.share > 0.5 && usage.share <= usage.memory * 1.5, "{usage:?}");
        assert_eq!(cpu("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), 2.0);
        let line = "2026 DEBUG slipway::daemon::reconciler: a pass of the reconciler ended engine=\"kubernetes\" services=3 took_ms=12.5";
        assert_eq!(pass(line), Some(12.5));
        assert_eq!(pass(&line.replace("kubernetes", "native")), None);
        assert_eq!(pass("other"), None);
    }
}
