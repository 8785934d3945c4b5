//! `build`

use std::time::Duration;

use crate::support::{Slipway, kill, wait_for};

#[test]
fn builds_runs_and_rebuilds_nothing() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/app/hello.txt", "hello\n");
    s.write("p/app/ignored.log", "noise\n");
    s.write("p/.dockerignore", "*.log\napp/*.log\n");
    s.write(
        "p/Dockerfile",
        "ARG BASE=box\nFROM ${BASE} AS tools\nRUN echo tool > /tool && chmod 755 /tool\n\nFROM box\nENV GREETING=hi\n\
         ARG WHO=world\nWORKDIR /srv\nCOPY --from=tools /tool /usr/bin/tool\nCOPY --chown=user:extra app/ ./\n\
         RUN <<EOF\necho \"$GREETING $WHO\" > said\nls > listed\nEOF\nUSER user\nEXPOSE 8000\nLABEL a=b\nCMD [\"cat\", \"said\"]\n",
    );
    let first = s.run(&["build", "-t", "made:1", "--progress", "plain", "p"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert_eq!(s.run(&["run", "--rm", "made:1"]).ok(), "hi world\n");
    let listing =
        s.run(&["run", "--rm", "made:1", "sh", "-c", "cat listed; stat -c '%U:%G' hello.txt; id -un"]).ok();
    assert_eq!(listing, "hello.txt\nlisted\nsaid\nuser:extra\nuser\n");

    let again = s.run(&["build", "-t", "made:2", "--progress", "plain", "p"]);
    assert!(again.stderr.contains("(0 executed"), "{}", again.stderr);
    let id = |name: &str| {
        let text = s.run(&["inspect", name]).ok();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["id"].clone()
    };
    assert_eq!(id("made:1"), id("made:2"));
    // Only a time changed: still nothing to do.
    std::fs::File::options()
        .append(true)
        .open(s.path("p/app/hello.txt"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    assert!(s.run(&["build", "--progress", "plain", "p"]).stderr.contains("(0 executed"));

    s.run(&["build", "-t", "made:3", "--build-arg", "WHO=you", "p"]).ok();
    assert_eq!(s.run(&["run", "--rm", "made:3"]).ok(), "hi you\n");
    s.write("p/app/hello.txt", "changed\n");
    s.run(&["build", "-t", "made:4", "p"]).ok();
    assert_eq!(s.run(&["run", "--rm", "made:4", "cat", "hello.txt"]).ok(), "changed\n");
    let quiet = s.run(&["build", "-q", "--target", "tools", "p"]).ok();
    assert!(quiet.starts_with("sha256:") && quiet.trim().len() == 71, "{quiet}");
    s.finish();
}

#[test]
fn errors_point_into_the_dockerfile() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN echo before; echo reason >&2; exit 42\n");
    let stderr = s.run(&["build", "p"]).fails(1);
    for part in ["Dockerfile:2:", "42", "reason", "before"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    s.write("p/Dockerfile", "FROM box\nCOPPY a b\n");
    let stderr = s.run(&["build", "p"]).fails(2);
    assert!(stderr.contains("Dockerfile:2:1") && stderr.contains("COPY"), "{stderr}");
    assert_eq!(stderr.matches("unknown instruction").count(), 1, "{stderr}");
    s.write("p/Dockerfile", "FROM box\nCOPY absent /\n");
    let stderr = s.run(&["build", "p"]).fails(2);
    assert!(stderr.contains("absent") && stderr.contains("Dockerfile:2:"), "{stderr}");
    s.run(&["build", "nowhere"]).fails(3);
    s.run(&["build", "-f", "nowhere/Dockerfile", "p"]).fails(3);
    assert_eq!(s.run(&["images", "--format", "json"]).ok().matches("\"id\"").count(), 1);
    s.finish();
}

/// The Dockerfile that beginners write: two faults, both named with the lines to change, before anything runs.
#[test]
fn the_beginners_dockerfile_is_explained() {
    let s = Slipway::new();
    s.busybox();
    s.run(&["tag", "box", "tensorflow/tensorflow:latest"]).ok();
    s.write("p/train.py", "");
    s.write("p/requirements.txt", "");
    s.write(
        "p/Dockerfile",
        "FROM tensorflow/tensorflow:latest\nCOPY train.py data/\nRUN pip install -r requirements.txt\n\
         WORKDIR /home/deploy\nENV MODEL=digits\nENV FOLDER=/home/deploy/models\n\
         RUN python train.py --name $MODEL --out $FOLDER/$MODEL\n",
    );
    let checked = s.run(&["build", "--check", "p"]);
    for part in [
        "Dockerfile:3:",
        "requirements.txt",
        "COPY requirements.txt",
        "Dockerfile:7:",
        "/data/train.py",
        "line 2",
    ] {
        assert!(checked.stderr.contains(part), "{part} is missing in\n{}", checked.stderr);
    }
    let stderr = s.run(&["build", "--progress", "plain", "p"]).fails(1);
    let faults = stderr.find("/data/train.py").unwrap();
    let first_run = stderr.find("pip: not found").expect("the RUN fails as it must");
    assert!(faults < first_run, "told before it runs:\n{stderr}");
    s.finish();
}

#[test]
fn network_and_trust_of_run_steps() {
    let s = Slipway::new();
    s.busybox();
    let bundle = s.write("extra.pem", "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n");
    s.write(
        "p/Dockerfile",
        "FROM box\nRUN ls /sys/class/net > /net\nRUN grep -c QQ== \"$SSL_CERT_FILE\" \"$PIP_CERT\" > /trust; env | grep -c CERT >> /trust\n",
    );
    let bundle = bundle.to_str().unwrap();
    s.run(&["build", "-t", "n", "--network", "none", "--ca-certificates", bundle, "p"]).ok();
    assert_eq!(s.run(&["run", "--rm", "n", "cat", "/net"]).ok(), "lo\n");
    assert!(s.run(&["run", "--rm", "n", "cat", "/trust"]).ok().contains(":1"));
    let left = s.run(&["run", "--rm", "n", "sh", "-c", "env | grep CERT; find / -xdev -name '*.pem' -o -xdev -name '*ca-cert*'; ls /run 2>/dev/null; true"]).ok();
    assert!(!left.contains("CERT") && !left.contains("pem") && !left.contains("slipway"), "{left}");
    s.finish();
}

#[test]
fn secrets_are_seen_by_the_step_alone() {
    let s = Slipway::new();
    s.busybox();
    let token = s.write("token", "hunter2-in-file\n");
    s.write(
        "p/Dockerfile",
        "FROM box\nRUN --mount=type=secret,id=file,required --mount=type=secret,id=var,env=TOKEN \\\n  \
         wc -c < /run/secrets/file > /seen; stat -c %a /run/secrets/file >> /seen; echo \"$TOKEN\" | wc -c >> /seen\n\
         RUN ls /run/secrets/file 2>&1; echo [$TOKEN]; echo after\n",
    );
    let file = format!("id=file,src={}", token.display());
    let build = |value: &str| {
        let mut command = s.command(&[
            "build",
            "-t",
            "sec",
            "--progress",
            "plain",
            "--secret",
            &file,
            "--secret",
            "id=var,env=MY_TOKEN",
            "p",
        ]);
        let output = command.env("MY_TOKEN", value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let text = build("hunter2-in-env");
    assert!(text.contains("No such file") && text.contains("[]\n") && text.contains("after"), "{text}");
    assert_eq!(s.run(&["run", "--rm", "sec", "cat", "/seen"]).ok(), "16\n400\n15\n");
    assert_eq!(
        s.run(&["run", "--rm", "sec", "sh", "-c", "ls /run 2>/dev/null; env | grep -c TOKEN"]).stdout,
        "0\n"
    );
    // Another value is no other step.
    assert!(build("changed").contains("(0 executed"));
    let found = std::process::Command::new("grep").args(["-rl", "hunter2"]).arg(s.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "kept somewhere");
    let stderr = s.run(&["build", "--no-cache", "p"]).fails(2);
    assert!(stderr.contains("no secret `file`") && stderr.contains("--secret id=file"), "{stderr}");
    s.finish();
}

#[test]
fn urls_are_fetched() {
    use std::io::{Read, Write};
    let s = Slipway::new();
    s.busybox();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Large enough for several reports of progress.
    let body = vec![b'x'; 20 << 20];
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let read = stream.read(&mut [0; 4096]).unwrap();
            assert!(read > 0);
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
                .unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    s.write("p/Dockerfile", &format!("FROM box\nADD http://127.0.0.1:{port}/big.bin /in/\n"));
    s.run(&["build", "-t", "fetched", "p"]).ok();
    assert_eq!(
        s.run(&["run", "--rm", "fetched", "stat", "-c", "%s %a", "/in/big.bin"]).ok(),
        "20971520 600\n"
    );
    assert!(s.run(&["build", "--progress", "plain", "p"]).stderr.contains("(0 executed"));
    server.join().unwrap();
    let stderr = s.run(&["build", "p"]).fails(1);
    assert!(stderr.contains("cannot fetch") && stderr.contains("Dockerfile:2:"), "{stderr}");
    s.finish();
}

#[test]
fn contexts_on_standard_input() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nCOPY said /said\n");
    s.write("p/other", "FROM box\nRUN echo other > /said\n");
    s.write("p/said", "from the tar\n");
    for (flag, name) in [("-cf", "t.tar"), ("-czf", "t.tgz"), ("-cJf", "t.txz")] {
        let tar = s.path(name);
        let status = std::process::Command::new("tar")
            .arg(flag)
            .arg(&tar)
            .arg("-C")
            .arg(s.path("p"))
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        s.run_with(&["build", "-t", "tarred", "-"], &std::fs::read(&tar).unwrap()).ok();
        assert_eq!(s.run(&["run", "--rm", "tarred", "cat", "/said"]).ok(), "from the tar\n");
        s.run_with(&["build", "-t", "tarred", "-f", "other", "-"], &std::fs::read(&tar).unwrap()).ok();
        assert_eq!(s.run(&["run", "--rm", "tarred", "cat", "/said"]).ok(), "other\n");
    }
    s.run_with(&["build", "-t", "alone", "-"], b"FROM box\nRUN echo alone > /said\n").ok();
    assert_eq!(s.run(&["run", "--rm", "alone", "cat", "/said"]).ok(), "alone\n");
    s.run_with(&["build", "-f", "-", "-"], b"FROM box\n").fails(2);
    let stderr = s.run_with(&["build", "-"], &[0xff, 0xfe, 0x00]).fails(2);
    assert!(stderr.contains("neither a tar"), "{stderr}");
    // A link out of the archive is no Dockerfile.
    s.write("outside", "FROM box\nRUN echo secret-of-the-host\n");
    std::os::unix::fs::symlink(s.path("outside"), s.path("p/link")).unwrap();
    let tar = s.path("link.tar");
    let status =
        std::process::Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(s.path("p")).arg(".").status();
    assert!(status.unwrap().success());
    let outcome = s.run_with(&["build", "-f", "link", "-"], &std::fs::read(&tar).unwrap());
    assert!(outcome.code != 0 && !outcome.stderr.contains("secret-of-the-host"), "{}", outcome.stderr);
    // Several secrets as long as they may be are one request.
    s.write("large", &"x".repeat(500 << 10));
    let large = s.path("large").display().to_string();
    let secrets: Vec<String> = (0..6).map(|n| format!("--secret=id=s{n},src={large}")).collect();
    let mut build = vec!["build", "-q", "-f", "Dockerfile"];
    build.extend(secrets.iter().map(String::as_str));
    let folder = s.path("p").display().to_string();
    let dockerfile = format!("{folder}/Dockerfile");
    build[3] = &dockerfile;
    build.push(&folder);
    s.run(&build).ok();
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|e| e.file_name().to_string_lossy().starts_with("slipway-context-")).collect();
    assert!(left.is_empty(), "{left:?}");
    let stderr = s.run(&["build", "https://example.org/x.git"]).fails(3);
    assert!(stderr.contains("clone or fetch it first"), "{stderr}");
    s.finish();
}

#[test]
fn killed_builds_leave_nothing() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN echo started; dd if=/dev/zero of=/big bs=1M count=8; sleep 60\n");
    for victim in ["client", "daemon"] {
        let child = s.spawn(&["build", "--progress", "plain", "p"]);
        wait_for("the step to run", Duration::from_secs(10), || {
            let found = crate::support::processes_with(s.root().join("containers").to_str().unwrap());
            (!found.is_empty()).then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        match victim {
            "client" => kill(child.id() as i32, "KILL"),
            _ => kill(s.daemon_pid(), "KILL"),
        }
        let output = child.wait_with_output().unwrap();
        if victim == "daemon" {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{stderr}");
            assert!(stderr.contains("the daemon ended while it answered"), "{stderr}");
        }
        wait_for("the step to end", Duration::from_secs(10), || {
            s.run(&["system", "check"]).code.eq(&0).then_some(())
        });
    }
    s.write("p/Dockerfile", "FROM box\nRUN echo fine\n");
    s.run(&["build", "p"]).ok();
    s.finish();
}

#[test]
fn two_builds_at_once_agree() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN sleep 1; head -c 100000 /dev/urandom > /random\n");
    let (a, b) = (s.spawn(&["build", "-q", "p"]), s.spawn(&["build", "-q", "p"]));
    let (a, b) = (a.wait_with_output().unwrap(), b.wait_with_output().unwrap());
    assert!(a.status.success() && b.status.success());
    assert_eq!(a.stdout, b.stdout);
    s.finish();
}
