//! The other instructions.

use std::time::Duration;

use super::*;

#[test]
fn from_and_stages() {
    let text =
        "ARG A=1 B\nFROM --platform=linux/amd64 tensorflow/tensorflow:2.21 AS Build\nRUN x\nfrom scratch\n";
    let Parsed { dockerfile, diagnostics } = parse(text);
    assert_eq!(diagnostics, []);
    let args: Vec<(&str, Option<&str>)> = dockerfile.globals[0]
        .args
        .iter()
        .map(|arg| (arg.name.text.as_str(), arg.default.as_ref().map(|word| word.text.as_str())))
        .collect();
    assert_eq!(args, [("A", Some("1")), ("B", None)]);
    let [build, last] = dockerfile.stages.as_slice() else { panic!() };
    assert_eq!(build.platform.as_ref().unwrap().text, "linux/amd64");
    assert_eq!(build.image.text, "tensorflow/tensorflow:2.21");
    assert_eq!(&text[build.image.span.start..build.image.span.end], "tensorflow/tensorflow:2.21");
    assert_eq!(build.name.as_ref().unwrap().text, "build");
    assert_eq!((build.line, build.instructions.len()), (2, 1));
    assert_eq!((last.line, last.image.text.as_str(), &last.name), (4, "scratch", &None));
}

#[test]
fn copy_and_add() {
    let copy = only!("COPY --from=build --chown=1:2 --chmod=0755 --link a  b/ /c/", Copy);
    let sources: Vec<&str> = copy
        .sources
        .iter()
        .map(|source| match source {
            Source::Path(word) => word.text.as_str(),
            Source::Heredoc(doc) => doc.name.as_str(),
        })
        .collect();
    assert_eq!((sources, copy.destination.text.as_str(), copy.link), (vec!["a", "b/"], "/c/", true));
    assert_eq!(copy.from.unwrap().text, "build");
    assert_eq!((copy.chown.unwrap().text, copy.chmod.unwrap().text), ("1:2".to_owned(), "0755".to_owned()));

    let copy = only!("COPY [\"with space\", \"to/\"]", Copy);
    assert!(matches!(&copy.sources[0], Source::Path(word) if word.text == "with space"));

    let add = only!("ADD --checksum=sha256:12 https://example.com/a.tar.gz /x", Add);
    assert_eq!(add.checksum.unwrap().text, "sha256:12");

    let copy =
        only!("COPY <<app.py b.txt <<-\"run.sh\" /app/\nprint($X)\napp.py\n\techo $X\n\trun.sh\n", Copy);
    let [Source::Heredoc(app), Source::Path(path), Source::Heredoc(run)] = copy.sources.as_slice() else {
        panic!("{copy:?}")
    };
    assert_eq!((app.name.as_str(), app.text().as_str(), app.expand), ("app.py", "print($X)\n", true));
    assert_eq!(path.text, "b.txt");
    assert_eq!((run.name.as_str(), run.text().as_str(), run.expand), ("run.sh", "echo $X\n", false));
    assert_eq!(copy.destination.text, "/app/");

    for (body, code) in [
        ("COPY a", "missing-argument"),
        ("COPY", "missing-argument"),
        ("COPY --from=x", "missing-argument"),
        ("COPY [\"a\"]", "missing-argument"),
        ("COPY [\"a\", 1]", "exec-form-not-strings"),
        ("COPY --exclude . /x", "invalid-flag"),
        ("COPY --parents=maybe a/b /x", "invalid-flag"),
        ("ADD --parents a/b /x", "unknown-flag"),
        ("ADD --keep-git-dir=true a /x", "unsupported-flag"),
        ("COPY --chwon=1 a /x", "unknown-flag"),
        ("ADD --from=x a /x", "unknown-flag"),
        ("COPY --chown a /x", "invalid-flag"),
        ("COPY --link=maybe a /x", "invalid-flag"),
        ("COPY --from=$X a /x", "invalid-flag"),
        ("COPY --from=a --from=b c /x", "duplicate-flag"),
        ("COPY a ${X", "invalid-expansion"),
        ("COPY a <<EOF\nx\nEOF", "invalid-heredoc"),
    ] {
        let (_, diagnostics) = stage(body);
        assert_eq!(diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), [code], "{body}");
    }
    let (_, diagnostics) = stage("COPY --chwon=1 a /x");
    assert_eq!(diagnostics[0].hint.as_deref(), Some("did you mean `--chown`?"));
}

