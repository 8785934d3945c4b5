//! Listing a tree, on two threads.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Stat};

use super::{Entry, EntryKind, MAX_ENTRIES, THREADS, TreeError, describe, stamp_of};
use crate::build::ignore::Ignore;
use crate::build::root::{Owner, Root};
use crate::build::runner::CancelFlag;

/// What is to be done with a path of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    Skip,
    /// A folder that is skipped itself and may hold something that is not.
    Descend,
}

/// What a source lets be copied.
pub(crate) trait Rules: Sync {
    /// Whether a path below the source's root is copied.
    fn verdict(&self, path: &Path, is_dir: bool) -> Verdict;

    /// Whether owners, devices and extended attributes are copied: from images, never from a context.
    fn faithful(&self) -> bool;
}

/// Rules with patterns of `--exclude` on top.
pub(crate) struct Excluding<'r> {
    pub(crate) rules: &'r dyn Rules,
    pub(crate) patterns: &'r Ignore,
    /// The tree's top below the source's root.
    pub(crate) at: &'r Path,
    /// What the patterns see in its place.
    pub(crate) above: &'r Path,
}

impl Excluding<'_> {
    /// What the patterns say of a path as they see it.
    pub(crate) fn own(&self, seen: &Path, is_dir: bool) -> Verdict {
        let text = seen.to_string_lossy();
        if !self.patterns.is_ignored(&text) {
            Verdict::Keep
        } else if is_dir && !self.patterns.may_skip_folder(&text) {
            Verdict::Descend
        } else {
            Verdict::Skip
        }
    }
}

impl Rules for Excluding<'_> {
    fn verdict(&self, path: &Path, is_dir: bool) -> Verdict {
        let seen = self.above.join(path.strip_prefix(self.at).unwrap_or(path));
        match (self.rules.verdict(path, is_dir), self.own(&seen, is_dir)) {
            (Verdict::Skip, _) | (_, Verdict::Skip) => Verdict::Skip,
            (Verdict::Descend, _) | (_, Verdict::Descend) => Verdict::Descend,
            (Verdict::Keep, Verdict::Keep) => Verdict::Keep,
        }
    }

    fn faithful(&self) -> bool {
        self.rules.faithful()
    }
}

/// One listed entry and, for a folder, the number of its own listing.
struct Listed {
    entry: Entry,
    inside: Option<usize>,
    kept: bool,
}

struct Job {
    listing: usize,
    path: PathBuf,
}

#[derive(Default)]
struct Work {
    jobs: Vec<Job>,
    listings: Vec<Vec<Listed>>,
    running: usize,
    entries: usize,
    failed: Option<TreeError>,
}

/// Lists what is at `at` (a path without links below `root`) and everything in it that the rules let through.
/// Regular files have no hash yet.
pub(crate) fn scan(
    root: &Root,
    at: &Path,
    rules: &dyn Rules,
    cancel: &CancelFlag,
) -> Result<Vec<Entry>, TreeError> {
    let found = root
        .find(at)
        .map_err(|source| TreeError::io(at, source))?
        .ok_or_else(|| TreeError::io(at, rustix::io::Errno::NOENT))?;
    let top = entry(found.fd.as_fd(), OsStr::new(""), PathBuf::new(), at, &found.stat, rules)?;
    if top.kind != EntryKind::Directory {
        return Ok(vec![top]);
    }
    let work = Mutex::new(Work {
        jobs: vec![Job { listing: 0, path: PathBuf::new() }],
        listings: vec![Vec::new()],
        ..Work::default()
    });
    let changed = Condvar::new();
    let scanner = Scanner { root, at, rules, cancel, work: &work, changed: &changed };
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(|| scanner.run());
        }
        scanner.run();
    });
    let mut work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    match work.failed.take() {
        Some(error) => Err(error),
        None => Ok(assemble(top, work.listings, work.entries)),
    }
}

struct Scanner<'a> {
    root: &'a Root,
    at: &'a Path,
    rules: &'a dyn Rules,
    cancel: &'a CancelFlag,
    work: &'a Mutex<Work>,
    changed: &'a Condvar,
}

