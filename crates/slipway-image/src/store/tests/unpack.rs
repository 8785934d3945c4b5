//! Archives, honest and not, against the directory that they are unpacked to.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::super::archive::{self, ArchiveError, Overlay, Refusal, UnpackLimits};
use super::{TarFile, set_mtime, snapshot, tree};

/// Unpacks into `root/in`, beside `root/outside` with a canary.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "outside", "outside/dir"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        fs::write(dir.path().join("outside/dir/inner"), "alive").unwrap();
        Self { dir }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("in")
    }

    fn unpack(&self, tar: &[u8]) -> Result<archive::Unpacked, ArchiveError> {
        archive::unpack(tar, &self.root(), &UnpackLimits { max_entries: 1000, max_bytes: 1 << 22 })
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ArchiveError>) -> Refusal {
    match result {
        Err(ArchiveError::Refused { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn breakouts_are_refused() {
    let out = Bed::new().dir.path().join("outside").to_str().unwrap().to_owned();
    let up = "../outside";
    let t = TarFile::default;
    let cases: Vec<(&str, TarFile, Refusal)> = vec![
        ("dot dot", t().file("../outside/canary", b"dead"), Refusal::ParentDir),
        ("dot dot in the middle", t().dir("a").file("a/../../outside/canary", b"dead"), Refusal::ParentDir),
        ("harmless dot dot", t().dir("a").file("a/../b", b"dead"), Refusal::ParentDir),
        ("dot dot as a name", t().dir(".."), Refusal::ParentDir),
        ("absolute", t().file("/outside/canary", b"dead"), Refusal::Absolute),
        ("absolute directory", t().dir("/"), Refusal::Absolute),
        ("extended path", t().pax(&[("path", b"../outside/canary")]).file("ok", b"dead"), Refusal::ParentDir),
        ("NUL in an extended path", t().pax(&[("path", b"ok\0/../x")]).file("ok", b"dead"), Refusal::Nul),
        ("GNU long name", t().add("././@LongLink", b'L', "", b"../x\0").file("ok", b""), Refusal::ParentDir),
        (
            "through a relative link",
            t().symlink("l", up).file("l/canary", b"dead"),
            Refusal::ParentNotDirectory,
        ),
        (
            "through an absolute link",
            t().symlink("l", &out).file("l/canary", b"dead"),
            Refusal::ParentNotDirectory,
        ),
        (
            "through a chain of links",
            t().symlink("a", "b").symlink("b", up).file("a/canary", b"dead"),
            Refusal::ParentNotDirectory,
        ),
        ("through a link to itself", t().symlink("l", "l").file("l/x", b"dead"), Refusal::ParentNotDirectory),
        ("through a file", t().file("f", b"").file("f/x", b"dead"), Refusal::ParentNotDirectory),
        ("new directory behind a link", t().symlink("l", up).dir("l/new/deep"), Refusal::ParentNotDirectory),
        ("hard link up", t().hardlink("h", "../outside/canary"), Refusal::ParentDir),
        ("hard link to an absolute path", t().hardlink("h", "/etc/passwd"), Refusal::BadLinkTarget),
        ("hard link behind a link", t().symlink("l", up).hardlink("h", "l/canary"), Refusal::BadLinkTarget),
        (
            "hard link behind an absolute link",
            t().symlink("l", &out).hardlink("h", "l/canary"),
            Refusal::BadLinkTarget,
        ),
        ("hard link to nothing", t().hardlink("h", "missing"), Refusal::BadLinkTarget),
        ("hard link to a directory", t().dir("d").hardlink("h", "d"), Refusal::BadLinkTarget),
        ("hard link to the root", t().hardlink("h", "."), Refusal::BadLinkTarget),
        ("whiteout up", t().file("../outside/.wh.canary", b""), Refusal::ParentDir),
        ("whiteout of dot dot", t().file(".wh...", b""), Refusal::BadWhiteout),
        ("whiteout of dot", t().file("a/.wh..", b""), Refusal::BadWhiteout),
        ("whiteout of nothing", t().file(".wh.", b""), Refusal::BadWhiteout),
        ("whiteout that is a link", t().symlink(".wh.x", up), Refusal::BadWhiteout),
        (
            "whiteout behind a link",
            t().symlink("l", up).file("l/.wh.canary", b""),
            Refusal::ParentNotDirectory,
        ),
        (
            "opaque behind a link",
            t().symlink("l", up).file("l/.wh..wh..opq", b""),
            Refusal::ParentNotDirectory,
        ),
        ("empty name", t().file("", b""), Refusal::NoName),
        ("a file as the root", t().file("./", b"x").file("./.", b""), Refusal::UnexpectedData),
        ("a link as the root", t().symlink("./", "x"), Refusal::NoName),
        ("sparse", t().add("s", b'S', "", b""), Refusal::Sparse),
        ("extended sparse", t().pax(&[("GNU.sparse.major", b"1")]).file("s", b"x"), Refusal::Sparse),
        ("unknown type", t().add("u", b'Z', "", b""), Refusal::UnknownType),
        ("multi-volume", t().add("u", b'M', "", b""), Refusal::UnknownType),
        ("a link with data", t().add("l", b'2', "x", b"data"), Refusal::UnexpectedData),
        (
            "a device out of range",
            t().add_with("d", b'3', "", b"", |h| h.set_device_major(0x1000).unwrap()),
            Refusal::BadAttribute,
        ),
        ("an owner out of range", t().pax(&[("uid", b"4294967295")]).file("f", b""), Refusal::BadAttribute),
        ("a name that is too long", t().pax(&[("path", &[b'a'; 256])]).file("f", b""), Refusal::PathTooLong),
        (
            "a path that is too long",
            t().pax(&[("path", &b"abc/".repeat(1025))]).file("f", b""),
            Refusal::PathTooLong,
        ),
        (
            "a link that is too long",
            t().pax(&[("linkpath", &[b'a'; 4096])]).symlink("l", "x"),
            Refusal::PathTooLong,
        ),
    ];
    for (what, tar, expected) in cases {
        let bed = Bed::new();
        let before = snapshot(&bed.dir.path().join("outside"));
        assert_eq!(refusal(bed.unpack(&tar.end())), expected, "{what}");
        assert_eq!(snapshot(&bed.dir.path().join("outside")), before, "{what}");
    }
}

#[test]
fn links_that_lead_out_are_replaced_and_never_followed() {
    let t = TarFile::default;
    for (what, tar) in [
        ("a file", t().symlink("l", "../outside/canary").file("l", b"new")),
        (
            "a directory",
            t().symlink("l", "../outside/dir").add_with("l", b'5', "", b"", |h| h.set_mode(0o700)),
        ),
        ("a fifo", t().symlink("l", "../outside/canary").add("l", b'6', "", b"")),
        ("a hard link", t().file("x", b"new").symlink("l", "../outside/canary").hardlink("l", "x")),
        ("a link", t().symlink("l", "../outside/dir").symlink("l", "../outside/canary")),
        (
            "a hard link to the link",
            t().symlink("a", "../outside/canary").hardlink("l", "a").file("l", b"new"),
        ),
        ("a whiteout", t().symlink("l", "../outside/canary").file(".wh.l", b"")),
    ] {
        let bed = Bed::new();
        let before = snapshot(&bed.dir.path().join("outside"));
        bed.unpack(&tar.end()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(snapshot(&bed.dir.path().join("outside")), before, "{what}");
    }
}

#[test]
fn links_within_the_layer_are_followed_as_in_a_container() {
    let bed = Bed::new();
    let tar = TarFile::default()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("usr/up", "../../../../usr/lib")
        .file("lib/a", b"a")
        .file("abs/b", b"b")
        .file("usr/up/c", b"c")
        .hardlink("usr/d", "/abs/a")
        .file("abs/.wh.gone", b"")
        .end();
    bed.unpack(&tar).unwrap();
    for (name, text) in [("usr/lib/a", "a"), ("usr/lib/b", "b"), ("usr/lib/c", "c"), ("usr/d", "a")] {
        assert_eq!(fs::read_to_string(bed.root().join(name)).unwrap(), text);
    }
    assert!(is_whiteout(&bed.root().join("usr/lib/gone")));
    assert_eq!(fs::read_link(bed.root().join("usr/up")).unwrap(), Path::new("../../../../usr/lib"));
}

#[test]
fn malformed_streams_are_refused() {
    let t = TarFile::default;
    let good = t().file("f", &[b'x'; 700]).end();
    let mut checksum = good.clone();
    checksum[0] ^= 1;
    let mut lone_zero_block = t().file("f", b"").0;
    lone_zero_block.resize(lone_zero_block.len() + 512, 0);
    lone_zero_block.extend(t().file("g", b"").0);
    let too_big = t().add_with("f", b'0', "", b"", |h| h.as_old_mut().size = *b"77777777777\0").end();
    let huge = t().pax(&[("size", b"18446744073709551615")]).file("f", b"").end();
    for (what, tar) in [
        ("cut in a file", good[..1000].to_vec()),
        ("cut in a header", good[..100].to_vec()),
        ("cut after an extended header", t().pax(&[("path", b"x")]).0),
        ("checksum", checksum),
        ("one zero block", lone_zero_block),
        ("a size that nothing follows", too_big),
        ("a size near the limit of numbers", huge),
        ("negative size", t().add_with("f", b'0', "", b"", |h| h.as_old_mut().size = [0xff; 12]).end()),
        (
            "size in words",
            t().add_with("f", b'0', "", b"", |h| h.as_old_mut().size = *b"many bytes\0\0").end(),
        ),
        ("negative extended size", t().pax(&[("size", b"-1")]).file("f", b"").end()),
        ("global header with a path", t().add("g", b'g', "", b"9 path=x\n").file("f", b"").end()),
        ("two extended headers", t().pax(&[("path", b"x")]).pax(&[("path", b"y")]).file("f", b"").end()),
        ("two long names", t().add("L", b'L', "", b"x").add("L", b'L', "", b"y").file("f", b"").end()),
        ("long extended header", t().add("x", b'x', "", &vec![b'0'; (1 << 20) + 1]).file("f", b"").end()),
        ("not a tar", vec![b'?'; 4096]),
    ] {
        let bed = Bed::new();
        let result = bed.unpack(&tar);
        assert!(
            matches!(
                result,
                Err(ArchiveError::BadHeader { .. } | ArchiveError::Truncated | ArchiveError::TooLong { .. })
            ),
            "{what}: {result:?}"
        );
    }
    // No end marker, a volume label, and a harmless global header are fine.
    let tar = t().add("V", b'V', "", b"").add("g", b'g', "", b"13 comment=x\n").file("f", b"x").0;
    assert_eq!(Bed::new().unpack(&tar).unwrap().entries, 1);
    assert_eq!(Bed::new().unpack(b"").unwrap().entries, 0);
}

#[test]
fn the_extended_size_wins() {
    // A reader that follows the ustar field finds `evil` inside the data of `f`.
    let inner = TarFile::default().file("evil", b"x").end();
    let size = inner.len().to_string();
    let mut tar = TarFile::default().pax(&[("size", size.as_bytes())]).file("f", b"");
    tar.0.extend_from_slice(&inner);
    let bed = Bed::new();
    bed.unpack(&tar.file("after", b"").end()).unwrap();
    assert_eq!(super::names_in(&bed.root()), ["after", "f"]);
    assert_eq!(fs::read(bed.root().join("f")).unwrap(), inner);
}

#[test]
fn limits_hold() {
    let many = (0..20).fold(TarFile::default(), |t, i| t.file(&format!("f{i}"), b"")).end();
    let limits = |max_entries, max_bytes| UnpackLimits { max_entries, max_bytes };
    let bed = Bed::new();
    assert!(matches!(
        archive::unpack(&many[..], &bed.root(), &limits(19, 1 << 20)),
        Err(ArchiveError::TooManyEntries { limit: 19 })
    ));
    let big = TarFile::default().file("f", &vec![0; 1 << 20]).end();
    let bed = Bed::new();
    assert!(matches!(
        archive::unpack(&big[..], &bed.root(), &limits(10, 1 << 20)),
        Err(ArchiveError::TooLong { .. })
    ));
    // A bomb of zeros after the end counts, too.
    let endless = std::io::Read::chain(&many[..], std::io::repeat(0));
    let bed = Bed::new();
    assert!(matches!(
        archive::unpack(endless, &bed.root(), &limits(100, 1 << 20)),
        Err(ArchiveError::TooLong { .. })
    ));
}

#[test]
fn attributes_are_kept() {
    let bed = Bed::new();
    // A `cap_net_bind_service=ep` in the form of the kernel (linux/capability.h, revision 2).
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = TarFile::default()
        .add_with("d", b'5', "", b"", |h| {
            h.set_mode(0o1777);
            h.set_mtime(5);
        })
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"with\0and\n="),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"1234567890.123456789"),
            ("uid", b"3000000"),
        ])
        .add_with("d/suid", b'0', "", b"text", |h| {
            h.set_mode(0o104_755);
            h.set_gid(42);
        })
        .add_with("d/null", b'3', "", b"", |h| {
            h.set_mode(0o666);
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .add_with("d/disk", b'4', "", b"", |h| {
            h.set_device_major(8).unwrap();
            h.set_device_minor(1).unwrap();
        })
        .add("d/fifo", b'6', "", b"")
        .symlink("d/link", "anywhere/../at all")
        .hardlink("d/hard", "d/suid")
        .hardlink("d/hard-link", "d/link")
        .end();
    let unpacked = bed.unpack(&tar).unwrap();
    assert_eq!((unpacked.entries, unpacked.size), (8, 4));
    let at = |name: &str| bed.root().join(name);
    let stat = |name: &str| at(name).symlink_metadata().unwrap();
    assert_eq!((stat("d").mode() & 0o7777, stat("d").mtime()), (0o1777, 5));
    let suid = stat("d/suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.nlink()), (0o4755, 3_000_000, 42, 2));
    assert_eq!((suid.mtime(), suid.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!(xattr(&at("d/suid"), "security.capability").as_deref(), Some(capability));
    assert_eq!(xattr(&at("d/suid"), "user.note").as_deref(), Some(&b"with\0and\n="[..]));
    assert_eq!(xattr(&at("d/suid"), "trusted.overlay.redirect"), None);
    assert!(
        stat("d/null").file_type().is_char_device() && stat("d/null").rdev() == rustix::fs::makedev(1, 3)
    );
    assert_eq!(stat("d/null").mode() & 0o7777, 0o666);
    assert!(stat("d/disk").file_type().is_block_device());
    assert!(stat("d/fifo").file_type().is_fifo());
    assert_eq!(stat("d/hard").ino(), suid.ino());
    assert_eq!(stat("d/hard-link").ino(), stat("d/link").ino());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let t = TarFile::default;
    let bed = Bed::new();
    let tar = t()
        .file("a", b"old")
        .dir("d")
        .file("d/x", b"x")
        .file("a", b"new and longer")
        .file("d", b"now a file")
        .symlink("s", "a")
        .dir("s")
        .file("s/inner", b"i")
        .dir("kept")
        .file("kept/k", b"k")
        .add_with("kept", b'5', "", b"", |h| h.set_mode(0o711))
        .file("self", b"s")
        .hardlink("self", "self")
        .end();
    bed.unpack(&tar).unwrap();
    let read = |name: &str| fs::read_to_string(bed.root().join(name)).unwrap();
    assert_eq!(read("a"), "new and longer");
    assert_eq!(read("d"), "now a file");
    assert_eq!(read("s/inner"), "i");
    assert_eq!(read("kept/k"), "k");
    assert_eq!(read("self"), "s");
    assert_eq!(fs::metadata(bed.root().join("kept")).unwrap().permissions().mode() & 0o7777, 0o711);
    // A link whose target lies in what it replaces is an error, not a loss outside.
    assert_eq!(
        refusal(Bed::new().unpack(&t().dir("d").file("d/x", b"").hardlink("d", "d/x").end())),
        Refusal::BadLinkTarget
    );
}

#[test]
fn deletions_take_the_form_of_overlayfs() {
    let bed = Bed::new();
    let tar = TarFile::default()
        .dir("d")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .file("implied/deep/.wh.gone", b"")
        // A layer that deletes and has a name: what it has stays, and a directory hides the lower one.
        .file(".wh.file", b"")
        .file("file", b"stays")
        .file("file2", b"stays")
        .file(".wh.file2", b"")
        .file(".wh.before", b"")
        .dir("before")
        .dir("after")
        .file("after/x", b"stays")
        .file(".wh.after", b"")
        .file(".wh.parent", b"")
        .file("parent/x", b"stays")
        .add("node", b'3', "", b"")
        .end();
    bed.unpack(&tar).unwrap();
    let at = |name: &str| bed.root().join(name);
    for name in ["d/gone", "implied/deep/gone", "node"] {
        assert!(is_whiteout(&at(name)), "{name}");
    }
    for name in ["d", "before", "after", "parent"] {
        assert!(archive::is_opaque(&at(name)), "{name}");
    }
    for name in ["implied", "implied/deep"] {
        assert!(!archive::is_opaque(&at(name)), "{name}");
        assert_eq!(fs::metadata(at(name)).unwrap().mtime(), 0, "{name}");
    }
    for name in ["file", "file2", "after/x", "parent/x"] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), "stays", "{name}");
    }
    assert!(!at(".wh..wh.plnk").exists());
    assert!(tree(&bed.root()).iter().all(|path| !path.to_str().unwrap().contains(".wh.")));
}

#[test]
fn archives_of_gnu_tar_are_read() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    let long = format!("{}/{}/{}", "l".repeat(100), "m".repeat(200), "n".repeat(120));
    fs::create_dir_all(at(&long)).unwrap();
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), vec![7; 100_000]).unwrap();
    fs::write(at(&long).join("deep"), "deep").unwrap();
    fs::write(at("größe\n"), "umlaut").unwrap();
    fs::hard_link(at("d/f"), at("d/g")).unwrap();
    std::os::unix::fs::symlink("x".repeat(300), at("d/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("d/fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    std::os::unix::fs::lchown(at("d/f"), Some(5_000_000), Some(7)).unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o6751)).unwrap();
    set_mtime(&at("größe\n"), -1000);
    for path in tree(source.path()) {
        if path != at("größe\n") {
            set_mtime(&path, 1_600_000_000);
        }
    }
    let expected = canonical(source.path());
    for format in ["gnu", "posix", "oldgnu", "pax"] {
        let output = Command::new("tar")
            .args(["--create", "--file=-", &format!("--format={format}"), "--numeric-owner", "."])
            .current_dir(source.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bed = Bed::new();
        bed.unpack(&output.stdout).unwrap_or_else(|e| panic!("{format}: {e}"));
        assert_eq!(canonical(&bed.root()), expected, "{format}");
    }
    let sparse = tempfile::tempdir().unwrap();
    let file = fs::File::create(sparse.path().join("sparse")).unwrap();
    file.set_len(1 << 20).unwrap();
    for format in ["gnu", "posix"] {
        let output = Command::new("tar")
            .args(["--create", "--sparse", "--file=-", &format!("--format={format}"), "."])
            .current_dir(sparse.path())
            .output()
            .unwrap();
        assert_eq!(refusal(Bed::new().unpack(&output.stdout)), Refusal::Sparse, "{format}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damaged archives never panic, and never change anything outside.
    #[test]
    fn damage_stays_inside(
        flips in prop::collection::vec((0usize..6000, any::<u8>()), 0..8),
        repair in any::<bool>(),
    ) {
        let mut tar = TarFile::default()
            .dir("d")
            .symlink("d/l", "../../outside")
            .pax(&[("path", b"d/some name"), ("size", b"600")])
            .file("x", &[b'y'; 600])
            .hardlink("d/h", "d/some name")
            .file("d/.wh.canary", b"")
            .add("L", b'L', "", b"d/long")
            .file("z", b"1")
            .end();
        for (at, value) in flips {
            if let Some(byte) = tar.get_mut(at) {
                *byte = value;
            }
        }
        if repair {
            for block in tar.chunks_exact_mut(512) {
                if &block[257..262] == b"ustar" {
                    let mut header = tar::Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let bed = Bed::new();
        let before = snapshot(&bed.dir.path().join("outside"));
        let _ = bed.unpack(&tar);
        prop_assert_eq!(snapshot(&bed.dir.path().join("outside")), before);
        prop_assert_eq!(super::names_in(bed.dir.path()), ["in", "outside"]);
    }
}

fn canonical(root: &Path) -> slipway_types::Digest {
    let tree = archive::scan(root, Overlay::Keep).unwrap();
    archive::write_tree(&tree, &mut std::io::sink()).unwrap().diff_id
}

fn is_whiteout(path: &Path) -> bool {
    let stat = path.symlink_metadata().unwrap();
    stat.file_type().is_char_device() && stat.rdev() == 0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}
