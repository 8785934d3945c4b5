//! The numbers that a run reports.

use std::collections::BTreeMap;
use std::path::Path;

/// Most distinct metrics of one run.
pub(super) const MAX_METRICS: usize = 1000;

/// Takes the numbers of a line that is a JSON object. Says whether it was one.
pub(super) fn metrics_line(text: &str, metrics: &mut BTreeMap<String, f64>) -> bool {
    let text = text.trim();
    if !text.starts_with('{') || text.len() > 64 << 10 {
        return false;
    }
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else { return false };
    for (key, value) in object {
        let Some(number) = value.as_f64().filter(|n| n.is_finite()) else { continue };
        if metrics.len() < MAX_METRICS || metrics.contains_key(&key) {
            metrics.insert(key, number);
        }
    }
    true
}

/// Those of the file that it may write instead of printing them.
pub(super) fn metrics_file(path: &Path) -> BTreeMap<String, f64> {
    use std::io::Read;
    let mut metrics = BTreeMap::new();
    let mut text = String::new();
    // The container wrote it: it may be a link to anywhere, a device, or endless.
    let open = rustix::fs::open(
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let Ok(file) = open.map(std::fs::File::from) else { return metrics };
    if file.metadata().is_ok_and(|m| m.is_file()) && file.take(16 << 20).read_to_string(&mut text).is_ok() {
        text.lines().for_each(|line| {
            metrics_line(line, &mut metrics);
        });
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_the_last_numbers_of_json_lines() {
        let mut metrics = BTreeMap::new();
        let lines = [
            r#"{"epoch": 1, "loss": 0.5, "name": "x", "nested": {"a": 1}}"#,
            "plain text",
            "{not json",
            r#"  {"loss": 0.25, "accuracy": 0.97}  "#,
            r#"[1, 2]"#,
        ];
        let taken: Vec<bool> = lines.iter().map(|line| metrics_line(line, &mut metrics)).collect();
        assert_eq!(taken, [true, false, false, true, false]);
        let expected = [("accuracy", 0.97), ("epoch", 1.0), ("loss", 0.25)];
        assert_eq!(metrics, expected.map(|(k, v)| (k.to_owned(), v)).into());
    }

    #[test]
    fn a_metrics_file_that_is_a_link_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::write(&real, "{\"a\": 1}\n").unwrap();
        assert_eq!(metrics_file(&real).len(), 1);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(metrics_file(&link).is_empty());
        assert!(metrics_file(&dir.path().join("absent")).is_empty());
    }
}