impl Scanner<'_> {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut work = self.lock();
        loop {
            if work.failed.is_some() || (work.jobs.is_empty() && work.running == 0) {
                self.changed.notify_all();
                return;
            }
            let Some(job) = work.jobs.pop() else {
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.running += 1;
            drop(work);
            let listed = self.list(&job.path);
            work = self.lock();
            work.running -= 1;
            match listed {
                Err(error) => work.failed = Some(error),
                Ok(mut listed) => {
                    work.entries += listed.len();
                    if work.entries > MAX_ENTRIES {
                        work.failed = Some(TreeError::TooMany);
                    }
                    for one in listed.iter_mut().filter(|one| one.entry.kind == EntryKind::Directory) {
                        let listing = work.listings.len();
                        work.listings.push(Vec::new());
                        work.jobs.push(Job { listing, path: one.entry.path.clone() });
                        one.inside = Some(listing);
                    }
                    work.listings[job.listing] = listed;
                }
            }
            self.changed.notify_all();
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<Listed>, TreeError> {
        if self.cancel.is_cancelled() {
            return Err(TreeError::Cancelled);
        }
        let whole = self.at.join(path);
        let fail = |source: std::io::Error| TreeError::io(&whole, source);
        let mut dir = Dir::new(self.root.open_dir(&whole).map_err(fail)?).map_err(|e| fail(e.into()))?;
        let mut names: Vec<OsString> = Vec::new();
        while let Some(next) = dir.read() {
            let next = next.map_err(|e| fail(e.into()))?;
            let name = next.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
            if names.len() > MAX_ENTRIES {
                return Err(TreeError::TooMany);
            }
        }
        names.sort_unstable();
        let fd = dir.fd().map_err(|e| fail(e.into()))?;
        let mut listed = Vec::with_capacity(names.len());
        for name in names {
            let whole = whole.join(&name);
            let stat = match rustix::fs::statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone since the folder was listed, like any file that was removed just before.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(TreeError::io(&whole, error)),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let kept = match self.rules.verdict(&whole, is_dir) {
                Verdict::Skip => continue,
                Verdict::Descend if !is_dir => continue,
                verdict => verdict == Verdict::Keep,
            };
            let entry = entry(fd, &name, path.join(&name), &whole, &stat, self.rules)?;
            listed.push(Listed { entry, inside: None, kept });
        }
        Ok(listed)
    }
}

/// Puts the listings into one list, each folder followed by what is in it. Folders that are only there for
/// what they hold are left out when that is nothing.
fn assemble(top: Entry, mut listings: Vec<Vec<Listed>>, count: usize) -> Vec<Entry> {
    // Children have larger numbers than their parents, so one pass backwards settles who is kept.
    let mut keeps: Vec<bool> = vec![false; listings.len()];
    for number in (0..listings.len()).rev() {
        for one in &mut listings[number] {
            one.kept = one.kept || one.inside.is_some_and(|inside| keeps[inside]);
        }
        keeps[number] = listings[number].iter().any(|one| one.kept);
    }
    let mut entries = Vec::with_capacity(count + 1);
    entries.push(top);
    let mut stack = vec![std::mem::take(&mut listings[0]).into_iter()];
    while let Some(current) = stack.last_mut() {
        match current.next() {
            None => {
                stack.pop();
            }
            Some(one) if one.kept => {
                entries.push(one.entry);
                if let Some(inside) = one.inside {
                    stack.push(std::mem::take(&mut listings[inside]).into_iter());
                }
            }
            Some(_) => {}
        }
    }
    entries
}

/// A folder alone, without what is in it.
pub(crate) fn folder_alone(stat: &Stat, rules: &dyn Rules) -> Entry {
    Entry {
        path: PathBuf::new(),
        kind: EntryKind::Directory,
        mode: stat.st_mode & 0o7777,
        owner: if rules.faithful() { Owner { uid: stat.st_uid, gid: stat.st_gid } } else { Owner::default() },
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
        shared: None,
        stamp: stamp_of(stat),
        xattrs: Vec::new(),
    }
}

/// Makes an entry; an empty `name` means the descriptor itself.
fn entry(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: PathBuf,
    whole: &Path,
    stat: &Stat,
    rules: &dyn Rules,
) -> Result<Entry, TreeError> {
    let special = |kind| TreeError::Special { path: whole.to_owned(), what: describe(kind) };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Directory,
        FileType::RegularFile => EntryKind::File(None),
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(dir, name, Vec::new())
                .map_err(|source| TreeError::io(whole, source))?;
            EntryKind::Symlink(OsStr::from_bytes(link.as_bytes()).to_owned())
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice) if rules.faithful() => {
            EntryKind::Device { character: kind == FileType::CharacterDevice, number: stat.st_rdev }
        }
        FileType::Fifo if rules.faithful() => EntryKind::Fifo,
        kind => return Err(special(kind)),
    };
    let shared = kind != EntryKind::Directory && stat.st_nlink > 1;
    Ok(Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        owner: if rules.faithful() { Owner { uid: stat.st_uid, gid: stat.st_gid } } else { Owner::default() },
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
        shared: shared.then_some((stat.st_dev, stat.st_ino)),
        stamp: stamp_of(stat),
        xattrs: Vec::new(),
    })
}
