//! Whole files: real ones, cut ones, and those made by chance.

use proptest::prelude::*;

use super::*;

#[test]
fn a_realistic_file_has_nothing_wrong() {
    for text in CORPUS {
        let parsed = parse(text);
        assert_eq!(parsed.diagnostics, [], "{text}");
    }
}

/// Dockerfiles of the kind that this field writes.
const CORPUS: [&str; 4] = [
    r#"# syntax=docker/dockerfile:1.7
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS deps
WORKDIR /build
COPY requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-cache-dir -r requirements.txt # pinned

FROM deps AS train
COPY --chown=1000:1000 train.py data/ ./
ENV MODEL_DIR=/models \
    # comments may stand here
    EPOCHS=3
RUN python train.py --epochs "${EPOCHS}" --out "$MODEL_DIR"

FROM python:${PYTHON}-slim
COPY --from=train /models /models
USER 1000
EXPOSE 8080/tcp
HEALTHCHECK --interval=30s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8080')"]
ENTRYPOINT ["python", "-m", "serve"]
CMD ["--port", "8080"]
"#,
    r#"FROM debian:12
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN <<EOF
apt-get update
apt-get install -y --no-install-recommends python3 ca-certificates
rm -rf /var/lib/apt/lists/*
EOF
COPY <<config.yaml <<'run.sh' /etc/app/
model: ${MODEL:-digits}
config.yaml
#!/bin/sh
exec python3 /app/main.py "$@"
run.sh
RUN python3 - <<'PY' > /etc/app/generated
import json
print(json.dumps({"a": 1}))
PY
VOLUME ["/data", "/models"]
STOPSIGNAL SIGINT
LABEL org.opencontainers.image.title="An app" \
      org.opencontainers.image.version='1.0'
ONBUILD RUN echo built
"#,
    "FROM nvidia/cuda:12.4.1-runtime-ubuntu22.04\r\nENV DEBIAN_FRONTEND noninteractive\r\nRUN apt-get update && \\\r\n    apt-get install -y python3-pip\r\nADD https://example.com/weights.bin /models/\r\nCMD python3 serve.py --port $PORT\r\n",
    "# escape=`\nFROM mcr.example.com/windows:1\nCOPY a.txt C:\\dir\\\nRUN dir `\n  C:\\\n",
];

fn check_spans(parsed: &Parsed, text: &str) -> Result<(), TestCaseError> {
    let fine = |span: Span| {
        span.start <= span.end && text.is_char_boundary(span.start) && text.is_char_boundary(span.end)
    };
    for diagnostic in &parsed.diagnostics {
        prop_assert!(fine(diagnostic.span), "{diagnostic:?}");
        prop_assert!(diagnostic.line >= 1 && diagnostic.line as usize <= text.matches('\n').count() + 1);
    }
    let debug = format!("{:?}", parsed.dockerfile);
    for (at, _) in debug.match_indices("Span { start: ") {
        let mut numbers =
            debug[at + 14..].split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let start = numbers.next().unwrap().parse().unwrap();
        let end = numbers.next().unwrap().parse().unwrap();
        prop_assert!(fine(Span { start, end }), "{start}..{end} {text:?}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,80}") {
        check_spans(&parse(&text), &text)?;
        let _ = parse_trigger(&text);
    }

    #[test]
    fn never_panics_on_what_looks_like_a_dockerfile(
        parts in prop::collection::vec(prop::sample::select(vec![
            "FROM ", "RUN ", "COPY ", "ENV ", "ARG ", "ONBUILD ", "HEALTHCHECK ", "CMD ", "LABEL ", "SHELL ", "EXPOSE ",
            "\n", "\r\n", "\\\n", "# ", "escape=`\n", "`\n", "<<EOF", "<<-'E'", "EOF\n", "\tE\n", "[\"a\", \"ü\"]", "[\"", "]",
            "--from=x ", "--mount=type=cache,target=", "--", "$A", "${A:-", "}", "'", "\"", "=", " ", "ü", "a", "\u{feff}", "\u{a0}",
            "AS b", "CMD", "NONE", "--interval=1s ", "80", "$((", "))", "\\", "\u{85}", "\r",
        ]), 0..24)
    ) {
        let text = parts.concat();
        let parsed = parse(&text);
        check_spans(&parsed, &text)?;
        for instruction in parsed.dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
            if let InstructionKind::Run(run) = &instruction.kind {
                let _ = run.program();
            }
        }
    }

    #[test]
    fn cut_files_never_panic(which in 0..CORPUS.len(), at in 0usize..2000) {
        let text = CORPUS[which];
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        check_spans(&parse(&text[..at]), &text[..at])?;
        check_spans(&parse(&text[at..]), &text[at..])?;
    }

    #[test]
    fn copies_come_back(sources in prop::collection::vec("[a-z0-9_./]{1,8}", 1..4), to in "[a-z/]{1,8}") {
        let text = format!("FROM a:1\nCOPY {} {to}", sources.join(" \\\n  "));
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.diagnostics, &[]);
        let InstructionKind::Copy(copy) = &parsed.dockerfile.stages[0].instructions[0].kind else {
            return Err(TestCaseError::fail("no COPY"));
        };
        let found: Vec<&str> = copy.sources.iter().map(|source| match source {
            Source::Path(word) => &text[word.span.start..word.span.end],
            Source::Heredoc(_) => "",
        }).collect();
        prop_assert_eq!(found, sources);
        prop_assert_eq!(&copy.destination.text, &to);
    }
}
