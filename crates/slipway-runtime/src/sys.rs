//! System calls that no safe wrapper of rustix covers.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent,
    Child,
}

/// Forks. To be called by a process with one thread only.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the shim has one thread when it calls this, so the child's copy of memory is consistent.
    let pid = check(unsafe { libc::fork() })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent })
}

/// Closes every descriptor from 3 on: whatever the starter forgot to keep for itself. To be called before this process
/// opens any.
pub(crate) fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    for number in 3..1024 {
        // SAFETY: as above; numbers that are not open are refused.
        unsafe { libc::close(number) };
    }
}

/// Gives the calling thread namespaces of its own (`libc::CLONE_NEW*`).
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Drops every supplementary group.
pub(crate) fn clear_groups() -> io::Result<()> {
    // SAFETY: a length of zero lets the pointer be unused.
    check(unsafe { libc::setgroups(0, ptr::null()) }).map(drop)
}

/// What a process does with a signal.
pub(crate) fn ignore_signal(number: i32) {
    // SAFETY: ignoring a signal installs no code; an invalid number is refused by the kernel.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// Default action for every signal, none blocked: what a program expects of its parent. The C library would spare the two
/// signals that it uses itself, which a starter may have ignored.
pub(crate) fn reset_signals() {
    // The kernel's sigaction, with a handler of 0 (the default), no flags and an empty mask: larger than any architecture's.
    let default = [0_u64; 8];
    let none = 0_u64;
    for number in 1..=64 {
        // SAFETY: the structure is readable and installs no code; numbers that cannot be changed are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &default, ptr::null_mut::<u64>(), 8) };
    }
    // SAFETY: the mask is readable and has the size that is passed.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &none, ptr::null_mut::<u64>(), 8) };
}

/// Sends a signal to the process of a pidfd.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo means that of kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check_long(result).map(drop)
}

/// Puts descriptor `from` at number `to`, replacing what is there.
pub(crate) fn duplicate_to(from: &impl AsFd, to: RawFd) -> io::Result<()> {
    // SAFETY: both are numbers; nothing here owns 0, 1 or 2, which are what callers replace.
    check(unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) }).map(drop)
}

/// Locks a whole file for its open description; `false` when someone else has it.
pub(crate) fn lock_open_file(file: &impl AsFd) -> io::Result<bool> {
    // SAFETY: a flock of zeros is valid; its type is set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and the structure lives through the call.
    match check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &lock) }) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who else holds a lock on a file, if anyone: a process, or 0 for an open description. Takes none.
pub(crate) fn lock_holder(file: &impl AsFd) -> io::Result<Option<u32>> {
    // SAFETY: a flock of zeros is valid; its type is set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and the structure, which the kernel writes to, lives through the call.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| u32::try_from(lock.l_pid).unwrap_or(0)))
}

/// Enters the mount namespace that a descriptor stands for. For a process with one thread.
pub(crate) fn enter_mounts(namespace: &impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNS) }).map(drop)
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn raise_loopback() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call just made this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an ifreq of zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and names its interface with a terminated string.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

/// Changes a mount that is attached nowhere, with all below it: private, and read-only if asked for.
pub(crate) fn settle_mount(mount: &impl AsFd, read_only: bool) -> io::Result<()> {
    const AT_EMPTY_PATH: libc::c_int = 0x1000;
    const AT_RECURSIVE: libc::c_int = 0x8000;
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let set = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attr = MountAttr { set, clear: 0, propagation: libc::MS_PRIVATE, userns: 0 };
    // SAFETY: the path is a terminated string, and the structure has the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH | AT_RECURSIVE,
            &attr,
            size_of::<MountAttr>(),
        )
    };
    check_long(result).map(drop)
}

/// Replaces the process. Returns only when that failed.
pub(crate) fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and point to terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// One instruction of a seccomp filter; the layout of `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Installs a seccomp filter in this thread, for good. Needs no-new-privileges or `CAP_SYS_ADMIN`.
pub(crate) fn install_filter(program: &[Instruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let filter = Program { len, filter: program.as_ptr() };
    // Without this flag, kernels before 5.16 slow every process that has a filter.
    for flags in [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0] {
        // SAFETY: the program has the kernel's layout and outlives the call, which copies it.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &filter) };
        match check_long(result) {
            Err(error) if flags != 0 && error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return other.map(drop),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// Loads an eBPF program for cgroup device checks and attaches it to a cgroup v2 folder; the kernel keeps it until the
/// cgroup goes.
pub(crate) fn attach_device_program(cgroup: &impl AsFd, program: &[u64]) -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attributes have the kernel's layout and size; what they point to outlives the call.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &load, size_of::<Load>()) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the call just made this descriptor.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: as above; both descriptors are open.
    check_long(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attach, size_of::<Attach>()) })
        .map(drop)
}

/// Whether a descriptor that was opened before a clone is ready for reading, at once: a pidfd is when its process died.
pub(crate) fn is_readable(number: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: number, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure is passed, and its count.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

/// Writes to a descriptor by number, as far as it goes.
pub(crate) fn write_number(number: RawFd, bytes: &[u8]) {
    // SAFETY: the buffer and its length match; a closed descriptor is refused by the kernel.
    unsafe { libc::write(number, bytes.as_ptr().cast(), bytes.len()) };
}
