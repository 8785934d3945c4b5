//! RUN: what it sees, what it leaves, and how it fails.

use std::fs;

use slipway_types::ErrorCode;
use slipway_types::build::BuildEvent;
use slipway_types::container::{Mount, NetworkMode};

use super::world::{SmallDisk, World};
use crate::build::{BuildError, StepErrorKind};

#[test]
fn forms_of_a_command() {
    let world = World::new();
    let built = world.build(
        "FROM scratch\nWORKDIR /w\nUSER app\nRUN echo shell\nRUN [\"echo\", \"exec $HOME\"]\n\
         SHELL [\"/bin/bash\", \"-c\"]\nRUN echo bash\nRUN <<EOF\necho one\necho two\nEOF\n\
         RUN <<EOF\n#!/bin/test\necho script\nEOF\n",
    );
    assert_eq!(built.output(), "shell\nexec $HOME\nbash\none\ntwo\nscript\n");
    let runs = world.runner.runs.lock().unwrap();
    let args: Vec<&[String]> = runs.iter().map(|run| &run.args[..]).collect();
    assert_eq!(args[0], ["/bin/sh", "-c", "echo shell"]);
    assert_eq!(args[1], ["echo", "exec $HOME"]);
    assert_eq!(args[2][..2], ["/bin/bash", "-c"]);
    assert_eq!(args[4], ["/dev/slipway/script-EOF"]);
    assert!(runs.iter().all(|run| run.cwd == "/w" && run.user.as_deref() == Some("app")));
    assert!(runs.iter().all(|run| run.network == NetworkMode::Host));
    assert!(runs[0].env.iter().any(|pair| pair.starts_with("PATH=/usr/local/sbin")));
    // Nothing was changed, so nothing is in the image but the folder of WORKDIR.
    assert_eq!(world.files(&built.image()), ["/w/"]);
    assert_eq!(world.history(&built.image())[2], "(RUN /bin/sh -c echo shell)");
}

#[test]
fn changes_become_a_layer() {
    let world = World::new();
    world.file("rootfs/keep/file", "x").file("rootfs/gone", "x").file("rootfs/dir/inner", "x");
    let built = world.build(
        "FROM scratch\nCOPY rootfs /\nRUN rm /gone && write /new text && rm /dir && mkdir /dir && write /dir/other y\n\
         RUN --network=none write /last x\n",
    );
    assert_eq!(
        world.files(&built.image()),
        ["/dir/", "/dir/other y", "/keep/", "/keep/file x", "/last x", "/new text"]
    );
    assert_eq!(world.runner.runs.lock().unwrap()[1].network, NetworkMode::None);
}

