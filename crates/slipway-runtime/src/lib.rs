//! Containers on this host: namespaces, mounts, cgroups, seccomp and the shim.
