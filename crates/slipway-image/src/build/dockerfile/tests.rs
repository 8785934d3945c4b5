use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Parses one stage whose FROM is added.
fn stage(body: &str) -> (Stage, Vec<Diagnostic>) {
    let mut parsed = parse(&format!("FROM base:1\n{body}"));
    (parsed.dockerfile.stages.remove(0), parsed.diagnostics)
}

/// The only instruction of a stage that has nothing wrong.
fn one(body: &str) -> InstructionKind {
    let (mut stage, diagnostics) = stage(body);
    assert_eq!(diagnostics, [], "{body}");
    assert_eq!(stage.instructions.len(), 1, "{body}");
    stage.instructions.remove(0).kind
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn shell(command: &Command) -> &str {
    match command {
        Command::Shell(word) => &word.text,
        Command::Exec(words) => panic!("exec form {words:?}"),
    }
}

fn exec(command: &Command) -> Vec<&str> {
    match command {
        Command::Exec(words) => texts(words),
        Command::Shell(word) => panic!("shell form {word:?}"),
    }
}

fn codes(text: &str) -> Vec<String> {
    parse(text).diagnostics.into_iter().map(|d| format!("{}:{}:{}", d.code, d.line, d.column)).collect()
}

macro_rules! only {
    ($body:expr, $variant:ident) => {
        match one($body) {
            InstructionKind::$variant(inner) => inner,
            other => panic!("{other:?}"),
        }
    };
}

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
fn run_forms() {
    let run = only!("RUN echo \"a b\"  &&  ls", Run);
    assert_eq!(shell(&run.command), "echo \"a b\"  &&  ls");
    assert_eq!(run.program(), RunProgram::Shell("echo \"a b\"  &&  ls".to_owned()));

    let run = only!("run [\"python\", \"-c\", \"print(\\\"x, y\\\")\"]", Run);
    assert_eq!(exec(&run.command), ["python", "-c", "print(\"x, y\")"]);

    let run = only!("RUN --network=none --mount=type=cache,target=/root/.cache,sharing=locked -- --odd", Run);
    assert_eq!((shell(&run.command), run.network), ("--odd", RunNetwork::None));
    assert_eq!(run.mounts.len(), 1);

    // A test command of the shell is no JSON.
    assert_eq!(shell(&only!("RUN [ -f \"x\" ] && y", Run).command), "[ -f \"x\" ] && y");
    assert_eq!(shell(&only!("RUN [[ -f x ]]", Run).command), "[[ -f x ]]");
}

#[test]
fn run_mounts() {
    let body = "RUN --mount=source=a,target=/b,rw --mount=type=bind,from=tools,dst=/t \\\n \
                --mount=type=tmpfs,target=/tmp,size=64m --mount=type=secret,id=key,required,mode=0400,uid=7 \
                --mount=type=cache,id=pip,target=/c,ro x";
    let kinds: Vec<MountKind> = only!(body, Run).mounts.into_iter().map(|mount| mount.kind).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        kinds,
        [
            MountKind::Bind { from: None, source: text("a"), target: "/b".to_owned(), writable: true },
            MountKind::Bind { from: text("tools"), source: None, target: "/t".to_owned(), writable: false },
            MountKind::Tmpfs { target: "/tmp".to_owned(), size: Some(64 << 20) },
            MountKind::Secret {
                id: text("key"),
                target: None,
                env: None,
                required: true,
                owner: Ownership { mode: Some(0o400), uid: Some(7), gid: None },
            },
            MountKind::Cache {
                id: text("pip"),
                target: "/c".to_owned(),
                from: None,
                source: None,
                sharing: Sharing::Shared,
                read_only: true,
                owner: Ownership::default(),
            },
        ]
    );
    for (mount, code) in [
        ("type=ssh,source=/x", "invalid-mount"),
        ("type=ssh,env=X", "invalid-mount"),
        ("type=ssh,mode=0666", "invalid-mount"),
        ("type=secret,id=t,env=", "invalid-mount"),
        ("type=secret,id=t,env=A=B", "invalid-mount"),
        ("type=npipe,target=/x", "unsupported-mount"),
        ("type=tmpfs,target=/x,size=big", "invalid-mount"),
        ("type=bind,target=/x,size=1", "invalid-mount"),
        ("type=bind,target=/x,from=$X", "invalid-mount"),
        ("type=cache,target=/x,sharing=mine", "invalid-mount"),
        ("type=cache,target=/x,mode=9", "invalid-mount"),
        ("type=secret", "invalid-mount"),
        ("target=/x,readonli", "invalid-mount"),
    ] {
        let (_, diagnostics) = stage(&format!("RUN --mount={mount} x"));
        assert_eq!(diagnostics.len(), 1, "{mount}");
        assert_eq!(
            (diagnostics[0].code.as_str(), diagnostics[0].severity),
            (code, Severity::Error),
            "{mount}"
        );
    }
    let mounts = only!("RUN --mount=from=tools x", Run).mounts;
    assert!(matches!(&mounts[0].kind, MountKind::Bind { target, .. } if target == "."));
    let (_, diagnostics) = stage("RUN --mount=type=npipe x");
    assert_eq!(
        diagnostics[0].hint.as_deref(),
        Some("supported types are bind, cache, tmpfs, secret and ssh")
    );
}

