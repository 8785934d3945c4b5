//! `bench kubernetes`: a thousand services and a gang of a thousand ranks on nodes that kwok plays: time, requests to the
//! API server, the daemon's memory, and how they grow.

mod audit;
mod bed;
mod daemon;
mod fit;
mod gang;
mod peer;
mod services;

use self::bed::Bed;
use super::error::Error;
use super::packages::{BUSYBOX, require};
use super::{Bench, say};

/// Flags of `bench kubernetes`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many services there are after each step
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [125_u32, 250, 500, 1000])]
    services: Vec<u32>,
    /// Ranks of each gang
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [10_u32, 100, 1000])]
    ranks: Vec<u32>,
    /// Services that kubectl applies beside them
    #[arg(long, value_name = "COUNT", default_value_t = 125)]
    peer: u32,
    /// Nodes that kwok plays, with 250 pods at most each
    #[arg(long, value_name = "COUNT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=5000))]
    nodes: u32,
}

/// Measures.
pub fn measure(bench: &mut Bench, args: &Args) -> Result<(), Error> {
    require(&[BUSYBOX], bench.install)?;
    say(format!("starting a control plane with {} nodes of kwok, and slipway", args.nodes));
    let bed = Bed::start(bench, args.nodes)?;
    let steps = services::measure(bench, &bed, &args.services)?;
    peer::measure(bench, &bed, args.peer, &steps)?;
    services::remove(bench, &bed)?;
    gang::measure(bench, &bed, &args.ranks)?;
    bench.report.notes.push(
        "kwok plays the nodes: pods are said to run and nothing of theirs runs. The controller manager and the scheduler may ask the \
         API server 1,000 times a second, not 20 and 50 as they do by default, so that they are not what is measured. API server, etcd, \
         controllers and the daemon share the processors."
            .to_owned(),
    );
    Ok(())
}
