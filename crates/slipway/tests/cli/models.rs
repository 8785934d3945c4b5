//! `model`

use crate::support::Slipway;

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
