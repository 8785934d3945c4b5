//! Load by wrk.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::super::error::Error;
use super::super::packages::WRK;
use super::super::process::{find_program, run};

/// What wrk measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests per second.
    pub rate: f64,
    /// Half of the requests took no longer, microseconds.
    pub p50: f64,
    /// 99 of 100 took no longer, microseconds.
    pub p99: f64,
}

/// Sends one body again and again for some seconds. One request that fails makes the figures worthless, so that is an
/// error.
pub fn wrk(
    scratch: &Path,
    address: SocketAddr,
    path: &str,
    body: &str,
    connections: u32,
    seconds: u32,
) -> Result<Load, Error> {
    let script = scratch.join("post.lua");
    std::fs::write(&script, lua(body)).map_err(Error::io("write", &script))?;
    let mut command = Command::new(find_program(WRK.programs).unwrap_or_else(|| "wrk".into()));
    command.args(["-t1".to_owned(), format!("-c{connections}"), format!("-d{seconds}s")]);
    command.arg("-s").arg(&script).arg(format!("http://{address}{path}"));
    parse(&run(&mut command, Duration::from_secs(u64::from(seconds) + 30))?.output)
}

/// Long brackets with signs that JSON never has beside each other.
fn lua(body: &str) -> String {
    format!(
        r#"wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\nRESULT {{"requests":%d,"us":%d,"p50":%d,"p99":%d,"failed":%d,"broken":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"#
    )
}

fn parse(output: &str) -> Result<Load, Error> {
    let wrong = || Error::unexpected("the output of wrk", output);
    let line = output.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or_else(wrong)?;
    let value: Value = serde_json::from_str(line).map_err(|_| wrong())?;
    let number = |key: &str| value[key].as_f64().unwrap_or(0.0);
    if number("requests") < 1.0 || number("us") < 1.0 || number("failed") + number("broken") > 0.0 {
        return Err(Error::unexpected("requests failed under load", line));
    }
    Ok(Load { rate: number("requests") / number("us") * 1e6, p50: number("p50"), p99: number("p99") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_figures_and_refuses_failures() {
        let output = "Running 1s test\nRESULT {\"requests\":500,\"us\":1000000,\"p50\":60,\"p99\":90,\"failed\":0,\"broken\":0}\n";
        assert_eq!(parse(output).unwrap(), Load { rate: 500.0, p50: 60.0, p99: 90.0 });
        assert!(parse(&output.replace("\"failed\":0", "\"failed\":1")).is_err());
        assert!(parse(&output.replace("\"broken\":0", "\"broken\":2")).is_err());
        assert!(parse(&output.replace("500", "0")).is_err());
        assert!(parse("nothing").is_err());
    }
}
