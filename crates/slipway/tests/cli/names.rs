//! Names as people write them, through every command and every URL.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Slipway, tiny_project, wait_for};

const ONE: &str = "{\"instances\": [[1, 2]]}";

/// As long as a name may be, in the characters that take the most room.
pub fn longest() -> String {
    "模型🔬é".repeat(50)
}

/// A name in a URL, every byte escaped.
pub fn escaped(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    })
}

/// A [`tiny_project`] of another name.
pub fn project(s: &Slipway, folder: &str, name: &str, factor: f64) -> PathBuf {
    let path = tiny_project(s, folder, factor);
    let file = path.join("slipway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, text.replace("\"tiny\"", &format!("{name:?}"))).unwrap();
    path
}

/// Imports a model that multiplies by a factor.
pub fn import(s: &Slipway, folder: &str, name: &str, factor: f64) {
    let path = tiny_project(s, folder, factor);
    s.write(&format!("{folder}/model/factor.json"), &factor.to_string());
    std::fs::copy(path.join("scale.py"), path.join("model/scale.py")).unwrap();
    let model = path.join("model");
    s.run(&["model", "import", "--entry", "scale:Scale", model.to_str().unwrap(), name]).ok();
}

pub fn predictions(factor: f64) -> String {
    format!("{{\"predictions\":[[{:.1},{:.1}]]}}", factor, 2.0 * factor)
}

#[test]
fn any_name_is_trained_deployed_asked_and_deleted() {
    let s = Slipway::new();
    s.python();
    let longest = longest();
    // Two that differ in case alone, one without a letter that a repository or a host may have, one that is too long for a
    // file's name.
    let names = [("My Model", 2.0), ("my model", 3.0), ("模型", 4.0), (longest.as_str(), 5.0)];
    for (name, factor) in [names[0], names[3]] {
        let folder = format!("p{factor}");
        project(&s, &folder, name, factor);
        let up = s.run(&["up", &folder]);
        assert_eq!(up.code, 0, "{}", up.stderr);
        assert!(
            up.stdout.contains(&format!("/v2/models/{}", slipway_types::name::segment(name))),
            "{}",
            up.stdout
        );
        assert!(s.run(&["up", &folder]).ok().contains("nothing to do"));
        let run = format!("{name}-1");
        assert!(s.run(&["logs", &run]).ok().contains("\"loss\": 0.25"));
        let runs: Value = serde_json::from_str(&s.run(&["runs", "--format", "json", &run]).ok()).unwrap();
        assert!(runs.to_string().contains("\"succeeded\""), "{runs}");
    }
    for (name, factor) in [names[1], names[2]] {
        import(&s, &format!("p{factor}"), name, factor);
        s.run(&["deploy", name, "--image", "py"]).ok();
    }

    for (name, factor) in names {
        assert_eq!(s.run(&["predict", name, "--json", ONE]).ok().trim(), predictions(factor), "{name}");
        let url = escaped(name);
        for path in [
            format!("/v1/models/{url}:predict"),
            format!("/v1/models/{url}/versions/1:predict"),
            format!("/{url}/v1/models/{url}:predict"),
        ] {
            assert_eq!(s.http("POST", &path, ONE), (200, predictions(factor)), "{name}: {path}");
        }
        s.run(&["model", "alias", &format!("{name}@1"), "gold"]).ok();
        let label = format!("/v1/models/{url}/labels/gold:predict");
        wait_for("the label", Duration::from_secs(10), || {
            (s.http("POST", &label, ONE).0 == 200).then_some(())
        });
        let (status, metadata) = s.http("GET", &format!("/v2/models/{url}"), "");
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        assert_eq!((status, &metadata["name"]), (200, &Value::from(name)));
        let v2 = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2]}]}";
        let answer = s.run(&["predict", "--v2", name, "--json", v2]).ok();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["outputs"][0]["data"], serde_json::json!([factor, 2.0 * factor]));
        s.run(&["scale", name, "2"]).ok();
        assert!(s.run(&["services", name]).ok().contains("2/2"));
        let top: Value = serde_json::from_str(&s.run(&["top", name, "--format", "json"]).ok()).unwrap();
        assert_eq!(top[0]["service"], name);
        s.run(&["logs", name]).ok();
        let events = s.run(&["events", "--subject", &format!("service/{name}")]).ok();
        assert!(events.contains("service.scaled") && events.contains(name), "{events}");
    }
    // The index has the paths that answer, and every name is one label of Prometheus.
    let index: Value = serde_json::from_str(&s.http("GET", "/", "").1).unwrap();
    for service in index["services"].as_array().unwrap() {
        assert_eq!(s.http("POST", service["predict"].as_str().unwrap(), ONE).0, 200, "{service}");
    }
    let metrics = s.http("GET", "/metrics", "").1;
    for (name, _) in names {
        assert!(
            metrics.contains(&format!("slipway_gateway_requests_total{{service=\"{name}\",code=\"200\"}}"))
        );
    }
    assert_eq!(s.http("POST", "/v1/models/MY%20MODEL:predict", ONE).0, 404);

    // Names of images are others for each project, and short enough for a registry.
    let images = s.run(&["images"]).ok();
    let own = images.lines().filter(|line| line.starts_with("slipway/"));
    assert_eq!(own.count(), 2, "{images}");
    let listed: Value = serde_json::from_str(&s.run(&["model", "ls", "--format", "json"]).ok()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 4);

    // What is deleted is nobody else's.
    for (at, (name, _)) in names.into_iter().enumerate() {
        s.run(&["delete", name]).ok();
        wait_for("it to be forgotten", Duration::from_secs(30), || {
            (s.http("POST", &format!("/v1/models/{}:predict", escaped(name)), ONE).0 == 404).then_some(())
        });
        for (other, factor) in &names[at + 1..] {
            assert_eq!(s.run(&["predict", other, "--json", ONE]).ok().trim(), predictions(*factor));
        }
        s.run(&["model", "rm", &format!("{name}@1")]).ok();
    }
    s.finish();
}

#[test]
fn what_no_name_may_be_is_said_everywhere() {
    let s = Slipway::new();
    s.write("m/model.py", "class Model:\n    def predict(self, inputs):\n        return inputs\n");
    let folder = s.path("m");
    let longer = format!("{}x", longest());
    for bad in ["a/b", "a:b", " a", "a\tb", "..", "", longer.as_str()] {
        for command in [
            &["model", "import", folder.to_str().unwrap(), bad][..],
            &["predict", bad, "--json", ONE],
            &["deploy", bad, "--image", "py"],
        ] {
            let stderr = s.run(command).fails(2);
            assert!(stderr.contains("1 to 200 characters"), "{command:?}: {stderr}");
        }
        s.write("p/slipway.toml", &format!("name = {bad:?}\n"));
        let stderr = s.run(&["train", "--project", "p"]).fails(2);
        assert!(stderr.contains("1 to 200 characters"), "{stderr}");
    }
    s.finish();
}