#[test]
fn heredocs_of_run() {
    let run = only!("RUN <<EOF\nset -e\necho $A\nEOF\n", Run);
    assert_eq!(run.program(), RunProgram::Shell("set -e\necho $A\n".to_owned()));
    assert!(run.heredocs[0].expand && !run.heredocs[0].strip_tabs);

    let run = only!("RUN <<-'E O F'\n\techo a\n\t\techo b\n\tE O F\n", Run);
    assert_eq!(run.program(), RunProgram::Shell("echo a\necho b\n".to_owned()));
    assert!(!run.heredocs[0].expand && run.heredocs[0].strip_tabs);

    let run = only!("RUN <<script\n#!/usr/bin/env python3\nprint(1)\nscript\n", Run);
    let content = "#!/usr/bin/env python3\nprint(1)\n".to_owned();
    assert_eq!(run.program(), RunProgram::Script { name: "script".to_owned(), content });

    let run = only!("RUN python3 <<EOF\nprint(\"it's\")\nEOF\n", Run);
    assert_eq!(run.program(), RunProgram::Shell("python3 <<EOF\nprint(\"it's\")\nEOF\n".to_owned()));

    let run = only!("RUN cat <<A >/a && cat 3<<B \\\n >/b\nfirst\nA\nsecond\nB\n", Run);
    let names: Vec<(&str, &str)> =
        run.heredocs.iter().map(|doc| (doc.name.as_str(), doc.content.as_str())).collect();
    assert_eq!(names, [("A", "first\n"), ("B", "second\n")]);
    assert_eq!(
        run.program(),
        RunProgram::Shell("cat <<A >/a && cat 3<<B  >/b\nfirst\nA\nsecond\nB\n".to_owned())
    );

    let run = only!("RUN <<EOF\r\necho a\r\nEOF\r\n", Run);
    assert_eq!(run.program(), RunProgram::Shell("echo a\n".to_owned()));

    for no_heredoc in [
        "RUN cat <<<EOF",
        "RUN echo $((1 << 2))",
        "RUN echo $((1<<2))",
        "RUN echo '<<EOF'",
        "RUN echo \"x <<EOF\"",
        "RUN echo \\<<EOF",
        "RUN a<<EOF",
        "RUN [\"cat\", \"<<EOF\"]",
        "CMD cat <<EOF",
    ] {
        let (stage, diagnostics) = stage(no_heredoc);
        assert_eq!(diagnostics, [], "{no_heredoc}");
        assert_eq!(stage.instructions.len(), 1);
        if let InstructionKind::Run(run) = &stage.instructions[0].kind {
            assert_eq!(run.heredocs, [], "{no_heredoc}");
        }
    }
    assert_eq!(codes("FROM a:1\nRUN <<EOF\nx\n EOF"), ["unterminated-heredoc:2:5"]);
}