#[test]
fn certificates_leave_no_trace() {
    let world = World::new();
    let own = "-----BEGIN CERTIFICATE-----\nowncert\n-----END CERTIFICATE-----";
    let extra = "-----BEGIN CERTIFICATE-----\nextracert\n-----END CERTIFICATE-----\n";
    world.file("rootfs/etc/ssl/certs/ca-certificates.crt", own);
    let bundle = world.dir.path().join("extra.pem");
    fs::write(&bundle, extra).unwrap();
    let built = world.build_as(
        "FROM scratch\nCOPY rootfs /\nENV PIP_CERT=/mine\nRUN env SSL_CERT_FILE\nRUN env PIP_CERT\nRUN env APT_CONFIG\n\
         RUN read /dev/slipway/ca-certificates.crt\nRUN write /made x\n",
        |request| request.ca_certificates = Some(bundle.clone()),
    );
    assert_eq!(
        built.output(),
        format!(
            "SSL_CERT_FILE=/dev/slipway/ca-certificates.crt\nPIP_CERT=/mine\nAPT_CONFIG=/dev/slipway/apt.conf\n\
             {own}\n{extra}"
        )
    );
    for run in world.runner.runs.lock().unwrap().iter() {
        assert!(
            matches!(&run.mounts[..], [Mount::Bind { target, read_only: true, .. }] if target.ends_with("slipway")),
            "{:?}",
            run.mounts
        );
    }
    let image = built.image();
    let files = world.files(&image);
    assert_eq!(
        files,
        [
            "/etc/".to_owned(),
            "/etc/ssl/".to_owned(),
            "/etc/ssl/certs/".to_owned(),
            format!("/etc/ssl/certs/ca-certificates.crt {own}"),
            "/made x".to_owned()
        ]
    );
    let config = world.config(&image);
    assert_eq!(config["config"]["Env"].as_array().unwrap().len(), 2, "{config}");
    assert!(!config.to_string().contains("extracert"), "{config}");
    // Only COPY and the RUN that wrote something made layers.
    assert_eq!(world.config(&image)["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    // A file without certificates is refused before anything runs.
    fs::write(&bundle, "nothing").unwrap();
    let error = world.fail_as("FROM scratch\nRUN echo x\n", |request| request.ca_certificates = Some(bundle));
    assert!(matches!(error, BuildError::Certificates { .. }), "{error:?}");
}

#[test]
fn a_failed_run_tells_where_and_why() {
    let world = World::new();
    let dockerfile = "FROM scratch\nWORKDIR /app\nRUN echo ok && \\\n    need requirements.txt\n";
    let failure = world.fail(dockerfile).into_failure();
    let diagnostic = failure.diagnostic.unwrap();
    assert_eq!((diagnostic.line, diagnostic.column), (3, 1));
    assert_eq!(diagnostic.code, "run-failed");
    assert_eq!(failure.exit_code, Some(1));
    assert_eq!(failure.error.code, ErrorCode::Failed);
    assert_eq!(failure.last_output, ["ok", "ERROR: [Errno 2] No such file or directory: 'requirements.txt'"]);
    assert!(failure.error.hint.unwrap().contains("COPY"));
    assert!(failure.error.message.contains("ended with exit code 1"), "{}", failure.error.message);

    let failure = world.fail("FROM scratch\nRUN pip install x\n").into_failure();
    assert_eq!(failure.exit_code, Some(127));
    assert!(failure.error.hint.unwrap().contains("no Python"));

    let failure = world.fail("FROM scratch\nRUN oom\n").into_failure();
    assert!(failure.error.message.contains("out of memory"), "{}", failure.error.message);

    let failure = world.fail("FROM scratch\nRUN full\n").into_failure();
    assert_eq!(failure.error.code, ErrorCode::ResourceExhausted);
    assert!(failure.error.hint.unwrap().contains("prune"));
    assert_eq!(world.leftovers(), 0);

    // What failed is not in the cache.
    assert_eq!(world.fail("FROM scratch\nRUN pip install x\n").into_failure().exit_code, Some(127));
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    let disk = SmallDisk::new(64 << 20);
    let world = World::with_store(tempfile::tempdir().unwrap(), &disk.path().join("store"));
    world.file("small", "x").file("large", &"large ".repeat(16 << 20));
    let before = world.build("FROM scratch\nCOPY small /\n");
    let failure = world.fail("FROM scratch\nCOPY large /\n").into_failure();
    assert_eq!(failure.error.code, ErrorCode::ResourceExhausted, "{failure:?}");
    assert!(failure.error.hint.unwrap().contains("prune"));
    assert_eq!(world.leftovers(), 0);
    assert!(world.store.check(true).unwrap().is_empty());
    let after = world.build("FROM scratch\nCOPY small /\n");
    assert_eq!((after.counts().0, after.image()), (0, before.image()));
    let more = world.build("FROM scratch\nCOPY small /other\n");
    assert_eq!(world.files(&more.image()), ["/other x"]);
    drop(world);
}

#[test]
fn only_the_last_lines_are_shown() {
    let world = World::new();
    let echoes: Vec<String> = (0..80).map(|number| format!("echo {number}")).collect();
    let failure =
        world.fail(&format!("FROM scratch\nRUN {} && exit 1\n", echoes.join(" && "))).into_failure();
    assert_eq!((failure.last_output.len(), failure.last_output[0].as_str()), (50, "30"));
}

#[test]
fn mounts_show_and_leave_nothing() {
    let world = World::new();
    world
        .file("requirements.txt", "numpy")
        .file("data/a", "A")
        .file("data/hidden", "no")
        .file(".dockerignore", "data/hidden\n")
        .file("rootfs/lib/x", "X");
    let dockerfile = "FROM scratch AS files\nCOPY rootfs /\nFROM scratch\nWORKDIR /w\n\
         RUN --mount=type=bind,source=requirements.txt,target=requirements.txt read requirements.txt\n\
         RUN --mount=type=bind,source=data,target=/data,rw read /data/a && write /data/new x && write /seen y\n\
         RUN --mount=type=bind,from=files,source=/lib,target=/lib read /lib/x\n\
         RUN --mount=type=cache,target=/root/.cache need /root && write /root/.cache/pip kept\n\
         RUN --mount=type=cache,target=/root/.cache read /root/.cache/pip && echo again\n\
         RUN --mount=type=tmpfs,target=/scratch echo done\n";
    let built = world.build(dockerfile);
    assert_eq!(built.output().replace('\n', ""), "numpyAXkeptagaindone");
    assert_eq!(world.files(&built.image()), ["/seen y", "/w/"]);
    assert!(!world.context().join("data/new").exists());
    let runs = world.runner.runs.lock().unwrap();
    assert!(matches!(&runs[0].mounts[0], Mount::Bind { read_only: true, target, .. }
        if target.to_str() == Some("/w/requirements.txt")));
    assert!(matches!(&runs[1].mounts[0], Mount::Bind { read_only: false, .. }));
    assert!(matches!(&runs[5].mounts[0], Mount::Tmpfs { .. }));
    drop(runs);
    // What a bind shows counts for the cache, what a cache mount holds does not.
    assert_eq!(world.build(dockerfile).counts().0, 0);
    world.file("data/hidden", "other");
    assert_eq!(world.build(dockerfile).counts().0, 0);
    world.file("data/a", "B");
    assert!(world.build(dockerfile).counts().0 > 0);
    let error = world.fail("FROM scratch\nRUN --mount=type=secret,id=token,required=true echo x\n");
    assert!(
        matches!(&error, BuildError::Step(failure) if matches!(failure.kind, StepErrorKind::NoSecret(_))),
        "{error:?}"
    );
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn two_agents_have_sockets_of_their_own() {
    let world = World::new();
    let socket = |name: &str| world.dir.path().join(name);
    let _listeners = ["one", "two"].map(|name| std::os::unix::net::UnixListener::bind(socket(name)).unwrap());
    let built = world.build_as(
        "FROM scratch\nRUN --mount=type=ssh --mount=type=ssh,id=two env SSH_AUTH_SOCK\n",
        |request| {
            request.ssh = [("default".into(), socket("one")), ("two".into(), socket("two"))].into();
        },
    );
    assert_eq!(built.output(), "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0\n");
    let runs = world.runner.runs.lock().unwrap();
    let mounts: Vec<String> = runs[0].mounts.iter().map(|mount| format!("{mount:?}")).collect();
    assert!(mounts[0].contains("one") && mounts[0].contains("ssh_agent.0"), "{mounts:?}");
    assert!(mounts[1].contains("two") && mounts[1].contains("ssh_agent.1"), "{mounts:?}");
}

/// The Dockerfile that beginners of the field write: two files are not where it looks.
#[test]
fn the_dockerfile_of_beginners() {
    let world = World::new();
    world.file("train.py", "print('training')").file("requirements.txt", "numpy").file("rootfs/etc/os", "");
    world.base("tensorflow/tensorflow", "FROM scratch\nCOPY rootfs /\n");
    let wrong = "FROM tensorflow/tensorflow:latest\nCOPY train.py data/\nRUN pip install -r requirements.txt\n\
                 WORKDIR /home/deploy\nENV MODEL=digits\nENV MODEL_DIR=/models\n\
                 RUN python train.py --name $MODEL --dir $MODEL_DIR\n";
    let (result, events) = world.run(&world.request(wrong));
    let failure = result.unwrap_err().into_failure();
    assert_eq!(failure.diagnostic.unwrap().line, 3);
    let begun = events.iter().position(|event| matches!(event, BuildEvent::StepStarted { .. })).unwrap();
    let found: Vec<(&str, u32)> = events[..begun]
        .iter()
        .filter_map(|event| match event {
            BuildEvent::Diagnostic(d) => Some((d.code.as_str(), d.line)),
            _ => None,
        })
        .collect();
    for line in [3, 7] {
        assert!(found.contains(&("run-missing-file", line)), "{found:?}");
    }
    assert!(found.contains(&("copy-relative-before-workdir", 2)), "{found:?}");
    // With these lines changed it builds, and nothing is left to say about files.
    let right = wrong
        .replace("COPY train.py data/\n", "WORKDIR /home/deploy\nCOPY train.py requirements.txt ./\n")
        .replace("requirements.txt\nWORKDIR /home/deploy\n", "requirements.txt\n");
    let built = world.build(&right);
    assert_eq!(
        built.output(),
        "pip install -r requirements.txt\npython train.py --name $MODEL --dir $MODEL_DIR\n"
    );
    assert!(built.diagnostics().iter().all(|d| d.code == "floating-base"), "{:?}", built.diagnostics());
}
