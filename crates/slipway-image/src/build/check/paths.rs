//! Slash-separated paths, without a file system.

/// A path without `.`, `..`, double and trailing slashes. Relative paths stay relative; `..` ends at the root.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

/// An absolute, clean path: `path` as seen from the absolute folder `base`.
pub(super) fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{base}/{path}")) }
}

/// The folder that a clean path lies in; `/` or the empty path at the top.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => "",
    }
}

/// The last component.
pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The rest of `path` below the folder `base`: empty for the folder itself, nothing when it lies elsewhere.
pub(super) fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    if base == "/" {
        return path.strip_prefix('/');
    }
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// A folder with a slash behind it, once.
pub(super) fn as_folder(path: &str) -> String {
    if path.ends_with('/') { path.to_owned() } else { format!("{path}/") }
}
