//! What a build makes of the configuration: variables, history, triggers.

use serde_json::json;

use super::world::World;
use crate::build::BuildError;

#[test]
fn instructions_change_the_configuration() {
    let world = World::new();
    world.file("f", "x");
    let image = world
        .build_as(
            "FROM scratch\nARG WHO=me\nENV A=1 B=\"two words\"\nENV C=$A-$WHO A=9\nLABEL l=\"$A\"\n\
             WORKDIR /srv\nWORKDIR app\nUSER app:$WHO\nEXPOSE 80 9000-9001/udp\nVOLUME /data [\"x\"]\n\
             STOPSIGNAL SIGINT\nHEALTHCHECK --interval=30s --retries=2 CMD check it\nSHELL [\"/bin/test\", \"-c\"]\n\
             CMD serve $A\nONBUILD RUN echo later\nCOPY f /\n",
            |request| {
                request.labels.insert("given".into(), "yes".into());
            },
        )
        .image();
    let config = world.config(&image);
    let inner = &config["config"];
    assert_eq!(
        inner["Env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "A=9",
            "B=two words",
            "C=1-me"
        ])
    );
    assert_eq!(inner["Labels"], json!({ "l": "9", "given": "yes" }));
    assert_eq!(inner["WorkingDir"], "/srv/app");
    assert_eq!(inner["User"], "app:me");
    assert_eq!(inner["ExposedPorts"], json!({ "80/tcp": {}, "9000/udp": {}, "9001/udp": {} }));
    assert_eq!(inner["StopSignal"], "SIGINT");
    assert_eq!(
        inner["Healthcheck"],
        json!({ "Test": ["CMD-SHELL", "check it"], "Interval": 30_000_000_000_i64, "Retries": 2 })
    );
    assert_eq!(inner["Cmd"], json!(["/bin/test", "-c", "serve $A"]));
    assert_eq!(inner["OnBuild"], json!(["RUN echo later"]));
    assert_eq!(config["os"], "linux");
    let history = world.history(&image);
    assert_eq!(history[0], "(ARG WHO=me)");
    assert_eq!(history[1], "(ENV A=1 B=two words)");
    assert_eq!(history.last().unwrap(), "(LABEL given=yes)");
    assert!(history.contains(&"COPY f /".to_owned()) && history.contains(&"WORKDIR /srv/app".to_owned()));
    let layers = config["rootfs"]["diff_ids"].as_array().unwrap().len();
    assert_eq!(layers, history.iter().filter(|entry| !entry.starts_with('(')).count());
}

#[test]
fn the_base_is_inherited() {
    let world = World::new();
    world.base(
        "base",
        "FROM scratch\nENV A=base\nUSER u\nWORKDIR /w\nLABEL l=1\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n",
    );
    let base = world.config(&world.store.resolve("base").unwrap().unwrap());
    let same = world.config(&world.build("FROM base\nLABEL m=2\n").image());
    assert_eq!(same["config"]["Cmd"], json!(["c"]));
    assert_eq!(same["config"]["Labels"], json!({ "l": "1", "m": "2" }));
    let history = |config: &serde_json::Value| config["history"].as_array().unwrap().clone();
    assert!(history(&same).starts_with(&history(&base)));
    // ENTRYPOINT takes the base's CMD away, and leaves one of its own stage.
    let entry = world.config(&world.build("FROM base\nENTRYPOINT [\"x\"]\n").image());
    assert_eq!((&entry["config"]["Entrypoint"], entry["config"].get("Cmd")), (&json!(["x"]), None));
    let both = world.config(&world.build("FROM base\nCMD [\"y\"]\nENTRYPOINT [\"x\"]\n").image());
    assert_eq!(both["config"]["Cmd"], json!(["y"]));
    // A stage on a stage inherits its arguments too.
    let built = world.build("FROM base AS a\nARG V=7\nFROM a\nRUN env V\nRUN env A\n");
    assert_eq!(built.output(), "V=7\nA=base\n");
}

