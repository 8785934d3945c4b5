//! Stages and their bases.

use super::*;

#[test]
fn stages_hand_on_their_files() {
    let files = ["requirements.txt", "train.py"];
    let text = "FROM python:3.12 AS a\nWORKDIR /app\nCOPY requirements.txt .\nFROM a AS b\nRUN pip install -r requirements.txt\nRUN python train.py\n";
    assert_eq!(codes(text, &Case { files: &files, ..PLAIN }), ["run-missing-file:6"]);
    let text = "FROM python:3.12 AS a\nRUN make-it\nFROM python:3.12\nWORKDIR /app\nCOPY --from=a /out/ ./\nRUN python train.py\n";
    assert_eq!(codes(text, &Case { files: &files, ..PLAIN }), [""; 0]);
    let text =
        "FROM python:3.12 AS a\nCOPY train.py /app/\nFROM python:3.12\nWORKDIR /app\nRUN python train.py\n";
    let case = Case { files: &files, ..PLAIN };
    assert_eq!(codes(text, &case), ["run-missing-file:5"]);
}

#[test]
fn a_known_base_image_gives_workdir_and_variables() {
    let base = BaseImage { workdir: "/workspace".to_owned(), env: vec!["DATA=/workspace/data".to_owned()] };
    let case = Case { files: &["train.py"], base: Some(base), ..PLAIN };
    assert_eq!(codes("FROM a:1\nCOPY train.py ./\nRUN python train.py", &case), [""; 0]);
    assert_eq!(codes("FROM a:1\nCOPY train.py /workspace/\nRUN python train.py", &case), [""; 0]);
    assert_eq!(codes("FROM a:1\nCOPY train.py $DATA/\nRUN cd $DATA && python train.py", &case), [""; 0]);
    assert_eq!(codes("FROM a:1\nCOPY train.py $DATE/\n", &case), ["undefined-variable:2"]);
    assert_eq!(codes("FROM a:1\nCOPY train.py /\nRUN python train.py", &case), ["run-missing-file:3"]);
}

#[test]
fn bases() {
    let files = Case { files: &[], ..PLAIN };
    for (text, expected) in [
        ("FROM python", vec!["floating-base:1"]),
        ("FROM python:latest", vec!["floating-base:1"]),
        ("FROM python:3.12", vec![]),
        ("FROM scratch", vec![]),
        ("FROM python:3 AS latest\nFROM latest", vec![]),
        ("ARG TAG=latest\nFROM python:$TAG", vec!["floating-base:2"]),
        ("ARG TAG\nFROM python:$TAG", vec!["undefined-arg-in-from:2"]),
        ("ARG TAG\nFROM python:${TAG:-3}", vec![]),
        ("FROM python:$TAG", vec!["undefined-arg-in-from:1"]),
        ("FROM python:3$TAG", vec!["undefined-arg-in-from:1"]),
        ("FROM python:${TAG:-3}", vec![]),
        ("FROM a$TARGETARCH:1", vec![]),
        ("FROM Python:3", vec!["invalid-base:1"]),
        ("FROM tools\nFROM a:1 AS tools\nCOPY --from=0 /a /b", vec!["unknown-from-stage:1"]),
        ("FROM a:1 AS x\nFROM b:1 AS x\nCOPY --from=x /a /b", vec![]),
        ("FROM a:1 AS scratch", vec!["stage-name-reserved:1"]),
    ] {
        let mut found = codes(text, &files);
        found.retain(|code| !code.starts_with("duplicate"));
        found.sort();
        assert_eq!(found, expected, "{text}");
    }
    assert_eq!(codes("FROM a:1 AS x\nFROM b:1 AS x\n", &files), ["duplicate-stage-name:2"]);
    let args = Case { build_args: &[("TAG", "3.12")], ..PLAIN };
    assert_eq!(codes("ARG TAG\nFROM python:$TAG", &args), [""; 0]);
    let found = run("ARG PYTHON_TAG=3\nFROM python:$PYTHON_TGA", &PLAIN);
    let undefined = found.iter().find(|found| found.code == "undefined-arg-in-from").unwrap();
    assert_eq!((undefined.hint.as_deref(), undefined.column), (Some("did you mean `$PYTHON_TAG`?"), 13));
}

#[test]
fn copies_from_stages() {
    for (from, expected) in [
        ("0", vec![]),
        ("build", vec![]),
        ("BUILD", vec![]),
        ("nginx:1.27", vec![]),
        ("1", vec!["unknown-from-stage:3"]),
        ("7", vec!["unknown-from-stage:3"]),
        ("last", vec!["unknown-from-stage:3"]),
        ("biuld", vec!["unknown-from-stage:3"]),
    ] {
        let text = format!("FROM a:1 AS build\nFROM b:1 AS last\nCOPY --from={from} /x /y\n");
        assert_eq!(codes(&text, &PLAIN), expected, "{from}");
    }
    let text = "FROM a:1\nCOPY --from=later /x /y\nFROM b:1 AS later\nFROM a:1\nCOPY --from=0 /x /y\n";
    let found = run(text, &PLAIN);
    assert_eq!(found[0].message, "the stage `later` comes only later (line 3)");
}

#[test]
fn only_stages_that_are_needed_are_checked() {
    let text = "FROM a:1 AS unused\nCOPY nothing /x\nFROM a:1 AS mid\nCOPY none /x\nFROM b:1 AS last\nRUN --mount=type=bind,from=mid,target=/m x\n";
    assert_eq!(codes(text, &PLAIN), ["copy-missing-source:4"]);
    assert_eq!(codes(text, &Case { target: Some("unused"), ..PLAIN }), ["copy-missing-source:2"]);
    assert_eq!(codes(text, &Case { target: Some("0"), ..PLAIN }), ["copy-missing-source:2"]);
    let found = run(text, &Case { target: Some("unusd"), ..PLAIN });
    assert_eq!(
        (found[0].code.as_str(), found[0].hint.as_deref()),
        ("unknown-target", Some("did you mean `unused`?"))
    );
}
