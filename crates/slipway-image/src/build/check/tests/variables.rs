//! Variables: their names, and who sets them.

use super::*;

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
