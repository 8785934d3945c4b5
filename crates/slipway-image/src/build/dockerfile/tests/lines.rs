//! Directives, lines and places.

use super::*;

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
