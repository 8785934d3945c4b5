//! What a benchmark found, as text and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::error::Error;
use super::machine::Machine;
use super::stats::{Better, Summary, ratio, summary};
use crate::error::chain;

/// One contender's figures, one for each round.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Who.
    pub name: String,
    /// Figures in the order in which they were measured.
    pub samples: Vec<f64>,
}

/// One thing that was measured of every contender.
#[derive(Debug)]
pub struct Metric {
    /// What.
    pub name: String,
    /// Unit of the figures.
    pub unit: &'static str,
    /// Which figures are better.
    pub better: Better,
    /// Slipway first; the others are compared with it.
    pub contenders: Vec<Contender>,
}

/// How many times better than somebody Slipway shall be.
#[derive(Debug)]
pub struct Goal {
    /// Name of the metric.
    pub metric: String,
    /// The other contender.
    pub than: String,
    /// The ratio.
    pub times: f64,
}

/// Everything that a benchmark found.
#[derive(Debug)]
pub struct Report {
    /// Name of the benchmark.
    pub benchmark: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// Programs and their versions.
    pub versions: Vec<(String, String)>,
    /// Figures.
    pub metrics: Vec<Metric>,
    /// Contenders that could not be measured, and why.
    pub unavailable: Vec<(String, String)>,
    /// What Slipway aims at.
    pub goals: Vec<Goal>,
    /// What a reader of the figures has to know.
    pub notes: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(benchmark: &'static str, machine: Machine) -> Self {
        Self {
            benchmark,
            machine,
            versions: Vec::new(),
            metrics: Vec::new(),
            unavailable: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a figure; metrics and contenders keep the order in which they first appear.
    pub fn add(&mut self, metric: &str, unit: &'static str, better: Better, contender: &str, figure: f64) {
        let index = self.metrics.iter().position(|m| m.name == metric).unwrap_or_else(|| {
            self.metrics.push(Metric { name: metric.to_owned(), unit, better, contenders: Vec::new() });
            self.metrics.len() - 1
        });
        let contenders = &mut self.metrics[index].contenders;
        match contenders.iter_mut().find(|c| c.name == contender) {
            Some(found) => found.samples.push(figure),
            None => contenders.push(Contender { name: contender.to_owned(), samples: vec![figure] }),
        }
    }

    /// Notes that a contender could not be measured; its earlier figures go, since they are not complete.
    pub fn give_up(&mut self, contender: &str, reason: &Error) {
        eprintln!("warning: {contender} is not measured: {}", chain(&reason));
        for metric in &mut self.metrics {
            metric.contenders.retain(|c| c.name != contender);
        }
        self.unavailable.push((contender.to_owned(), chain(&reason)));
    }

    /// Whether a contender was given up.
    pub fn gave_up(&self, contender: &str) -> bool {
        self.unavailable.iter().any(|(name, _)| name == contender)
    }

    /// The ratio that a goal is about.
    fn reached(&self, goal: &Goal) -> Option<Summary> {
        let metric = self.metrics.iter().find(|m| m.name == goal.metric)?;
        let ours = metric.contenders.first()?;
        let theirs = metric.contenders.iter().find(|c| c.name == goal.than)?;
        ratio(&ours.samples, &theirs.samples, metric.better)
    }

    /// The text for a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("bench {}: {}\n", self.benchmark, self.machine);
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        if !versions.is_empty() {
            let _ = writeln!(text, "{}", versions.join(", "));
        }
        for metric in &self.metrics {
            let _ = write!(text, "\n{}", table(metric));
        }
        if !self.goals.is_empty() {
            text.push_str("\nGoals\n");
        }
        for goal in &self.goals {
            let got = match self.reached(goal) {
                None => "not measured".to_owned(),
                Some(got) => format!(
                    "{}, {}",
                    times(got.median),
                    if got.median >= goal.times { "met" } else { "not met" }
                ),
            };
            let _ =
                writeln!(text, "  {}: at least {} of {}: {got}", goal.metric, times(goal.times), goal.than);
        }
        for (name, reason) in &self.unavailable {
            let _ = writeln!(text, "\nNot measured: {name}: {reason}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "\nNote: {note}");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let metric = |metric: &Metric| {
            let ours = metric.contenders.first().map_or(&[][..], |c| &c.samples);
            let contenders: Vec<Value> = metric
                .contenders
                .iter()
                .enumerate()
                .map(|(index, contender)| {
                    let ratio = (index > 0).then(|| ratio(ours, &contender.samples, metric.better)).flatten();
                    json!({
                        "name": contender.name, "samples": contender.samples,
                        "summary": summary(&contender.samples), "slipway_times_better": ratio,
                    })
                })
                .collect();
            json!({ "name": metric.name, "unit": metric.unit, "better": metric.better, "contenders": contenders })
        };
        let goal = |goal: &Goal| {
            let got = self.reached(goal).map(|got| got.median);
            json!({
                "metric": goal.metric, "than": goal.than, "times": goal.times,
                "got": got, "met": got.map(|got| got >= goal.times),
            })
        };
        json!({
            "benchmark": self.benchmark,
            "machine": self.machine,
            "versions": self.versions.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "metrics": self.metrics.iter().map(metric).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(),
            "unavailable": self.unavailable.iter().map(|(n, r)| json!({ "name": n, "reason": r })).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// Prints the text, and writes the JSON where it is wanted.
    pub fn publish(&self, file: Option<&Path>) -> Result<(), Error> {
        print!("{}", self.text());
        let Some(file) = file else { return Ok(()) };
        let text = format!("{:#}\n", self.json());
        let aside = file.with_extension("new");
        std::fs::write(&aside, text)
            .and_then(|()| std::fs::rename(&aside, file))
            .map_err(Error::io("write", file))
    }
}

fn table(metric: &Metric) -> String {
    let side = match metric.better {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
    };
    let ours = metric.contenders.first().map_or(&[][..], |c| &c.samples);
    let mut rows =
        vec![["".to_owned(), "median".into(), "min .. max".into(), "n".into(), "Slipway is".into()]];
    for (index, contender) in metric.contenders.iter().enumerate() {
        let Some(all) = summary(&contender.samples) else { continue };
        let ratio = match ratio(ours, &contender.samples, metric.better) {
            Some(r) if index > 0 => format!("{} ({} .. {})", times(r.median), times(r.min), times(r.max)),
            _ => String::new(),
        };
        let range = format!("{} .. {}", figure(all.min), figure(all.max));
        rows.push([
            contender.name.clone(),
            figure(all.median),
            range,
            contender.samples.len().to_string(),
            ratio,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = format!("{}, {} ({side})\n", metric.name, metric.unit);
    for [name, median, range, count, ratio] in &rows {
        let line = format!(
            "  {name:<w0$}  {median:>w1$}  {range:>w2$}  {count:>w3$}  {ratio}",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3]
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A figure with about three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        r if r >= 10.0 => format!("{r:.1}x"),
        r => format!("{r:.2}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("run", Machine::of_this_host());
        for (name, figures) in [("slipway", [20.0, 21.0]), ("docker", [260.0, 252.0]), ("broken", [1.0, 1.0])]
        {
            figures.iter().for_each(|f| report.add("start", "ms", Better::Lower, name, *f));
        }
        report.give_up("broken", &Error::Build("it broke".into()));
        for (than, times) in [("docker", 12.0), ("docker", 13.0), ("broken", 1.0)] {
            report.goals.push(Goal { metric: "start".into(), than: than.into(), times });
        }
        report
    }

    #[test]
    fn text_has_ratios_goals_and_what_is_missing() {
        let text = report().text();
        let row = text.lines().find(|line| line.contains("docker  ")).unwrap();
        assert_eq!(row, "  docker      256    252 .. 260  2  12.5x (12.0x .. 13.0x)");
        assert!(text.contains("at least 12.0x of docker: 12.5x, met"), "{text}");
        assert!(text.contains("at least 13.0x of docker: 12.5x, not met"), "{text}");
        assert!(
            text.contains("of broken: not measured") && text.contains("Not measured: broken: it broke"),
            "{text}"
        );
    }

    #[test]
    fn json_has_every_sample() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        report().publish(Some(&file)).unwrap();
        let value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let docker = &value["metrics"][0]["contenders"][1];
        assert_eq!(docker["samples"], json!([260.0, 252.0]));
        assert_eq!(docker["slipway_times_better"]["median"], json!(12.5));
        assert_eq!(value["goals"][1]["met"], json!(false));
        assert_eq!(value["goals"][2]["met"], Value::Null);
    }
}