#[test]
fn pairs() {
    let pairs = |kind: Vec<KeyValue>| -> Vec<(String, String, bool)> {
        kind.into_iter().map(|pair| (pair.key.text, pair.value.text, pair.legacy)).collect()
    };
    let own = |key: &str, value: &str, legacy| (key.to_owned(), value.to_owned(), legacy);
    assert_eq!(
        pairs(only!("ENV A=1 B=\"x y\" C=x\\ y D= E='=' \\\n  F=$A", Env)),
        [
            own("A", "1", false),
            own("B", "\"x y\"", false),
            own("C", "x\\ y", false),
            own("D", "", false),
            own("E", "'='", false),
            own("F", "$A", false)
        ]
    );
    assert_eq!(pairs(only!("ENV PATH  /a:$PATH b", Env)), [own("PATH", "/a:$PATH b", true)]);
    assert_eq!(
        pairs(only!("LABEL \"a.b\"=c d=\"e=f\"", Label)),
        [own("\"a.b\"", "c", false), own("d", "\"e=f\"", false)]
    );
    for (body, found) in [
        ("ENV A", vec!["missing-argument"]),
        ("ENV", vec!["missing-argument"]),
        ("ENV =x", vec!["missing-argument"]),
        ("ENV A=b c", vec!["missing-equals"]),
        ("ENV A='b", vec!["invalid-expansion"]),
        ("LABEL A", vec!["missing-argument"]),
        ("ENV --x A=b", vec!["unknown-flag"]),
    ] {
        let (_, diagnostics) = stage(body);
        assert_eq!(diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), found, "{body}");
    }
    let (_, diagnostics) = stage("ENV A=b c");
    assert_eq!(diagnostics[0].hint.as_deref(), Some("a value with spaces needs quotes: `A=\"b c\"`"));
}

#[test]
fn the_other_instructions() {
    let args = only!("ARG A B= C=\"x y\" D=$A", Arg);
    let args: Vec<(&str, Option<&str>)> = args
        .iter()
        .map(|arg| (arg.name.text.as_str(), arg.default.as_ref().map(|word| word.text.as_str())))
        .collect();
    assert_eq!(args, [("A", None), ("B", Some("")), ("C", Some("\"x y\"")), ("D", Some("$A"))]);
    assert_eq!(only!("WORKDIR  /a b/c ", Workdir).text, "/a b/c");
    assert_eq!(only!("USER 1000:ada", User).text, "1000:ada");
    assert_eq!(exec(&only!("ENTRYPOINT [\"a\", \"b\"]", Entrypoint)), ["a", "b"]);
    assert_eq!(exec(&only!("ENTRYPOINT []", Entrypoint)), Vec::<&str>::new());
    assert_eq!(shell(&only!("CMD a  b", Cmd)), "a  b");
    assert_eq!(texts(&only!("EXPOSE 80 $P 8000-8002/udp", Expose)), ["80", "$P", "8000-8002/udp"]);
    assert_eq!(texts(&only!("VOLUME /a /b", Volume)), ["/a", "/b"]);
    assert_eq!(texts(&only!("VOLUME [\"/a b\"]", Volume)), ["/a b"]);
    assert_eq!(only!("STOPSIGNAL SIGRTMIN+3", StopSignal).text, "SIGRTMIN+3");
    assert_eq!(texts(&only!("SHELL [\"/bin/bash\", \"-c\"]", Shell)), ["/bin/bash", "-c"]);
    assert_eq!(only!("MAINTAINER Ada <ada@example.com>", Maintainer).text, "Ada <ada@example.com>");
    for (body, code) in [
        ("EXPOSE 70000", "invalid-port"),
        ("EXPOSE 8080:80", "invalid-port"),
        ("EXPOSE 80/icmp", "invalid-port"),
        ("EXPOSE 9-8", "invalid-port"),
        ("STOPSIGNAL SIGFOO", "invalid-signal"),
        ("STOPSIGNAL 99", "invalid-signal"),
        ("SHELL bash -c", "exec-form-invalid"),
        ("SHELL []", "missing-argument"),
        ("VOLUME [\"\"]", "missing-argument"),
        ("WORKDIR", "missing-argument"),
        ("ARG =x", "missing-argument"),
        ("CMD [1]", "exec-form-not-strings"),
        ("RUN []", "missing-argument"),
        ("RUN --network=bridge x", "invalid-flag"),
        ("RUN --security=insecure x", "unsupported-flag"),
        ("RUN --device=gpu x", "unsupported-flag"),
    ] {
        let (_, diagnostics) = stage(body);
        assert_eq!(diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), [code], "{body}");
        assert_eq!(diagnostics[0].severity, Severity::Error, "{body}");
    }
    let (_, diagnostics) = stage("SHELL bash -c");
    assert_eq!(diagnostics[0].hint.as_deref(), Some("write `SHELL [\"bash\", \"-c\"]`"));
}

