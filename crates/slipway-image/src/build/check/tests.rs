use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::build::dockerfile::parse;
use crate::build::ignore::Ignore;

/// A context in memory: file paths, and a `.dockerignore`.
struct Files {
    files: BTreeSet<String>,
    ignore: Ignore,
}

impl Files {
    fn new(files: &[&str], ignore: &str) -> Self {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Self { files, ignore: Ignore::parse(ignore).unwrap() }
    }
}

impl ContextFiles for Files {
    fn entry(&self, path: &str) -> Option<Entry> {
        let inside = format!("{path}/");
        let kind = if self.files.contains(path) {
            FileKind::File
        } else if path.is_empty() || self.files.iter().any(|file| file.starts_with(&inside)) {
            FileKind::Folder
        } else {
            return None;
        };
        let hidden = match kind {
            FileKind::File => self.ignore.is_ignored(path),
            FileKind::Folder => self.ignore.may_skip_folder(path),
        };
        let pattern = self.ignore.ignored_by(path).filter(|_| hidden);
        let ignored_by = pattern.map(|p| IgnoredBy { pattern: p.text.clone(), line: p.line });
        Some(Entry { kind, ignored_by })
    }

    fn list(&self, folder: &str) -> Vec<(String, Entry)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names: BTreeSet<&str> =
            self.files.iter().filter_map(|file| file.strip_prefix(&prefix)?.split('/').next()).collect();
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.entry(&format!("{prefix}{name}"))?)))
            .collect()
    }
}

struct Case<'a> {
    files: &'a [&'a str],
    ignore: &'a str,
    build_args: &'a [(&'a str, &'a str)],
    target: Option<&'a str>,
    base: Option<BaseImage>,
}

const PLAIN: Case<'static> = Case { files: &[], ignore: "", build_args: &[], target: None, base: None };

fn run(text: &str, case: &Case<'_>) -> Vec<Diagnostic> {
    let parsed = parse(text);
    assert_eq!(parsed.diagnostics, [], "{text}");
    let files = Files::new(case.files, case.ignore);
    let build_args =
        case.build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let context = CheckContext {
        text,
        files: &files,
        build_args: &build_args,
        target: case.target,
        bases: &|_| case.base.clone(),
    };
    check(&parsed.dockerfile, &context)
}

/// `code:line` of everything found.
fn codes(text: &str, case: &Case<'_>) -> Vec<String> {
    run(text, case).iter().map(|found| format!("{}:{}", found.code, found.line)).collect()
}

/// Findings of one rule in a Dockerfile whose base is pinned.
fn only(rule: &str, body: &str, files: &[&str]) -> Vec<Diagnostic> {
    let text = format!("FROM python:3.12\n{body}");
    let found = run(&text, &Case { files, ..PLAIN });
    found.into_iter().filter(|found| found.code == rule).collect()
}

fn missing(body: &str, files: &[&str]) -> Vec<(u32, String, String)> {
    only("run-missing-file", body, files)
        .into_iter()
        .map(|found| (found.line, found.message, found.hint.unwrap_or_default()))
        .collect()
}

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