#[test]
fn arguments_have_their_scope() {
    let world = World::new();
    world.base("base", "FROM scratch\nENV FROMBASE=b\n");
    let built = world.build_as(
        "ARG G=global\nARG TAG=none\nFROM base AS one\nRUN env G\nARG G\nARG L=local\nRUN env G\nRUN env L\n\
         ARG TARGETARCH\nRUN env TARGETARCH\nENV E=$L\nARG E=arg\nRUN env E\nRUN env HTTP_PROXY\n\
         FROM base\nCOPY --from=one /etc* /\nRUN env L\nARG G=own\nRUN env G\n",
        |request| {
            request.build_args.insert("L".into(), "given".into());
            request.build_args.insert("HTTP_PROXY".into(), "http://proxy".into());
            request.build_args.insert("NOBODY".into(), "x".into());
        },
    );
    let mut lines: Vec<String> = built.output().lines().map(str::to_owned).collect();
    lines.sort();
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let mut expected = vec![
        "G=(unset)".to_owned(),
        "G=global".to_owned(),
        "G=own".to_owned(),
        "L=given".to_owned(),
        "L=(unset)".to_owned(),
        format!("TARGETARCH={arch}"),
        "E=given".to_owned(),
        "HTTP_PROXY=http://proxy".to_owned(),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    let warnings: Vec<&str> = built.diagnostics().iter().map(|d| d.code.as_str()).collect();
    assert_eq!(warnings.iter().filter(|code| **code == "unused-build-arg").count(), 1);
    // Arguments end with the build: nothing of them is in the environment of the image.
    let config = world.config(&built.image());
    assert!(!config["config"]["Env"].to_string().contains("given"));
    assert!(!config.to_string().contains("http://proxy"));
}

#[test]
fn the_history_is_as_docker_writes_it() {
    let world = World::new();
    world.base("base", "FROM scratch\nENV A=1\n");
    let image = world
        .build(
            "FROM base\nARG P=1\nARG Q\nRUN write /f x\nUSER u\nEXPOSE 80\n\
             CMD [\"a\", \"b c\"]\nENTRYPOINT x y\nVOLUME [\"/v\"]\n",
        )
        .image();
    assert_eq!(
        world.history(&image)[1..],
        [
            "(ARG P=1)",
            "(ARG Q)",
            "RUN |1 P=1 /bin/sh -c write /f x",
            "(USER u)",
            "(EXPOSE map[80/tcp:{}])",
            "(CMD [\"a\" \"b c\"])",
            "(ENTRYPOINT [\"/bin/sh\" \"-c\" \"x y\"])",
            "(VOLUME [/v])"
        ]
    );
}

#[test]
fn triggers_run_in_the_next_build() {
    let world = World::new();
    world.file("app.txt", "app").file("x", "x");
    world.base(
        "base",
        "FROM scratch\nWORKDIR /app\nONBUILD COPY app.txt .\nONBUILD RUN write /marker done\nONBUILD ENV T=1\n",
    );
    let built = world.build("FROM base\nCOPY x /\n");
    assert_eq!(world.files(&built.image()), ["/app/", "/app/app.txt app", "/marker done", "/x x"]);
    let config = world.config(&built.image());
    assert!(config["config"].get("OnBuild").is_none());
    assert!(config["config"]["Env"].to_string().contains("T=1"));
    // A trigger that fails points to FROM.
    world.base("bad", "FROM scratch\nONBUILD RUN exit 3\n");
    let failure = world.fail("FROM scratch AS one\nFROM bad\n").into_failure();
    assert_eq!((failure.diagnostic.unwrap().line, failure.exit_code), (2, Some(3)));
    // A trigger may take files from a stage that nothing else needs.
    world.base("taking", "FROM scratch\nONBUILD COPY --from=side /s /\n");
    let image = world.build("FROM scratch AS side\nCOPY x /s\nFROM taking\n").image();
    assert_eq!(world.files(&image), ["/s x"]);
}

#[test]
fn platforms_must_fit() {
    let world = World::new();
    world.file("f", "x");
    let foreign = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    // Files of another machine may be copied, but not run.
    world.base("foreign", &format!("FROM --platform={foreign} scratch\nCOPY f /f\n"));
    let base = world.config(&world.store.resolve("foreign").unwrap().unwrap());
    assert_eq!(
        format!("{}/{}", base["os"].as_str().unwrap(), base["architecture"].as_str().unwrap()),
        foreign
    );
    let image = world
        .build(&format!("FROM --platform={foreign} foreign AS f\nFROM scratch\nCOPY --from=f /f /g\n"))
        .image();
    assert_eq!(world.files(&image), ["/g x"]);
    let error = world.fail("FROM foreign\n").to_string();
    assert!(error.contains(&format!("`foreign:latest` is for {foreign}")), "{error}");
    let error = world.fail(&format!("FROM --platform={foreign} foreign\nRUN echo hi\n"));
    let failure = error.into_failure();
    assert!(failure.error.message.contains("cannot run its programs"));
    assert_eq!(failure.diagnostic.unwrap().line, 2);
}

#[test]
fn failures_before_anything_runs() {
    let world = World::new();
    let error = world.fail("FROM scratch\nRUN echo hi\nBROKEN x\n");
    assert!(matches!(&error, BuildError::Invalid { first, .. } if first.line == 3), "{error:?}");
    assert!(world.runner.runs.lock().unwrap().is_empty());
    let error = world.fail_as("FROM scratch\n", |request| request.tags = vec!["NOT VALID".into()]);
    assert!(matches!(error, BuildError::Tag(_)));
    let failure = world.fail("FROM unreachable\n").into_failure();
    assert_eq!(failure.error.code, slipway_types::ErrorCode::Unavailable);
    assert_eq!((failure.error.hint.as_deref(), failure.diagnostic.unwrap().column), (Some("wait"), 6));
    let error = world.fail_as("FROM scratch\n", |request| request.context = "/nonexistent/context".into());
    assert!(matches!(error, BuildError::Context(_)));
    let error = world.fail_as("", |request| request.dockerfile_text = None);
    assert_eq!(error.into_failure().error.code, slipway_types::ErrorCode::NotFound);
    let checked = world.build_as("FROM unreachable:1\n", |request| request.check_only = true);
    assert_eq!((checked.outcome.image, checked.outcome.executed), (None, 0));
}

#[test]
fn expansion_failures_point_to_the_word() {
    let world = World::new();
    let failure = world.fail("FROM scratch\nENV A=1\nENV B=\"${X:?set X}\"\n").into_failure();
    let diagnostic = failure.diagnostic.unwrap();
    assert_eq!((diagnostic.line, diagnostic.column), (3, 7));
    assert!(diagnostic.message.contains("set X"), "{}", diagnostic.message);
}