#[test]
fn healthchecks() {
    assert_eq!(only!("HEALTHCHECK none", Healthcheck), Healthcheck::None);
    let body = "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1.5h --start-interval=2s --retries=5 \
                CMD curl -f http://localhost/ || exit 1";
    let Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } =
        only!(body, Healthcheck)
    else {
        panic!()
    };
    assert_eq!(shell(&command), "curl -f http://localhost/ || exit 1");
    assert_eq!(interval, Some(Duration::from_secs(90)));
    assert_eq!(timeout, Some(Duration::from_millis(500)));
    assert_eq!(start_period, Some(Duration::from_secs(5400)));
    assert_eq!((start_interval, retries), (Some(Duration::from_secs(2)), Some(5)));
    let Healthcheck::Check { command, .. } = only!("HEALTHCHECK CMD [\"/ok\"]", Healthcheck) else {
        panic!()
    };
    assert_eq!(exec(&command), ["/ok"]);
    for (body, code) in [
        ("HEALTHCHECK", "missing-argument"),
        ("HEALTHCHECK NONE x", "too-many-arguments"),
        ("HEALTHCHECK CMD", "missing-argument"),
        ("HEALTHCHECK CMD []", "missing-argument"),
        ("HEALTHCHECK curl x", "invalid-healthcheck"),
        ("HEALTHCHECK --interval=3 CMD x", "invalid-duration"),
        ("HEALTHCHECK --interval=1us CMD x", "invalid-duration"),
        ("HEALTHCHECK --interval=-1s CMD x", "invalid-duration"),
        ("HEALTHCHECK --retries=-1 CMD x", "invalid-retries"),
        ("HEALTHCHECK --retry=1 CMD x", "unknown-flag"),
    ] {
        let (_, diagnostics) = stage(body);
        assert_eq!(diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), [code], "{body}");
    }
}

#[test]
fn onbuild_and_its_triggers() {
    let onbuild = only!("ONBUILD copy --link . \\\n /app", Onbuild);
    assert_eq!(onbuild.trigger, "copy --link .  /app");
    assert!(matches!(onbuild.instruction.kind, InstructionKind::Copy(_)));
    let again = parse_trigger(&onbuild.trigger).unwrap();
    assert!(matches!(again.kind, InstructionKind::Copy(copy) if copy.link));

    let onbuild = only!("ONBUILD RUN <<EOF\necho $A\nEOF\n", Onbuild);
    assert_eq!(onbuild.trigger, "RUN <<EOF\necho $A\nEOF");
    let InstructionKind::Run(run) = parse_trigger(&onbuild.trigger).unwrap().kind else { panic!() };
    assert_eq!(run.program(), RunProgram::Shell("echo $A\n".to_owned()));

    for bad in [
        "ONBUILD ONBUILD RUN x",
        "ONBUILD FROM x",
        "ONBUILD MAINTAINER x",
        "ONBUILD",
        "ONBUILD FOO x",
        "ONBUILD RUN",
    ] {
        let (stage, diagnostics) = stage(bad);
        assert_eq!((stage.instructions.len(), diagnostics.len()), (0, 1), "{bad}");
    }
    for bad in ["", "FROM x", "ONBUILD RUN x", "RUN x\nRUN y", "COPY a", "MAINTAINER x"] {
        assert!(!parse_trigger(bad).unwrap_err().is_empty(), "{bad}");
    }
}

#[test]
fn ports() {
    assert_eq!(parse_ports("80").unwrap(), ["80/tcp"]);
    assert_eq!(parse_ports("53/UDP").unwrap(), ["53/udp"]);
    assert_eq!(parse_ports("8000-8002/tcp").unwrap(), ["8000/tcp", "8001/tcp", "8002/tcp"]);
    assert_eq!(parse_ports("1-65535").unwrap().len(), 65535);
    for bad in ["", "0", "x", "80/", "-", "1-", "+80", "80/tcp/udp", "2-1", "65536"] {
        assert!(parse_ports(bad).is_err(), "{bad}");
    }
}