#[test]
fn files_that_are_missing_are_named_with_the_line_to_add() {
    for (body, line, hint) in [
        (
            "WORKDIR /app\nRUN pip install -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN pip3 install --no-cache-dir -U pip -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN python3 -m pip install --requirement=requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN uv pip install -rrequirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN pip install -c constraints.txt x",
            3,
            "add `COPY constraints.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN [\"pip\", \"install\", \"-r\", \"requirements.txt\"]",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        ("WORKDIR /app\nRUN python3 -u -X dev src/train.py", 3, "add `COPY src/train.py src/` before line 3"),
        (
            "WORKDIR /app\nRUN set -ex && cd src && python ../run.sh",
            3,
            "add `COPY run.sh /app/` before line 3",
        ),
        ("WORKDIR /app\nRUN bash -ex run.sh", 3, "add `COPY run.sh ./` before line 3"),
        ("WORKDIR /app\nRUN ./run.sh && echo done", 3, "add `COPY run.sh ./` before line 3"),
        (
            "WORKDIR /app\nRUN bash -lc 'pip install -r requirements.txt'",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        ("WORKDIR /app\nRUN A=1 exec python run.sh", 3, "add `COPY run.sh ./` before line 3"),
        ("WORKDIR /app\nRUN npm ci", 3, "add `COPY package.json ./` before line 3"),
        ("WORKDIR /app\nRUN yarn", 3, "add `COPY package.json ./` before line 3"),
        ("WORKDIR /app\nRUN make -f build.mk all", 3, "add `COPY build.mk ./` before line 3"),
        (
            "WORKDIR /app\nRUN conda env create -f environment.yml",
            3,
            "add `COPY environment.yml ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN <<EOF\nset -e\npip install -r requirements.txt\nEOF",
            5,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN apt-get update && \\\n  # comment\n  pip install -r requirements.txt",
            5,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nENV F=requirements.txt\nRUN pip install -r $F",
            4,
            "add `COPY requirements.txt ./` before line 4",
        ),
        (
            "ARG F=requirements.txt\nWORKDIR /app\nRUN pip install -r \"${F}\"",
            4,
            "add `COPY requirements.txt ./` before line 4",
        ),
        (
            "WORKDIR /app\nRUN echo a > b.txt; pip install -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN torchrun --nproc_per_node=2 src/train.py --x",
            3,
            "add `COPY src/train.py src/` before line 3",
        ),
        (
            "WORKDIR /app\nCOPY requirements.txt run.sh /other/\nRUN pip install -r requirements.txt",
            4,
            "add `COPY requirements.txt ./` before line 4, or run `pip install -r /other/requirements.txt` here",
        ),
        (
            "WORKDIR /app\nCOPY . /src\nRUN pip install -r requirements.txt",
            4,
            "change line 3 to `COPY . /app/`, or run `pip install -r /src/requirements.txt` here",
        ),
        (
            "COPY requirements.txt run.sh /app/\nRUN pip install -r /app/constraints.txt",
            3,
            "add `COPY constraints.txt /app/` before line 3",
        ),
    ] {
        let files = [
            "requirements.txt",
            "constraints.txt",
            "src/train.py",
            "run.sh",
            "package.json",
            "build.mk",
            "environment.yml",
        ];
        let found = missing(body, &files);
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert_eq!((found[0].0, found[0].2.as_str()), (line, hint), "{body}");
    }
}

#[test]
fn files_that_are_there_are_not_missed() {
    for body in [
        "WORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt ./\nRUN pip install -r ./requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt /app\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt /app/requirements.txt\nRUN pip install -r requirements.txt",
        "COPY requirements.txt /app/\nWORKDIR /app\nRUN pip install -r requirements.txt",
        "COPY requirements.txt /app/\nRUN cd /app && pip install -r requirements.txt",
        "COPY requirements.txt /app/\nRUN (cd /app; pip install -r requirements.txt)",
        "COPY requirements.txt /tmp\nRUN pip install -r /tmp/requirements.txt",
        "WORKDIR /app\nCOPY . .\nRUN python src/train.py && ./run.sh",
        "WORKDIR /app\nCOPY src ./\nRUN python train.py",
        "WORKDIR /app\nCOPY src/ src/\nRUN cd src; python train.py",
        "WORKDIR /app\nCOPY req*.txt ./\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY [\"requirements.txt\", \"run.sh\", \"./\"]\nRUN pip install -r requirements.txt && sh run.sh",
        "WORKDIR /a\nWORKDIR b\nCOPY requirements.txt ../x/\nRUN pip install -r ../x/requirements.txt",
        "ENV D=/app\nWORKDIR $D\nCOPY requirements.txt $D/\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY <<x.py ./\nprint(1)\nx.py\nRUN python x.py",
        "WORKDIR /app\nCOPY <<EOF x.py\nprint(1)\nEOF\nRUN python x.py",
        "WORKDIR /app\nADD https://example.com/x.py ./\nRUN python x.py",
        "WORKDIR /app\nADD src.tar.gz .\nRUN python x.py",
        "WORKDIR /app\nRUN --mount=type=bind,source=requirements.txt,target=requirements.txt pip install -r requirements.txt",
        "WORKDIR /app\nRUN --mount=type=bind,target=/src pip install -r /src/requirements.txt && cd /src && ./run.sh",
        "WORKDIR /app\nRUN --mount=type=cache,target=/app pip install -r requirements.txt",
        // Made by an earlier command.
        "WORKDIR /app\nRUN echo 'x' > requirements.txt\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nRUN echo x | tee requirements.txt && pip install -r requirements.txt",
        "WORKDIR /app\nRUN curl -fsSLo get-pip.py https://x.org/get-pip.py && python get-pip.py",
        "WORKDIR /app\nRUN curl -O https://x.org/a/get-pip.py?x=1 && python get-pip.py",
        "WORKDIR /app\nRUN wget -q https://x.org/install.sh && bash install.sh",
        "WORKDIR /app\nRUN wget -qO install.sh https://x.org/ && bash install.sh",
        "WORKDIR /app\nRUN git clone --depth 1 https://x.org/a/repo.git && cd repo && ./configure && pip install -r requirements.txt",
        "WORKDIR /app\nRUN git clone https://x.org/a/repo code\nRUN python code/train.py",
        "WORKDIR /app\nRUN curl https://x.org/a.tgz | tar xz && ./install.sh",
        "WORKDIR /app\nRUN tar -xf /a.tar -C /app && ./install.sh",
        "WORKDIR /app\nRUN some-tool make things\nRUN python x.py",
        "WORKDIR /app\nRUN cp /usr/share/x.py . && python x.py",
        "WORKDIR /app\nRUN python -c 'open(\"x.py\", \"w\")'\nRUN python x.py",
        "WORKDIR /app\nRUN f() { echo; }; python x.py",
        // Guarded, unknown, or not a file of ours.
        "WORKDIR /app\nRUN if [ -f requirements.txt ]; then pip install -r requirements.txt; fi",
        "WORKDIR /app\nRUN [ -f x.txt ] && pip install -r x.txt",
        "WORKDIR /app\nRUN test -f x.txt && pip install -r x.txt || true",
        "WORKDIR /app\nRUN pip install -r x.txt || echo none",
        "WORKDIR /app\nRUN for f in *.txt; do pip install -r $f; done",
        "WORKDIR /app\nRUN pip install -r $WHICH",
        "WORKDIR /app\nRUN F=a.txt; pip install -r $F",
        "WORKDIR /app\nRUN pip install -r $(ls *.txt)",
        "WORKDIR /app\nRUN pip install -r https://x.org/requirements.txt",
        "WORKDIR /app\nRUN python -m pytest && python - <<EOF\nEOF\n",
        "WORKDIR /app\nRUN python /opt/tool/run.py && bash /usr/local/bin/x.sh",
        "WORKDIR /app\nRUN npm install -g typescript",
        "WORKDIR /app\nRUN cd $HOME && pip install -r requirements.txt",
        "WORKDIR $UNKNOWN\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt $UNKNOWN/\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nSHELL [\"python\", \"-c\"]\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nRUN <<EOF\n#!/usr/bin/env python3\npip install -r x.txt\nEOF",
        "WORKDIR /app\nRUN echo 'pip install -r x.txt'",
        "WORKDIR /app\nRUN cat <<EOF > x.sh\npip install -r x.txt\nEOF\n",
        "ONBUILD RUN pip install -r requirements.txt",
        "# check=skip=run-missing-file\n",
    ] {
        let found = missing(body, &["requirements.txt", "src/train.py", "run.sh", "src.tar.gz"]);
        assert_eq!(found, [], "{body}");
    }
}

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
fn hints_when_the_context_has_no_such_file() {
    let found = missing("WORKDIR /app\nRUN pip install -r requirement.txt", &["requirements.txt"]);
    assert!(found[0].2.ends_with("did you mean `requirements.txt`?"), "{found:?}");
    assert!(found[0].2.starts_with("the build context has no `requirement.txt` either"), "{found:?}");
    let found = missing("WORKDIR /app\nRUN python train.py", &["code/train.py"]);
    assert_eq!(found[0].2, "add `COPY code/train.py ./` before line 3");
    let text = "FROM python:3.12\nWORKDIR /app\nRUN pip install -r requirements.txt";
    let case = Case { files: &["requirements.txt"], ignore: "# all text\n*.txt\n", ..PLAIN };
    let hint = run(text, &case)[0].hint.clone().unwrap();
    assert!(hint.starts_with("`requirements.txt` is excluded by .dockerignore (line 2: `*.txt`)"), "{hint}");
    let text = "FROM scratch\nWORKDIR /app\nRUN python train.py";
    assert!(!run(text, &PLAIN)[0].message.contains("base image"));
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
fn sources_of_copies() {
    let files = ["a.txt", "dir/b.txt", "dir/c.md", "secret.env", "out/x"];
    for (body, expected) in [
        ("COPY a.txt /x/", vec![]),
        ("COPY dir dir/ ./dir /a.txt /x/", vec![]),
        ("COPY dir/*.txt d?r/[bc].md *.txt /x/", vec![]),
        ("COPY . /x/", vec![]),
        ("COPY b.txt /x/", vec!["`b.txt` is not in the build context|did you mean `a.txt`?"]),
        ("COPY dir/bb.txt /x/", vec!["`dir/bb.txt` is not in the build context|did you mean `dir/b.txt`?"]),
        (
            "COPY nowhere.csv /x/",
            vec![
                "`nowhere.csv` is not in the build context|create `nowhere.csv` in the context folder, or take it out of this line",
            ],
        ),
        (
            "COPY ../other /x/",
            vec![
                "`../other` is not in the build context|a source cannot leave the context: build with the parent folder as context (`-f` names the Dockerfile)",
            ],
        ),
        (
            "COPY secret.env /x/",
            vec![
                "`secret.env` is in the context but .dockerignore excludes it (line 1: `*.env`)|remove that line from .dockerignore, or add `!secret.env` behind it",
            ],
        ),
        (
            "COPY out /x/",
            vec![
                "`out` is in the context but .dockerignore excludes it (line 2: `out`)|remove that line from .dockerignore, or add `!out` behind it",
            ],
        ),
        ("ADD https://x.org/a git@x.org:a.git /x/", vec![]),
        (
            "COPY https://x.org/a /x/",
            vec![
                "`https://x.org/a` is not in the build context|create `https:/x.org/a` in the context folder, or take it out of this line",
            ],
        ),
        ("COPY $UNKNOWN /x/", vec![]),
        (
            "ENV F=a.txt\nCOPY ${F} ${F%.txt}.md /x/",
            vec![
                "`a.md` is not in the build context|create `a.md` in the context folder, or take it out of this line",
            ],
        ),
        ("COPY --from=x:1 whatever /x/", vec![]),
        ("COPY <<f /x/\nf\n", vec![]),
    ] {
        let text = format!("FROM python:3.12\n{body}");
        let case = Case { files: &files, ignore: "*.env\nout\n", ..PLAIN };
        let found: Vec<Diagnostic> =
            run(&text, &case).into_iter().filter(|found| found.code == "copy-missing-source").collect();
        let texts: Vec<String> =
            found.iter().map(|d| format!("{}|{}", d.message, d.hint.clone().unwrap_or_default())).collect();
        assert_eq!(texts, expected, "{body}");
        assert!(found.iter().all(|found| found.severity == Severity::Error));
    }
    let case = Case { files: &files, ignore: "*.env\n", ..PLAIN };
    let found = run("FROM a:1\nCOPY *.csv *.env /x/", &case);
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|d| d.code == "copy-missing-source" && d.severity == Severity::Warning),
        "{found:?}"
    );
    assert!(found[1].message.contains("line 1: `*.env`"), "{found:?}");
}

#[test]
fn relative_copies_before_a_workdir() {
    let rule = "copy-relative-before-workdir";
    let files = ["a.py", "requirements.txt"];
    for (body, count) in [
        ("COPY a.py data/", 1),
        ("COPY . .", 1),
        ("ADD a.py x", 1),
        ("COPY a.py /data/", 0),
        ("WORKDIR /app\nCOPY a.py data/", 0),
        ("WORKDIR app\nCOPY a.py data/", 1),
        ("COPY requirements.txt .\nRUN pip install -r requirements.txt", 0),
        ("COPY requirements.txt .\nWORKDIR /app\nRUN pip install -r requirements.txt", 1),
        ("COPY a.py $DIR/", 0),
    ] {
        assert_eq!(only(rule, body, &files).len(), count, "{body}");
    }
    let found = only(rule, "COPY a.py data/\nWORKDIR /app", &files);
    assert_eq!(
        found[0].hint.as_deref(),
        Some(
            "move `WORKDIR /app` (line 3) before line 2, or write an absolute destination such as `/app/data/`"
        )
    );
    let case = Case { files: &files, ..PLAIN };
    assert_eq!(codes("FROM scratch\nCOPY a.py x\n", &case), [""; 0]);
    let text = "FROM a:1 AS x\nWORKDIR /app\nFROM x\nCOPY a.py data/\n";
    assert_eq!(codes(text, &case), [""; 0]);
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

#[test]
fn secrets_in_names() {
    for name in [
        "PASSWORD",
        "DB_PASSWORD",
        "dbPassword",
        "POSTGRES_PASSWD",
        "API_KEY",
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "CLIENT_SECRET",
        "GCP_CREDENTIALS",
        "SSH_PRIVATE_KEY",
        "APIKEY",
    ] {
        assert!(secrets::is_secret(name), "{name}");
    }
    for name in [
        "KEY",
        "MAX_TOKENS",
        "MAX_TOKEN",
        "PAD_TOKEN",
        "TOKENIZERS_PARALLELISM",
        "PUBLIC_KEY",
        "PASSWORD_FILE",
        "TOKEN_URL",
        "KEYBOARD",
        "PYTHONPATH",
        "AUTHOR",
        "SECRETARY",
        "MONKEY",
        "TOKEN_LENGTH",
        "SSH_PUBLIC_KEY",
    ] {
        assert!(!secrets::is_secret(name), "{name}");
    }
    assert_eq!(only("secret-in-env", "ENV HF_TOKEN=hf_x A=1\nENV API_KEY=", &[]).len(), 1);
    assert_eq!(only("secret-in-arg", "ARG HF_TOKEN\nARG A", &[]).len(), 1);
    assert_eq!(codes("ARG HF_TOKEN\nFROM a:1", &PLAIN), ["secret-in-arg:1"]);
}

#[test]
fn variables_that_nobody_sets() {
    let hints = |text: &str| -> Vec<String> {
        run(text, &PLAIN)
            .into_iter()
            .filter(|found| found.code == "undefined-variable")
            .map(|found| found.hint.unwrap_or_default())
            .collect()
    };
    // The base image may set it.
    assert_eq!(hints("FROM a:1\nENV A=$JAVA_HOME/x PATH=$PATH:/y"), [""; 0]);
    assert_eq!(hints("FROM a:1\nENV MODEL_DIR=/m\nWORKDIR $MODEL_DRI"), ["did you mean `$MODEL_DIR`?"]);
    assert_eq!(
        hints("ARG V=1\nFROM a:1\nENV A=$V"),
        ["ARG before FROM holds for FROM only: write `ARG V` in this stage too"]
    );
    assert_eq!(hints("ARG V=1\nFROM a:1\nARG V\nENV A=$V"), [""; 0]);
    assert_eq!(hints("FROM a:1\nWORKDIR $D\nENV D=/x"), ["it is set only in line 3; move this behind it"]);
    assert_eq!(
        hints("FROM a:1\nENV A=1 B=$A"),
        ["it is set by this same ENV, which counts from the next instruction on: write two ENVs"]
    );
    assert_eq!(hints("FROM a:1\nENV A=1\nENV A=$A:2"), [""; 0]);
    assert_eq!(hints("FROM scratch\nENV A=$B").len(), 1);
    assert_eq!(hints("FROM scratch\nENV A=${B:-x}${C+y} D=$HTTP_PROXY E=$PATH"), [""; 0]);
    assert_eq!(hints("FROM scratch\nARG B\nENV A=$B"), [""; 0]);
    assert_eq!(hints("FROM scratch AS s\nENV B=1\nFROM s\nENV A=$B"), [""; 0]);
    assert_eq!(hints("FROM scratch\nARG TARGETARCH\nCOPY --from=x:1 /$TARGETARCH /"), [""; 0]);
}

#[test]
fn the_smaller_rules() {
    for (body, expected) in [
        ("CMD a\nCMD [\"b\"]", vec!["json-args-recommended:2", "multiple-cmd:2"]),
        ("ENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]", vec!["multiple-entrypoint:2"]),
        ("HEALTHCHECK NONE\nHEALTHCHECK CMD x", vec!["multiple-healthcheck:2"]),
        ("SHELL [\"/bin/bash\", \"-c\"]\nCMD a $B", vec![]),
        ("WORKDIR app", vec!["relative-workdir:2"]),
        ("WORKDIR /\nWORKDIR app", vec![]),
        ("MAINTAINER ada", vec!["maintainer-deprecated:2"]),
        ("ENV A b\nLABEL c d", vec!["legacy-key-value:2", "legacy-key-value:3"]),
        ("RUN apt-get install -y git", vec!["apt-without-update:2"]),
        ("RUN apt-get update && apt-get install -y git", vec![]),
        ("RUN apt-get update\nRUN apt-get install -qq git", vec![]),
        ("RUN apt-get update && apt-get install git", vec!["apt-without-yes:2"]),
        ("RUN apt-get update && apt install --no-install-recommends -y git", vec![]),
        ("RUN apt-get update && apt-get $OPTIONS install git", vec![]),
        ("RUN ./setup.sh; apt-get install -y git", vec!["run-missing-file:2"]),
    ] {
        let mut found = codes(&format!("FROM a:1\n{body}"), &PLAIN);
        found.sort();
        assert_eq!(found, expected, "{body}");
    }
    let hint = |body: &str| run(&format!("FROM a:1\n{body}"), &PLAIN)[0].hint.clone().unwrap();
    assert_eq!(hint("CMD python app.py"), "write `CMD [\"python\", \"app.py\"]`");
    assert_eq!(hint("ENV A b c"), "write `ENV A=\"b c\"`");
    assert_eq!(hint("WORKDIR app"), "write an absolute path: `WORKDIR /app`");
}

#[test]
fn rules_can_be_skipped_or_made_errors() {
    let body = "FROM python\nCMD a\nMAINTAINER b\n";
    assert_eq!(codes(body, &PLAIN).len(), 3);
    for (directive, expected) in [
        ("# check=skip=floating-base,json-args-recommended", vec!["maintainer-deprecated:4"]),
        ("# check=skip=JSONArgsRecommended,MaintainerDeprecated", vec!["floating-base:2"]),
        ("# check=skip=all", vec![]),
        (
            "# check=skip=MultipleInstructionsDisallowed,SecretsUsedInArgOrEnv,FLOATING-BASE",
            vec!["json-args-recommended:3", "maintainer-deprecated:4"],
        ),
    ] {
        assert_eq!(codes(&format!("{directive}\n{body}"), &PLAIN), expected, "{directive}");
    }
    let found = run(&format!("# check=error=true\n{body}"), &PLAIN);
    assert!(found.iter().all(|found| found.severity == Severity::Error));
}

#[test]
fn a_folder_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("src/deep")).unwrap();
    std::fs::write(folder.path().join("src/a.py"), "").unwrap();
    std::fs::write(folder.path().join("b.env"), "").unwrap();
    let ignore = Ignore::parse("*.env\nsrc/deep\n").unwrap();
    let files = OnDisk { root: folder.path(), ignore: &ignore };
    assert_eq!(files.entry("").unwrap().kind, FileKind::Folder);
    assert_eq!(files.entry("src/a.py"), Some(Entry { kind: FileKind::File, ignored_by: None }));
    assert_eq!(files.entry("b.env").unwrap().ignored_by.unwrap().line, 1);
    assert!(files.entry("src/deep").unwrap().ignored_by.is_some());
    assert!(files.entry("none").is_none() && files.entry("../x").is_none());
    let mut names: Vec<String> = files.list("src").into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a.py", "deep"]);
    assert_eq!(files.list("none"), []);
}

