//! What a beginner of this field writes.

use super::*;

/// What a beginner of this field writes.
const BEGINNER: &str = "\
FROM tensorflow/tensorflow:latest
COPY train.py data/
RUN pip install -r requirements.txt
WORKDIR /home/deploy
ENV MODEL_NAME=digits
ENV MODEL_DIR=/home/deploy/models
RUN python train.py --name $MODEL_NAME --out $MODEL_DIR/$MODEL_NAME
";

#[test]
fn the_beginners_dockerfile() {
    let case = Case { files: &["train.py", "requirements.txt", "Dockerfile"], ..PLAIN };
    let found = run(BEGINNER, &case);
    let codes: Vec<(&str, u32)> = found.iter().map(|found| (found.code.as_str(), found.line)).collect();
    assert_eq!(
        codes,
        [
            ("floating-base", 1),
            ("copy-relative-before-workdir", 2),
            ("run-missing-file", 3),
            ("run-missing-file", 7)
        ]
    );
    assert!(found.iter().all(|found| found.severity == Severity::Warning));
    assert_eq!(
        found[2].message,
        "`requirements.txt` is not in the image: no COPY before this RUN brings it to / (unless the base image has it)"
    );
    assert_eq!(found[2].hint.as_deref(), Some("add `COPY requirements.txt ./` before line 3"));
    assert_eq!(&BEGINNER[found[2].span.start..found[2].span.end], "requirements.txt");
    assert_eq!(
        found[3].message,
        "`train.py` will not be found: it is at /data/train.py (line 2 copies it to `data/` while WORKDIR is \
         still /), and the working directory here is /home/deploy"
    );
    assert_eq!(
        found[3].hint.as_deref(),
        Some("change line 2 to `COPY train.py /home/deploy/`, or run `python /data/train.py` here")
    );
    assert_eq!(&BEGINNER[found[3].span.start..found[3].span.end], "train.py");
    assert_eq!((found[3].line, found[3].column), (7, 12));
}

#[test]
fn the_beginners_dockerfile_with_its_hints_followed() {
    let fixed = BEGINNER.replace(
        "COPY train.py data/\nRUN pip",
        "COPY train.py /home/deploy/\nCOPY requirements.txt ./\nRUN pip",
    );
    let case = Case { files: &["train.py", "requirements.txt"], ..PLAIN };
    assert_eq!(codes(&fixed, &case), ["floating-base:1"]);
    let other = BEGINNER
        .replace("RUN pip", "COPY requirements.txt ./\nRUN pip")
        .replace("python train.py", "python /data/train.py");
    // The file is used where it is, so its relative copy is meant.
    assert_eq!(codes(&other, &case), ["floating-base:1"]);
}