#[test]
fn what_follows_a_heredoc_is_an_instruction() {
    let (stage, diagnostics) = stage("RUN <<EOF\nUSER nobody\n\nEOF\nUSER ada\n");
    assert_eq!(diagnostics, []);
    assert_eq!(stage.instructions.len(), 2);
    assert_eq!((stage.instructions[0].line, stage.instructions[1].line), (2, 6));
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
fn directives() {
    let parsed = parse(
        "# SYNTAX = docker/dockerfile:1 \n# escape=`\n#check=skip=a,B;error=true\n# a comment\nFROM a:1\nRUN a `\n b\n",
    );
    assert_eq!(parsed.diagnostics, []);
    let directives = &parsed.dockerfile.directives;
    assert_eq!(directives.syntax.as_ref().unwrap().text, "docker/dockerfile:1");
    assert_eq!(directives.escape, '`');
    assert_eq!(directives.check.skip, ["a", "B"]);
    assert!(directives.check.error && !directives.check.skip_all);
    assert_eq!(parsed.dockerfile.stages[0].instructions[0].text, "RUN a  b");
    // After anything else a directive is a comment.
    for text in [
        "# comment\n# escape=`\nFROM a:1",
        "\n# escape=`\nFROM a:1",
        "FROM a:1\n# escape=`\nRUN x",
        "# other=1\n# escape=`\nFROM a:1",
    ] {
        assert_eq!(parse(text).dockerfile.directives.escape, '\\', "{text}");
    }
    assert_eq!(codes("# escape=x\nFROM a:1"), ["invalid-directive:1:10"]);
    assert_eq!(codes("# escape=`\n# escape=\\\nFROM a:1"), ["duplicate-directive:2:10"]);
    assert_eq!(codes("# check=skipp=a\nFROM a:1"), ["invalid-directive:1:9"]);
    assert!(parse("# check=skip=all\nFROM a:1").dockerfile.directives.check.skip_all);
}

#[test]
fn lines_and_their_ends() {
    for (body, text) in [
        ("  RUN a \\\n  b", "RUN a   b"),
        ("\tRUN a \\\n# comment\n   # another\n b", "RUN a  b"),
        ("RUN a \\  \n b", "RUN a  b"),
        ("RUN a\\\r\n b\r\n", "RUN a b"),
        ("RUN a \\", "RUN a"),
        ("RUN a \\\\\n", "RUN a \\\\"),
        ("RUN \\\n a", "RUN  a"),
        ("\\\nRUN a", "RUN a"),
        ("RUN a # no comment", "RUN a # no comment"),
    ] {
        let (stage, diagnostics) = stage(body);
        assert_eq!(diagnostics, [], "{body:?}");
        assert_eq!(stage.instructions[0].text, text, "{body:?}");
    }
    let (found, diagnostics) = stage("RUN a \\\n\n b\nRUN c");
    assert_eq!((found.instructions.len(), found.instructions[0].text.as_str()), (2, "RUN a  b"));
    assert_eq!((diagnostics[0].code.as_str(), diagnostics[0].line), ("empty-continuation", 3));
    assert_eq!(diagnostics[0].severity, Severity::Warning);
    let parsed = parse("\u{feff}# syntax=x\r\nFROM a:1\r\n");
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.dockerfile.directives.syntax.unwrap().text, "x");
    let parsed = parse("\u{feff}FRM a:1");
    assert_eq!((parsed.diagnostics[0].line, parsed.diagnostics[0].column), (1, 1));
}

