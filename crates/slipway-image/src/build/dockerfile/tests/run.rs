//! RUN: its forms, mounts and heredocs.

use super::*;

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
