//! Sources and destinations of COPY and ADD.

use super::*;

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
