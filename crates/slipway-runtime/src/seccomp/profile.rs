//! Which system calls a container may make, as data.
//!
//! The set is that of Docker's documented default profile (moby/profiles, `seccomp/default.json`, 2025) for a container
//! with the default capabilities: what needs `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_TIME` and the like is not in it.

/// A condition on the low 32 bits of an argument. All arguments that are looked at are 32-bit to the kernel, or have
/// their meaning in these bits, so upper bits must not change the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Between both, inclusive.
    Between(u32, u32),
    /// None of these bits is set.
    Clear(u32),
}

/// System calls that are allowed whatever their arguments.
pub(super) const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind breakpoint brk cacheflush
    cachestat capget capset chdir chmod chown chown32 chroot clock_adjtime clock_adjtime64 clock_getres
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32
    getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
    io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
    _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev
    pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
    recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// System calls that are allowed when one of the conditions holds for argument 0.
pub(super) const CONDITIONAL: [(&str, &[When]); 3] = [
    // Every flag that makes a namespace: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
    ("clone", &[When::Clear(0x7e02_0000)]),
    // Linux, 32-bit, their short-inode variants, and the query.
    (
        "personality",
        &[
            When::Between(0, 0),
            When::Between(8, 8),
            When::Between(0x20000, 0x20000),
            When::Between(0x20008, 0x20008),
            When::Between(u32::MAX, u32::MAX),
        ],
    ),
    // Address families; not among them: AF_DECnet, AF_ECONET, AF_WANPIPE, AF_ALG, AF_NFC, AF_VSOCK and the rarer ones.
    (
        "socket",
        &[
            When::Between(0, 11),
            When::Between(13, 18),
            When::Between(21, 22),
            When::Between(24, 24),
            When::Between(26, 33),
            When::Between(35, 36),
            When::Between(39, 39),
            When::Between(41, 45),
        ],
    ),
];

/// System calls that answer "there is no such call", so that libraries fall back: the filter cannot see the flags of
/// `clone3`, which are in memory.
pub(super) const ABSENT: [&str; 1] = ["clone3"];

/// Calls newer than the libseccomp that this is built with (2.5.4 of Debian 12 ends at Linux 5.17). From 424 on, numbers
/// are the same on every architecture. Source: `scripts/syscall.tbl` of Linux 6.18.
pub(super) const NEWER: [(&str, u32); 14] = [
    ("futex_waitv", 449),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
];

/// Last number that this table has an opinion on (`removexattrat`). What is newer does not exist, as far as a container
/// can see: with `EPERM` instead, libraries would not fall back to older calls.
pub(super) const LAST_KNOWN: u32 = 466;
