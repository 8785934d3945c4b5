//! Merges metrics of several replicas into one text in Prometheus format.
//!
//! Reads the Prometheus text format 0.0.4 and OpenMetrics 1.0 text, writes the former: each family once, with the
//! samples of all replicas, told apart by added labels.
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::collections::HashMap;
use std::fmt::Write;

use slipway_types::name::label_value;

use crate::metrics::PREFIX;

/// Most samples taken from one replica, and most families in all.
const MAX_SAMPLES: usize = 5000;
const MAX_FAMILIES: usize = 2000;

/// Families of metrics, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(crate) struct Families {
    families: Vec<Family>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Family {
    name: String,
    help: Option<String>,
    kind: Option<String>,
    /// Whole lines.
    samples: String,
    /// A sample is named `<name>_total`.
    has_total: bool,
}

impl Families {
    /// Adds a replica's metrics. Says whether all of them were taken.
    pub(crate) fn add(&mut self, text: &str, labels: &[(&str, &str)]) -> bool {
        let mut complete = true;
        let mut samples = 0;
        let mut current: Option<usize> = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                if let Some((keyword, name, rest)) = meta(comment) {
                    current = self.family(name);
                    if let Some(family) = current.map(|at| &mut self.families[at]) {
                        let field = if keyword == "HELP" { &mut family.help } else { &mut family.kind };
                        field.get_or_insert_with(|| rest.to_owned());
                    }
                }
                continue;
            }
            let Some(sample) = Sample::parse(line) else {
                complete = false;
                continue;
            };
            if sample.name.ends_with("_created") {
                continue;
            }
            samples += 1;
            if samples > MAX_SAMPLES {
                return false;
            }
            let own = current.filter(|at| belongs(sample.name, &self.families[*at].name));
            let Some(at) = own.or_else(|| self.family(sample.name)) else {
                complete = false;
                continue;
            };
            let family = &mut self.families[at];
            family.has_total |= sample.name.len() == family.name.len() + 6 && sample.name.ends_with("_total");
            sample.write(&mut family.samples, labels);
        }
        complete
    }

    /// Writes everything.
    pub(crate) fn write(&self, out: &mut String) {
        for family in self.families.iter().filter(|family| !family.samples.is_empty()) {
            let kind = family.kind.as_deref().unwrap_or("untyped");
            // OpenMetrics names a counter's family without the suffix that its samples have.
            let (suffix, kind) = match kind {
                "counter" if family.has_total => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "counter" | "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            // Writing to a string does not fail.
            if let Some(help) = &family.help {
                let _ = writeln!(out, "# HELP {}{suffix} {help}", family.name);
            }
            let _ = writeln!(out, "# TYPE {}{suffix} {kind}", family.name);
            out.push_str(&family.samples);
        }
    }

    fn family(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.by_name.get(name) {
            return Some(*at);
        }
        if !valid_name(name) || name.starts_with(PREFIX) || self.families.len() >= MAX_FAMILIES {
            return None;
        }
        let family = Family {
            name: name.to_owned(),
            help: None,
            kind: None,
            samples: String::new(),
            has_total: false,
        };
        self.families.push(family);
        self.by_name.insert(name.to_owned(), self.families.len() - 1);
        Some(self.families.len() - 1)
    }
}

/// Reads ` HELP name text` and ` TYPE name kind`.
fn meta(comment: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = comment.trim_start().split_once(' ')?;
    let (name, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, name, rest.trim()))
}

/// Whether a sample of this name belongs to a family.
fn belongs(sample: &str, family: &str) -> bool {
    const SUFFIXES: [&str; 8] = ["", "_total", "_sum", "_count", "_bucket", "_info", "_gsum", "_gcount"];
    sample.strip_prefix(family).is_some_and(|suffix| SUFFIXES.contains(&suffix))
}

