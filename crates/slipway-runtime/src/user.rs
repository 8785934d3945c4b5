//! Users by the container's own `/etc/passwd` and `/etc/group`. The host's name service is never asked: inside a
//! foreign root it would load that root's libraries.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::files;

/// Largest `passwd` or `group` that is read.
const MAX_FILE: u64 = 4 << 20;
/// Most supplementary groups of a process, the kernel's `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65_536;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Why a user is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("no user `{0}` in the container's /etc/passwd")]
    NoUser(String),
    /// There is no such group.
    #[error("no group `{0}` in the container's /etc/group")]
    NoGroup(String),
    /// A file cannot be read.
    #[error("cannot read the container's {file}: {reason}")]
    Read {
        /// Which.
        file: &'static str,
        /// Why.
        reason: String,
    },
}

/// User and group id of `user[:group]`, by the texts of `/etc/passwd` and `/etc/group`; empty is root. As containers of
/// this host have it.
pub fn user_ids(passwd: &str, group: &str, user: &str) -> Result<(u32, u32), UserError> {
    resolve_in(passwd, group, user).map(|found| (found.uid, found.gid))
}

/// Looks `user[:group]` up inside `root`; empty is root.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &str) -> Result<ResolvedUser, UserError> {
    let read = |file: &'static str| {
        read_inside(root, file).map_err(|error| UserError::Read { file, reason: error.to_string() })
    };
    resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, user)
}

/// An absent file is an empty one. Links cannot lead outside of `root`, nor to devices or pipes that would block.
fn read_inside(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(String::from_utf8_lossy(&files::read_file_capped(file, MAX_FILE)?).into_owned())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or("");
        Some(Account { name, uid, gid, home })
    })
}

/// Name, number and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn resolve_in(passwd: &str, group: &str, user: &str) -> Result<ResolvedUser, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // A number wins over a user who is named like one, as with Docker.
    let number = name.parse::<u32>().ok();
    let account = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == name,
    });
    let (uid, own_gid) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(UserError::NoUser(name.to_owned())),
    };
    let home = account.as_ref().map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/");
    let (gid, member_of) = match group_name {
        // A group that is asked for is the only one.
        Some(wanted) => (find_group(group, wanted)?, Vec::new()),
        None => {
            let is_member =
                |members: &str| account.as_ref().is_some_and(|a| members.split(',').any(|m| m == a.name));
            let mut found: Vec<u32> =
                groups(group).filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect();
            found.sort_unstable();
            found.dedup();
            found.truncate(MAX_GROUPS);
            (own_gid, found)
        }
    };
    Ok(ResolvedUser { uid, gid, groups: member_of, home: home.to_owned() })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, UserError> {
    if let Ok(gid) = wanted.parse() {
        return Ok(gid);
    }
    groups(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n4:x:77:78::/odd:\nnobody:x:65534:65534\n";
    const GROUP: &str = "root:x:0:\nann:x:1000:\nvideo:x:44:ann,bob\naudio:x:29:bob,ann\nempty:x:9:\n";

    #[test]
    fn every_way_to_name_a_user() {
        let user = |uid, gid, groups: &[u32], home: &str| ResolvedUser {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        for (text, expected) in [
            ("", user(0, 0, &[], "/root")),
            ("root", user(0, 0, &[], "/root")),
            ("ann", user(1000, 1000, &[29, 44], "/home/ann")),
            ("1000", user(1000, 1000, &[29, 44], "/home/ann")),
            ("ann:video", user(1000, 44, &[], "/home/ann")),
            ("ann:7", user(1000, 7, &[], "/home/ann")),
            ("ann:", user(1000, 1000, &[29, 44], "/home/ann")),
            (":video", user(0, 44, &[], "/root")),
            ("12345", user(12345, 0, &[], "/")),
            ("12345:6", user(12345, 6, &[], "/")),
            ("4", user(4, 0, &[], "/")),
            ("nobody", user(65534, 65534, &[], "/")),
        ] {
            assert_eq!(resolve_in(PASSWD, GROUP, text), Ok(expected), "{text:?}");
        }
        assert_eq!(resolve_in(PASSWD, GROUP, "eve"), Err(UserError::NoUser("eve".to_owned())));
        assert_eq!(resolve_in(PASSWD, GROUP, "-1"), Err(UserError::NoUser("-1".to_owned())));
        assert_eq!(resolve_in(PASSWD, GROUP, "ann:eve"), Err(UserError::NoGroup("eve".to_owned())));
        assert_eq!(resolve_in("", "", "0").map(|u| u.uid), Ok(0), "an image without accounts has root");
    }

    #[test]
    fn files_of_the_host_are_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../../etc/passwd", dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("etc/group")).unwrap();
        let root = files::open_dir(dir.path()).unwrap();
        // Both links resolve inside the root: one to itself, one to nothing.
        assert!(matches!(resolve(root.as_fd(), "daemon"), Err(UserError::Read { .. })));
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("etc/passwd"), Mode::RWXU).unwrap();
        assert!(matches!(resolve(root.as_fd(), "0"), Err(UserError::Read { .. })), "a pipe does not block");
    }

    proptest! {
        #[test]
        fn any_text_is_safe(passwd in ".{0,200}", group in ".{0,200}", user in ".{0,40}") {
            let _ = resolve_in(&passwd, &group, &user);
        }
    }
}