proptest! {
    #[test]
    fn never_panics(
        lines in prop::collection::vec("(RUN|COPY|ENV|ARG|WORKDIR|ADD|CMD|FROM|USER) [-a-c$'\"&|;<>(){}=./ \\\\üEOF#!`*?\\[\\]~^:0-9]{0,24}", 0..8)
    ) {
        let text = format!("FROM a:1\n{}", lines.join("\n"));
        let parsed = parse(&text);
        let files = Files::new(&["a", "b/c"], "b\n");
        let context = CheckContext {
            text: &text,
            files: &files,
            build_args: &BTreeMap::new(),
            target: None,
            bases: &|_| None,
        };
        for found in check(&parsed.dockerfile, &context) {
            prop_assert!(found.span.start <= found.span.end && found.span.end <= text.len());
            prop_assert!(text.is_char_boundary(found.span.start) && text.is_char_boundary(found.span.end));
        }
    }

    #[test]
    fn scripts_are_read_to_their_end(script in "(if|then|fi|for|do|done|case|esac|a|\\(|\\)|\\{|\\}|&&|\\|\\||;|\\||'|\"|\\$\\(|\\$\\{|<<E|>|2>&1|\\\\|\n| |ü|`|=){0,30}") {
        let script_read = shell::read(&script, &|_| None);
        for command in &script_read.commands {
            for word in &command.words {
                prop_assert!(word.start <= word.end && script.get(word.start..word.end).is_some());
            }
        }
    }
}
