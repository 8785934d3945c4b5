//! Two programs of the tests: `slipway-test-replica shim …` is the shim, `slipway-test-replica CONFIG` is what runs in
//! a replica in the runner's place. It has no Python and no model; it says that it is ready once it sees the model's
//! files where the configuration has them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

use slipway_types::service::RunnerConfig;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "shim" {
        return ExitCode::from(slipway_runtime::shim_main(arguments.collect()));
    }
    let text = std::fs::read(first).expect("the engine writes the configuration");
    let config: RunnerConfig = serde_json::from_slice(&text).expect("the configuration is a runner's");
    let listener = UnixListener::bind(&config.socket).expect("the shared folder can be written");
    let loaded = config.model_dir.join("weights").is_file() && config.python_dir.is_dir();
    for stream in listener.incoming().flatten() {
        // Who asks may be gone already.
        let _ = answer(&stream, loaded);
    }
    ExitCode::FAILURE
}

fn answer(mut stream: &UnixStream, loaded: bool) -> std::io::Result<()> {
    let head = BufReader::new(stream).lines().take_while(|line| line.as_ref().is_ok_and(|l| !l.is_empty()));
    let lines = head.collect::<Result<Vec<_>, _>>()?;
    let asked = lines.first().is_some_and(|line| line.starts_with("GET /v2/health/ready "));
    let status = if asked && loaded { "200 OK" } else { "503 Service Unavailable" };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
}
