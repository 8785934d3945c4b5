//! Where COPY and ADD put things.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::world::World;
use crate::build::{BuildError, StepErrorKind};

/// A context with files, folders, links; and an image below, to copy onto.
fn world() -> World {
    let world = World::new();
    world
        .file("a.txt", "A")
        .file("b.txt", "B")
        .file("dir/one", "1")
        .file("dir/sub/two", "2")
        .file("run.sh", "#!/bin/sh")
        .file("base/etc/passwd", "root:x:0:0::/:\napp:x:1000:1001::/home/app:\n")
        .file("base/etc/group", "root:x:0:\nstaff:x:50:\n")
        .file("base/have/file", "old")
        .file("base/have/sub/kept", "kept")
        .file("base/private/x", "x");
    let at = world.context();
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at.join("dir/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(at.join("base/private"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("a.txt", at.join("link")).unwrap();
    symlink("dir", at.join("dirlink")).unwrap();
    symlink("one", at.join("dir/inner")).unwrap();
    symlink("/have", at.join("base/tohave")).unwrap();
    symlink("/made/later", at.join("base/dangling")).unwrap();
    symlink("/have/file", at.join("base/filelink")).unwrap();
    symlink("../../../../../../../../escape", at.join("base/climb")).unwrap();
    world.base("base", "FROM scratch\nCOPY base/ /\n");
    world
}

/// The lines of `files` that the base does not have.
fn added(world: &World, dockerfile: &str) -> Vec<String> {
    let base = world.store.resolve("base").unwrap().unwrap();
    let before = world.files(&base);
    let image = world.build(&format!("FROM base\n{dockerfile}\n")).image();
    world.files(&image).into_iter().filter(|line| !before.contains(line)).collect()
}

#[test]
fn destinations_are_dockers() {
    let world = world();
    for (dockerfile, expected) in [
        // Files: to a name, into a folder by its slash or because it is there.
        ("COPY a.txt /new", &["/new A"][..]),
        ("COPY a.txt /new/", &["/new/", "/new/a.txt A"]),
        ("COPY a.txt /deep/er/new", &["/deep/", "/deep/er/", "/deep/er/new A"]),
        ("COPY a.txt /have", &["/have/a.txt A"]),
        ("COPY a.txt /have/file", &["/have/file A"]),
        ("COPY a.txt /", &["/a.txt A"]),
        ("COPY a.txt b.txt /two/", &["/two/", "/two/a.txt A", "/two/b.txt B"]),
        ("COPY *.txt /have", &["/have/a.txt A", "/have/b.txt B"]),
        ("COPY [\"a.txt\", \"/with space\"]", &["/with space A"]),
        ("COPY run.sh /run.sh", &["/run.sh 755 #!/bin/sh"]),
        // Relative destinations count from WORKDIR.
        ("COPY a.txt data/", &["/data/", "/data/a.txt A"]),
        ("WORKDIR /w\nCOPY a.txt .", &["/w/", "/w/a.txt A"]),
        ("WORKDIR /w\nCOPY a.txt ./x/../y", &["/w/", "/w/y A"]),
        ("WORKDIR /w\nWORKDIR rel\nCOPY a.txt ..", &["/w/", "/w/a.txt A", "/w/rel/"]),
        // Folders bring their contents.
        ("COPY dir /d", &["/d/", "/d/inner -> one", "/d/one 1", "/d/sub/ 700", "/d/sub/two 2"]),
        ("COPY dir/ /have/", &["/have/inner -> one", "/have/one 1", "/have/sub/ 700", "/have/sub/two 2"]),
        ("COPY dir/sub dir/one /m/", &["/m/", "/m/one 1", "/m/two 2"]),
        ("COPY dir/* /g/", &["/g/", "/g/inner 1", "/g/one 1", "/g/two 2"]),
        ("COPY di?/s[t-v]b/* /g/", &["/g/", "/g/two 2"]),
        // The top keeps its mode where it exists, and takes the source's where not.
        ("COPY dir/sub /fresh", &["/fresh/ 700", "/fresh/two 2"]),
        ("COPY dir/sub /have/sub", &["/have/sub/two 2"]),
        // A link as a source is followed, one inside a folder is copied.
        ("COPY link /", &["/link A"]),
        ("COPY dirlink /d", &["/d/", "/d/inner -> one", "/d/one 1", "/d/sub/ 700", "/d/sub/two 2"]),
        // Links of the image are followed on the way, and lead nowhere outside.
        ("COPY a.txt /tohave/new", &["/have/new A"]),
        ("COPY a.txt /dangling/x", &["/made/", "/made/later/", "/made/later/x A"]),
        ("COPY a.txt /dangling", &["/made/", "/made/later A"]),
        ("COPY a.txt /filelink", &["/have/file A"]),
        ("COPY a.txt /climb", &["/escape A"]),
        ("COPY a.txt /tohave", &["/have/a.txt A"]),
        // Owners and modes.
        ("COPY --chown=app a.txt /o/", &["/o/ 1000:1001", "/o/a.txt 1000:1001 A"]),
        ("COPY --chown=app:staff dir/sub /o", &["/o/ 700 1000:50", "/o/two 1000:50 2"]),
        ("COPY --chown=7:8 a.txt /o", &["/o 7:8 A"]),
        ("COPY --chmod=600 a.txt /o", &["/o 600 A"]),
        ("COPY --chmod=755 dir/sub /o", &["/o/", "/o/two 755 2"]),
        ("ARG who=app\nCOPY --chown=$who a.txt /o", &["/o 1000:1001 A"]),
        ("COPY --chmod=u+x,go-w a.txt /o", &["/o 744 A"]),
        ("COPY --chmod=u=rwX,go=rX dir/sub /o", &["/o/", "/o/two 2"]),
        // The folders above a source, whole or from `/./` on.
        (
            "COPY --parents dir/sub/two a.txt /p/",
            &["/p/", "/p/a.txt A", "/p/dir/", "/p/dir/sub/ 700", "/p/dir/sub/two 2"],
        ),
        ("COPY --parents dir/./sub/two /p", &["/p/", "/p/sub/ 700", "/p/sub/two 2"]),
        ("COPY --parents dir/sub /p", &["/p/", "/p/dir/", "/p/dir/sub/ 700", "/p/dir/sub/two 2"]),
        ("COPY --parents di?/**/two /p", &["/p/", "/p/dir/", "/p/dir/sub/ 700", "/p/dir/sub/two 2"]),
        ("COPY --parents --chown=7 dir/one /p/", &["/p/ 7:7", "/p/dir/ 7:7", "/p/dir/one 7:7 1"]),
        (
            "COPY --from=base --parents /have/sub /p/",
            &["/p/", "/p/have/", "/p/have/sub/", "/p/have/sub/kept kept"],
        ),
        // What is left out.
        ("COPY --exclude=sub dir /d", &["/d/", "/d/inner -> one", "/d/one 1"]),
        ("COPY --exclude=**/two --exclude=inner dir /d", &["/d/", "/d/one 1", "/d/sub/ 700"]),
        ("COPY --exclude=* --exclude=!sub/two dir /d", &["/d/", "/d/sub/ 700", "/d/sub/two 2"]),
        ("COPY --exclude=b.* *.txt /t/", &["/t/", "/t/a.txt A"]),
        // A folder that is left out and could hold something that is not, and one that does.
        ("COPY --parents --exclude=dir --exclude=!dir/none dir a.txt /p/", &["/p/", "/p/a.txt A"]),
        ("COPY --parents --exclude=dir --exclude=!dir/one dir /p/", &["/p/", "/p/dir/", "/p/dir/one 1"]),
        (
            "COPY --parents --exclude=dir/one dir /p/",
            &["/p/", "/p/dir/", "/p/dir/inner -> one", "/p/dir/sub/ 700", "/p/dir/sub/two 2"],
        ),
        // Files given inline.
        ("COPY <<f /in\nhello\nf", &["/in hello\n"]),
        ("ENV X=1\nCOPY <<f <<\"g\" /in/\n$X\nf\n$X\ng", &["/in/", "/in/f 1\n", "/in/g $X\n"]),
        // Another stage or image keeps owners and modes.
        ("COPY --from=base /private /p", &["/p/ 711", "/p/x x"]),
        ("COPY --from=base /tohave/sub/kept /p", &["/p kept"]),
        // A pattern that matches nothing copies nothing.
        ("COPY a.txt nothing* /n/", &["/n/", "/n/a.txt A"]),
        ("ADD a.txt /new", &["/new A"]),
        ("ADD dir /d/", &["/d/", "/d/inner -> one", "/d/one 1", "/d/sub/ 700", "/d/sub/two 2"]),
    ] {
        assert_eq!(added(&world, dockerfile), expected, "{dockerfile}");
    }
    assert!(!world.dir.path().join("escape").exists() && !std::path::Path::new("/escape").exists());
}

#[test]
fn refusals_say_why() {
    let world = world();
    let _socket = std::os::unix::net::UnixListener::bind(world.context().join("socket")).unwrap();
    fs::create_dir(world.context().join("pipes")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.context().join("pipes/p"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    symlink("/etc/passwd", world.context().join("outward")).unwrap();
    for (dockerfile, message) in [
        ("COPY a.txt b.txt /x", "does not end with `/`"),
        ("COPY *.txt /x", "does not end with `/`"),
        ("COPY a.txt /have/file/x", "`/have/file` in the image is not a folder"),
        ("COPY dir /have/file", "is not a folder"),
        ("COPY b.txt dir /have/file/", "is not a folder"),
        ("COPY socket /x", "is a socket"),
        ("COPY pipes /x/", "is a named pipe"),
        ("COPY --chown=nobody a.txt /x", "cannot use `--chown=nobody`"),
        ("ENV mode=u+q\nCOPY --chmod=$mode a.txt /x", "cannot use `--chmod=u+q`"),
        ("COPY --parents ./dir/./absent /x", "`./dir/./absent` is not in the build context"),
        ("COPY --exclude=[ dir /x", "cannot use `--exclude`"),
        (
            "ADD https://example.org/x.git#main /x",
            "the Git repository `https://example.org/x.git#main` is not supported yet",
        ),
        ("ADD git@example.org:x /x", "is not supported yet"),
        ("ADD ftp://example.org/x /x", "is not a URL that can be fetched"),
        ("ADD http://127.0.0.1:1/ /x/", "does not end with the name of a file"),
        ("ADD http://127.0.0.1:1/x /x", "cannot fetch `http://127.0.0.1:1/x`"),
        ("ADD --checksum=md5:x http://127.0.0.1:1/x /x", "is not a checksum"),
        ("COPY --from=base /nope /x", "does not exist in image `base`"),
    ] {
        let error = world.fail(&format!("FROM base\n{dockerfile}\n"));
        assert!(error.to_string().contains(message), "{dockerfile}: {error}");
        let failure = error.into_failure();
        assert!(failure.diagnostic.is_some(), "{dockerfile}");
    }
    // What the checks see before: skipped here, so that the builder's own refusal is tested.
    for (dockerfile, message) in [
        ("COPY ../secret /x", "outside the build context"),
        ("COPY dir/../../secret /x", "outside the build context"),
        ("COPY missing /x", "does not exist in the build context"),
        ("COPY outward /x", "does not exist in the build context"),
    ] {
        let error = world.fail(&format!("# check=skip=all\nFROM base\n{dockerfile}\n"));
        assert!(
            matches!(&error, BuildError::Step(failure) if matches!(failure.kind, StepErrorKind::Select(_))),
            "{error:?}"
        );
        assert!(error.to_string().contains(message), "{dockerfile}: {error}");
    }
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn a_file_replaces_no_folder() {
    let world = world();
    world.file("sub", "file");
    let error = world.fail("FROM base\nCOPY sub /have/\n");
    assert!(error.to_string().contains("`/have/sub` in the image is a folder"), "{error}");
}

#[test]
fn times_of_files_are_kept() {
    let world = world();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in ["a.txt", "dir/one", "dir"] {
        fs::File::open(world.context().join(path)).unwrap().set_modified(time).unwrap();
    }
    let image = world.build("FROM scratch\nCOPY a.txt /\nCOPY dir /d\n").image();
    world.look(&image, |root| {
        for path in ["a.txt", "d/one"] {
            assert_eq!(fs::metadata(root.join(path)).unwrap().modified().unwrap(), time, "{path}");
        }
    });
}

#[test]
fn hard_links_and_holes_survive() {
    let world = World::new();
    world.file("d/one", "same");
    fs::hard_link(world.context().join("d/one"), world.context().join("d/two")).unwrap();
    fs::File::create(world.context().join("d/sparse")).unwrap().set_len(64 << 20).unwrap();
    let image = world.build("FROM scratch\nCOPY d /d\n").image();
    world.look(&image, |root| {
        let (one, two) =
            (fs::metadata(root.join("d/one")).unwrap(), fs::metadata(root.join("d/two")).unwrap());
        assert_eq!(one.ino(), two.ino());
        let sparse = fs::metadata(root.join("d/sparse")).unwrap();
        assert_eq!((sparse.len(), sparse.blocks() < 1000), (64 << 20, true));
    });
}

#[test]
fn the_ignore_file_hides() {
    let world = World::new();
    world
        .file("keep", "k")
        .file("data/big", "b")
        .file("data/wanted", "w")
        .file("data/deep/x", "x")
        .file("logs/l", "l")
        .file("Dockerfile", "FROM scratch\n")
        .file(".dockerignore", "data\n!data/wanted\nlogs\n.dockerignore\n");
    let image = world.build("FROM scratch\nCOPY . /\n").image();
    assert_eq!(world.files(&image), ["/Dockerfile FROM scratch\n", "/data/", "/data/wanted w", "/keep k"]);
    let error = world.fail("# check=skip=all\nFROM scratch\nCOPY logs/l /\n");
    assert!(error.to_string().contains("excluded by the ignore file"), "{error}");
    // A link does not show what is hidden.
    symlink("logs/l", world.context().join("around")).unwrap();
    let error = world.fail("# check=skip=all\nFROM scratch\nCOPY around /\n");
    assert!(error.to_string().contains("excluded by the ignore file"), "{error}");
    fs::remove_file(world.context().join("around")).unwrap();
    // The Dockerfile's own ignore file comes first.
    world.file("Dockerfile.dockerignore", "*\n!logs\n").file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let image = world.build_as("", |request| request.dockerfile_text = None).image();
    assert_eq!(world.files(&image), ["/logs/", "/logs/l l"]);
}

/// A tar with the entries `(path, kind, link or content)`.
fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        // Raw, because the crate refuses the names that this is about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if kind.is_dir() { 0o750 } else { 0o640 });
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_000_000_000);
        let is_file = *kind == tar::EntryType::Regular;
        header.set_size(if is_file { text.len() as u64 } else { 0 });
        if !is_file && !text.is_empty() {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, if is_file { text.as_bytes() } else { b"" }).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn add_extracts_archives() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let world = world();
    let tar = tar_of(&[
        ("top/", Directory, ""),
        ("top/f", Regular, "text"),
        ("top/hard", Link, "top/f"),
        ("soft", Symlink, "/have"),
        ("soft/through", Regular, "inside"),
    ]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        encoder.finish().unwrap()
    };
    let bzip2 = {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        encoder.finish().unwrap()
    };
    let xz = {
        use std::process::{Command, Stdio};
        let path = world.context().join("for-xz");
        fs::write(&path, &tar).unwrap();
        let xz = Command::new("xz").arg("-c").arg(&path).stderr(Stdio::null()).output();
        xz.ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    let archives = [
        ("p.tar", Some(tar)),
        ("z.tgz", Some(gzip.clone())),
        ("s", Some(zstd::encode_all(&gzip_less(&gzip)[..], 1).unwrap())),
        ("b.bz2", Some(bzip2)),
        ("x.xz", xz),
    ];
    for (name, bytes) in archives {
        let Some(bytes) = bytes else { continue };
        fs::write(world.context().join(name), bytes).unwrap();
        assert_eq!(
            added(&world, &format!("ADD {name} /to")),
            [
                "/have/through 640 3:4 inside",
                "/to/",
                "/to/soft 3:4 -> /have",
                "/to/top/ 750 3:4",
                "/to/top/f 640 3:4 text",
                "/to/top/hard 640 3:4 text"
            ],
            "{name}"
        );
        assert_eq!(added(&world, &format!("COPY {name} /copied/")).len(), 2);
    }
    let owned = added(&world, "ADD --chown=9:9 z.tgz /to");
    assert!(owned.contains(&"/to/top/f 640 9:9 text".to_owned()), "{owned:?}");
    // Compressed, and no tar: copied as it is.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"just text").unwrap();
    fs::write(world.context().join("text.gz"), encoder.finish().unwrap()).unwrap();
    let image = world.build("FROM scratch\nADD text.gz /\n").image();
    world.look(&image, |root| assert!(root.join("text.gz").is_file()));
}

/// The tar in a gzip stream.
fn gzip_less(gzip: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gzip), &mut bytes).unwrap();
    bytes
}

#[test]
fn archives_cannot_leave() {
    use tar::EntryType::{Link, Regular, Symlink};
    let world = World::new();
    for (name, entries, message) in [
        ("dots", vec![("../../out", Regular, "x")], "leads out of the destination"),
        ("middle", vec![("a/../../out", Regular, "x")], "leads out of the destination"),
        ("hard", vec![("l", Link, "../../../etc/passwd")], "leads out of the destination"),
        ("nothing", vec![("l", Link, "etc/passwd")], "links to `etc/passwd`"),
    ] {
        fs::write(world.context().join(name), tar_of(&entries)).unwrap();
        let error = world.fail(&format!("FROM scratch\nADD {name} /to/\n")).into_failure().error;
        let all = format!("{} {}", error.message, error.causes.join(" "));
        assert!(all.contains(message), "{name}: {all}");
    }
    // A link out and a file through it: both stay inside.
    let host = world.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let target = host.to_str().unwrap().to_owned();
    let entries = [("l", Symlink, target.as_str()), ("l/file", Regular, "x"), ("abs", Symlink, "/")];
    fs::write(world.context().join("link"), tar_of(&entries)).unwrap();
    let image = world.build("FROM scratch\nADD link /to/\n").image();
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    assert!(world.files(&image).contains(&format!("{target}/file 640 3:4 x")));
    // A damaged archive is an error, not half an image.
    let mut damaged = tar_of(&[("file", Regular, &"x".repeat(5000))]);
    damaged.truncate(2000);
    fs::write(world.context().join("cut"), damaged).unwrap();
    let error = world.fail("FROM scratch\nADD cut /to/\n");
    assert!(error.to_string().contains("cannot extract `cut`"), "{error}");
}

#[test]
fn what_is_excluded_is_not_looked_at() {
    let world = World::new();
    world.file("src/a", "a").file("src/run/keep", "k").file("src/run/b", "b").file("src/deep/c", "c");
    let sockets = ["src/run/agent.sock", "src/agent.sock", "agent.sock"];
    let _listeners =
        sockets.map(|at| std::os::unix::net::UnixListener::bind(world.context().join(at)).unwrap());
    let files = |copy: &str| world.files(&world.build(&format!("FROM scratch\n{copy}\n")).image());
    assert_eq!(
        files("COPY --exclude=**/*.sock --exclude=deep src /to/"),
        ["/to/", "/to/a a", "/to/run/", "/to/run/b b", "/to/run/keep k"]
    );
    assert_eq!(
        files("COPY --exclude=run --exclude=!run/keep --exclude=*.sock --exclude=deep src /to/"),
        ["/to/", "/to/a a", "/to/run/", "/to/run/keep k"]
    );
    assert_eq!(files("COPY --exclude=*.sock --exclude=src agent.sock src/deep /to/"), ["/to/", "/to/c c"]);
    assert_eq!(
        files("COPY --parents --exclude=**/*.sock --exclude=src/run src /to/"),
        ["/to/", "/to/src/", "/to/src/a a", "/to/src/deep/", "/to/src/deep/c c"]
    );
    let error = world.fail("FROM scratch\nCOPY src /to/\n");
    assert!(error.to_string().contains("a socket"), "{error}");
}
