//! Real containers, on this host's kernel: needs root and a static busybox (`apt-get install busybox-static`).
//!
//! Each test has its own folders and checks at its end that nothing is left: no mount, cgroup, process or socket.

mod attach;
mod build;
mod crash;
mod exec;
mod fixture;
mod isolation;
mod limits;
mod logs;
mod process;
mod speed;
