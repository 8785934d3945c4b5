//! Flags that let load decide how many replicas run.

use slipway_types::service::Autoscale;

/// Flags of commands that declare or write a service. The command has a flag `--replicas`.
#[derive(Debug, clap::Args)]
pub struct AutoscaleArgs {
    /// Fewest and most replicas, by load: needs metrics-server in the cluster
    #[arg(long, value_name = "MIN:MAX", value_parser = range, conflicts_with = "replicas")]
    autoscale: Option<(u32, u32)>,
    /// Mean use of the requested CPU that autoscaling holds, in percent [default: 70, where no target is given]
    #[arg(long, value_name = "PERCENT", requires = "autoscale", value_parser = clap::value_parser!(u32).range(1..))]
    cpu_target: Option<u32>,
    /// Mean use of the requested memory that autoscaling holds, in percent
    #[arg(long, value_name = "PERCENT", requires = "autoscale", value_parser = clap::value_parser!(u32).range(1..))]
    memory_target: Option<u32>,
}

impl AutoscaleArgs {
    /// What was asked for.
    pub fn autoscale(&self) -> Option<Autoscale> {
        self.autoscale.map(|(min, max)| Autoscale {
            min,
            max,
            cpu_percent: self.cpu_target,
            memory_percent: self.memory_target,
        })
    }
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let bounds = text.split_once(':').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    bounds.filter(|(min, max)| *max > 0 && min <= max).ok_or_else(|| {
        format!("`{text}` is no range: expected the fewest and the most replicas, such as `2:8`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_ends() {
        assert_eq!(range("2:8"), Ok((2, 8)));
        assert_eq!(range("0:1"), Ok((0, 1)));
        for bad in ["", "2", "8:2", "0:0", "a:b", "1:2:3", "-1:2"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