#[test]
fn json_that_is_none_falls_back_with_a_warning() {
    for body in
        ["CMD ['python', 'x.py']", "CMD [\"a\" \"b\"]", "RUN [\"a\", \"b\"] && x", "CMD [python, x.py]"]
    {
        let (stage, diagnostics) = stage(body);
        assert_eq!(diagnostics.len(), 1, "{body}");
        assert_eq!(diagnostics[0].code, "exec-form-invalid");
        assert_eq!(diagnostics[0].severity, Severity::Warning);
        match &stage.instructions[0].kind {
            InstructionKind::Cmd(command) | InstructionKind::Run(Run { command, .. }) => {
                assert_eq!(shell(command), &body[4..]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn places_are_exact() {
    let text = "FROM a:1\n# ü\nCOPY --chown=\"a b\":c ü.txt \\\n  # comment\n  [x] /to\nRUM ls\n";
    let parsed = parse(text);
    let copy = &parsed.dockerfile.stages[0].instructions[0];
    let cut = |span: Span| &text[span.start..span.end];
    assert_eq!((cut(copy.keyword.span), copy.line), ("COPY", 3));
    assert!(cut(copy.span).starts_with("COPY --chown") && cut(copy.span).ends_with("/to"));
    let InstructionKind::Copy(copy) = &copy.kind else { panic!() };
    let chown = copy.chown.as_ref().unwrap();
    assert_eq!((chown.text.as_str(), cut(chown.span)), ("a b:c", "--chown=\"a b\":c"));
    let sources: Vec<&str> = copy
        .sources
        .iter()
        .map(|source| match source {
            Source::Path(word) => cut(word.span),
            Source::Heredoc(doc) => cut(doc.span),
        })
        .collect();
    assert_eq!(sources, ["ü.txt", "[x]"]);
    assert_eq!(cut(copy.destination.span), "/to");
    let [unknown] = parsed.diagnostics.as_slice() else { panic!("{:?}", parsed.diagnostics) };
    assert_eq!((unknown.code.as_str(), unknown.line, unknown.column), ("unknown-instruction", 6, 1));
    assert_eq!((cut(unknown.span), unknown.hint.as_deref()), ("RUM", Some("did you mean `RUN`?")));

    let parsed = parse("FROM a:1\nENV A=x${B\n");
    assert_eq!((parsed.diagnostics[0].line, parsed.diagnostics[0].column), (2, 8));
}

#[test]
fn what_is_wrong_with_the_whole() {
    assert_eq!(codes(""), ["no-instructions:1:1"]);
    assert_eq!(codes("# nothing\n\n"), ["no-instructions:1:1"]);
    assert_eq!(codes("ARG A=1"), ["no-stage:1:1"]);
    assert_eq!(codes("ARG A\nRUN x\nRUN y\nFROM a:1"), ["no-stage:2:1"]);
    assert_eq!(codes("FROM"), ["missing-argument:1:1"]);
    assert_eq!(codes("FROM a b"), ["invalid-from:1:6"]);
    assert_eq!(codes("FROM a AS 1x"), ["invalid-stage-name:1:11"]);
    assert_eq!(codes("FROM --plattform=x a"), ["unknown-flag:1:6"]);
    assert_eq!(codes("FROM a:1\npip install x"), ["unknown-instruction:2:1"]);
    let parsed = parse("FROM a:1\nRUN apt-get update\n&& apt-get install -y git");
    let hint = parsed.diagnostics[0].hint.as_deref().unwrap();
    assert!(
        hint.contains("end that line with `\\`") && hint.contains("`RUN apt-get install -y git`"),
        "{hint}"
    );
    assert_eq!(codes(&format!("FROM a:1\n{}", " ".repeat(MAX_TEXT))), ["file-too-large:1:1"]);
    assert_eq!(codes(&"FROM a:1\n".repeat(MAX_STAGES + 2)), ["file-too-large:1:1"]);
    assert_eq!(codes(&format!("FROM a:1\n{}", "USER a\n".repeat(MAX_INSTRUCTIONS))), ["file-too-large:1:1"]);
    assert_eq!(parse(&format!("FROM a:1\n{}", "FOO\n".repeat(1000))).diagnostics.len(), 200);
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
