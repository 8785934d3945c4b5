//! The shim as the tests start it: `slipway-test-shim shim ROLE …`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(slipway_runtime::shim_main(std::env::args_os().skip(2).collect()))
}
