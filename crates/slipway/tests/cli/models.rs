//! `model`

use crate::support::{Slipway, tiny_project};

#[test]
fn versions_and_aliases() {
    let s = Slipway::new();
    let folder = s.path("m");
    s.write("m/model.py", "class Model:\n    def predict(self, inputs):\n        return inputs\n");
    s.write("m/vocabulary/words.txt", "a b");
    let import = |text: &[&str]| s.run(&[&["model", "import"][..], text].concat());
    assert_eq!(import(&[folder.to_str().unwrap(), "words"]).ok(), "words@1\n");
    assert_eq!(import(&[folder.to_str().unwrap(), "words"]).ok(), "words@2\n");
    s.run(&["model", "alias", "words@1", "champion"]).ok();
    assert!(s.run(&["model", "ls", "words"]).ok().contains("champion"));
    s.run(&["model", "alias", "words@2", "champion"]).ok();
    let shown: serde_json::Value =
        serde_json::from_str(&s.run(&["model", "show", "words@champion"]).ok()).unwrap();
    assert_eq!(shown["version"], 2);
    assert_eq!(shown["format"], "python");
    assert_eq!(shown["alias_moves"].as_array().unwrap().len(), 2);
    assert_eq!(shown["files"][1]["path"], "vocabulary/words.txt");
    s.run(&["model", "rm", "words@2"]).ok();
    s.run(&["model", "show", "words@champion"]).fails(3);
    assert_eq!(import(&[folder.to_str().unwrap(), "words"]).ok(), "words@3\n", "numbers are not reused");

    s.write("junk/readme.txt", "no model");
    let stderr = import(&[s.path("junk").to_str().unwrap(), "junk"]).fails(2);
    assert!(stderr.contains("readme.txt"), "{stderr}");
    import(&[folder.to_str().unwrap(), "../up"]).fails(2);
    import(&["/absent", "words"]).fails(3);
    s.run(&["model", "alias", "words@3", "7"]).fails(2);
    s.run(&["model", "show", "nothing"]).fails(3);
    s.finish();
}

#[test]
fn the_image_of_a_version_stays_as_long_as_the_version() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    s.run(&["train", "--project", "p"]).ok();
    let inspected: serde_json::Value =
        serde_json::from_str(&s.run(&["inspect", "slipway/tiny:latest"]).ok()).unwrap();
    let id = inspected[0]["id"].as_str().unwrap();
    for name in ["slipway/tiny:latest", id] {
        let stderr = s.run(&["rmi", name]).fails(4);
        assert!(stderr.contains("tiny@1") && stderr.contains("slipway model rm"), "{stderr}");
    }
    let removed = s.run(&["rmi", "-f", "slipway/tiny:latest"]).ok();
    assert!(removed.contains("Untagged: ") && !removed.contains("Deleted: "), "{removed}");
    s.run(&["system", "prune", "--all", "--build-cache"]).ok();
    let deployed = s.run(&["deploy", "tiny@1"]);
    assert_eq!(deployed.code, 0, "{}", deployed.stderr);
    s.run(&["delete", "tiny"]).ok();

    // A state folder of before the pins.
    let unpin = || {
        let index = rusqlite::Connection::open(s.root().join("images/index.db")).unwrap();
        index.execute("DELETE FROM pins WHERE kind = 'model' AND name = 'tiny@1/image'", [])
    };
    s.run(&["daemon", "stop"]).ok();
    assert_eq!(unpin().unwrap(), 1);
    s.run(&["system", "prune", "--all"]).ok();
    s.run(&["inspect", id]).ok();

    s.run(&["model", "rm", "tiny@1"]).ok();
    assert_eq!(unpin().unwrap(), 0, "the pin goes with the version");
    s.run(&["system", "prune"]).ok();
    s.run(&["inspect", id]).fails(3);

    let folder = s.path("m");
    s.write("m/model.py", "class Model:\n    def predict(self, inputs):\n        return inputs\n");
    s.run(&["model", "import", folder.to_str().unwrap(), "tiny"]).ok();
    s.run(&["daemon", "stop"]).ok();
    assert_eq!(s.run(&["model", "ls", "--format", "json"]).ok().matches("\"manifest\"").count(), 1);
    s.finish();
}
