//! Dockerfiles and scripts made by chance.

use proptest::prelude::*;

use super::*;

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
