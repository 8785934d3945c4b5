//! The machine that figures come from.

use std::time::Duration;

use serde::Serialize;

use super::error::Error;
use super::process::pause;

/// More of the processors than this in other hands, and figures mean little.
const BUSY: f64 = 0.05;

/// What ran the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor model.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Memory, GiB.
    pub memory_gib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
}

impl Machine {
    /// This one; what it does not tell is `unknown`.
    pub fn of_this_host() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line[key.len()..].trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').to_owned())
        };
        let unknown = || "unknown".to_owned();
        let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: value(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(unknown),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} x {}, {} GiB, kernel {}, {}",
            self.processors, self.processor, self.memory_gib, self.kernel, self.system
        )
    }
}

/// A warning when the machine does other work now. Call it while nothing of the benchmark runs.
pub fn busy_note(when: &str) -> Result<Option<String>, Error> {
    let before = times();
    pause(Duration::from_secs(1))?;
    let share = busy(before, times());
    Ok((share > BUSY).then(|| {
        format!(
            "{when}, other programs kept {:.0} % of the processors busy: treat the figures with care",
            share * 100.0
        )
    }))
}

/// Time that the processors spent busy and in all, in ticks.
fn times() -> (u64, u64) {
    parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse(stat: &str) -> (u64, u64) {
    // proc_stat(5): user nice system idle iowait irq softirq steal; guest time is part of user.
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn busy(before: (u64, u64), after: (u64, u64)) -> f64 {
    let all = after.1.saturating_sub(before.1);
    if all == 0 { 0.0 } else { after.0.saturating_sub(before.0) as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_busy_ticks() {
        let before = parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 1 1 1\n");
        assert_eq!(before, (20, 100));
        assert_eq!(busy(before, parse("cpu  30 0 20 120 20 5 5 0 0 0\n")), 0.4);
        assert_eq!(busy((0, 0), (0, 0)), 0.0);
    }
}
