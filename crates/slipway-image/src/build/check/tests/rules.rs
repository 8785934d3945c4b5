//! The smaller rules, and the directive that skips rules.

use super::*;

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