fn valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 200
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// One sample: `name{labels} value [timestamp] [# exemplar]`.
struct Sample<'a> {
    name: &'a str,
    /// Name and quoted value of each label.
    labels: Vec<(&'a str, &'a str)>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside.trim_start();
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once('=')?;
                let value_end = quoted(after)?;
                labels.push((label.trim(), &after[..value_end]));
                rest = after[value_end..].trim_start();
                rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            }
            rest = &rest[1..];
        }
        // What follows the value (a timestamp, an exemplar) is of no use to whoever scrapes the gateway.
        let value = rest.split_whitespace().next()?;
        let number = value.parse::<f64>().is_ok() || matches!(value, "+Inf" | "-Inf" | "NaN");
        let valid = valid_name(name) && labels.iter().all(|(label, _)| valid_name(label));
        (number && valid).then_some(Self { name, labels, value })
    }

    fn write(&self, out: &mut String, added: &[(&str, &str)]) {
        out.push_str(self.name);
        let mut separator = '{';
        for (label, value) in added {
            let _ = write!(out, "{separator}{label}=\"{}\"", label_value(value));
            separator = ',';
        }
        for (label, value) in &self.labels {
            let clash = if added.iter().any(|(name, _)| name == label) { "exported_" } else { "" };
            let _ = write!(out, "{separator}{clash}{label}={value}");
            separator = ',';
        }
        let close = if separator == '{' { "" } else { "}" };
        let _ = writeln!(out, "{close} {}", self.value);
    }
}

/// Length of the quoted text, with its quotes, that a text starts with.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.strip_prefix('"')?.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(texts: &[(&str, &str)]) -> (String, bool) {
        let mut families = Families::default();
        let mut complete = true;
        for (replica, text) in texts {
            complete &= families.add(text, &[("service", "s"), ("replica", replica)]);
        }
        let mut out = String::new();
        families.write(&mut out);
        (out, complete)
    }

    #[test]
    fn families_are_merged_and_open_metrics_becomes_classic() {
        let open = "# HELP requests Requests.\n# TYPE requests counter\n# UNIT requests things\n\
                    requests_total{model=\"m}\\\"\"} 3 # {trace=\"x\"} 1\nrequests_created{model=\"m\"} 1\n\
                    # TYPE latency histogram\nlatency_sum 1.5\nlatency_count 2\nlatency_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let classic = "# TYPE requests counter\nrequests_total{model=\"n\"} 4 1700000000\nbare 7\n";
        let (text, complete) = merged(&[("a", open), ("b", classic)]);
        assert!(complete);
        assert_eq!(
            text,
            "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
             requests_total{service=\"s\",replica=\"a\",model=\"m}\\\"\"} 3\n\
             requests_total{service=\"s\",replica=\"b\",model=\"n\"} 4\n\
             # TYPE latency histogram\n\
             latency_sum{service=\"s\",replica=\"a\"} 1.5\n\
             latency_count{service=\"s\",replica=\"a\"} 2\n\
             latency_bucket{service=\"s\",replica=\"a\",le=\"+Inf\"} 2\n\
             # TYPE bare untyped\n\
             bare{service=\"s\",replica=\"b\"} 7\n"
        );
    }

    #[test]
    fn a_classic_counter_keeps_its_name() {
        let (text, _) = merged(&[("a", "# TYPE x_total counter\nx_total 1\n")]);
        assert_eq!(text, "# TYPE x_total counter\nx_total{service=\"s\",replica=\"a\"} 1\n");
    }

    #[test]
    fn labels_that_clash_are_renamed_and_the_gateways_names_are_refused() {
        let (text, complete) = merged(&[("a", "x{service=\"liar\"} 1\nslipway_gateway_requests_total 9\n")]);
        assert_eq!(text, "# TYPE x untyped\nx{service=\"s\",replica=\"a\",exported_service=\"liar\"} 1\n");
        assert!(!complete);
    }

    #[test]
    fn too_many_samples_are_cut_off() {
        let many: String = (0..=MAX_SAMPLES).map(|n| format!("x{{n=\"{n}\"}} 1\n")).collect();
        let (text, complete) = merged(&[("a", &many)]);
        assert!(!complete);
        assert_eq!(text.lines().count(), MAX_SAMPLES + 1);
    }

    proptest! {
        #[test]
        fn any_text_gives_only_well_formed_lines(text in "[ -~\n]{0,200}") {
            let (out, _) = merged(&[("a", &text)]);
            for line in out.lines().filter(|line| !line.starts_with("# ")) {
                prop_assert!(Sample::parse(line).is_some(), "{line}");
                prop_assert!(line.contains("{service=\"s\",replica=\"a\""), "{line}");
            }
        }
    }
}
