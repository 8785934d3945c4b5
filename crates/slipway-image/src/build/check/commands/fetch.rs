//! Programs that fetch, unpack and copy files.

use super::{Args, Effect, Makes, add, anything, here};

pub(super) fn git(args: &Args<'_>) -> Effect {
    let verb = args.iter().position(|(_, arg)| !arg.starts_with('-'));
    match verb.and_then(|at| args.get(at)) {
        Some("config" | "lfs" | "version") => Effect::default(),
        Some("clone") if !args.has_unknown() => {
            let words: Vec<&str> = args.iter().map(|(_, arg)| arg).collect();
            match words.iter().rposition(|word| word.contains("://") || word.starts_with("git@")) {
                Some(url) => {
                    let folder = words.get(url + 1).filter(|next| !next.starts_with('-'));
                    let named = words[url].trim_end_matches('/').trim_end_matches(".git");
                    let folder =
                        folder.copied().unwrap_or_else(|| named.rsplit(['/', ':']).next().unwrap_or(named));
                    Effect { makes: Makes::Paths(vec![folder.to_owned()]), ..Effect::default() }
                }
                None => anything(),
            }
        }
        _ => anything(),
    }
}

pub(super) fn curl(args: &Args<'_>) -> Effect {
    let mut makes = Makes::Nothing;
    let mut remote_name = false;
    let mut urls = Vec::new();
    let mut at = 0;
    while at < args.len() {
        let Some(arg) = args.get(at) else {
            at += 1;
            urls.push(None);
            continue;
        };
        let cluster = arg.starts_with('-') && !arg.starts_with("--");
        if arg == "--output" || cluster && arg.ends_with('o') {
            at += 1;
            match args.get(at) {
                Some(path) if path.starts_with("/dev/") || path == "-" => {}
                Some(path) => add(&mut makes, path.to_owned()),
                None => return anything(),
            }
        } else if arg.starts_with("--output") || arg == "--remote-header-name" || arg == "--remote-name-all" {
            return anything();
        } else if arg == "--remote-name" || cluster && arg.contains('O') {
            remote_name = true;
        } else if cluster && (arg.contains('J') || arg.starts_with("-o")) {
            return anything();
        } else if !arg.starts_with('-') {
            urls.push(Some(arg));
        }
        at += 1;
    }
    if remote_name {
        for url in urls {
            match url.filter(|url| url.contains("://")) {
                Some(url) => add(&mut makes, url_name(url)),
                None if url.is_none() => return anything(),
                None => {}
            }
        }
    }
    Effect { makes, ..Effect::default() }
}

pub(super) fn wget(args: &Args<'_>) -> Effect {
    if args.has_unknown() {
        return anything();
    }
    let mut makes = Makes::Nothing;
    let mut named = false;
    let mut words = args.iter().map(|(_, arg)| arg).peekable();
    while let Some(arg) = words.next() {
        let cluster = arg.starts_with('-') && !arg.starts_with("--");
        if arg == "--output-document" || cluster && arg.ends_with('O') {
            named = true;
            if let Some(path) = words.next().filter(|path| *path != "-") {
                add(&mut makes, path.to_owned());
            }
        } else if let Some(path) = arg.strip_prefix("--output-document=").or_else(|| arg.strip_prefix("-O")) {
            named = true;
            add(&mut makes, path.to_owned());
        } else if cluster && arg.contains(['P', 'r', 'm', 'i', 'x'])
            || ["--directory", "--recursive", "--mirror", "--input", "--content-d", "--force"]
                .iter()
                .any(|flag| arg.starts_with(flag))
        {
            return anything();
        } else if arg.contains("://") && !named {
            add(&mut makes, url_name(arg));
        }
    }
    Effect { makes, ..Effect::default() }
}

fn url_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "index.html".to_owned(),
    }
}

/// Programs that unpack into the folder that a flag names, or into the current one.
pub(super) fn unpacks(args: &Args<'_>, flags: &[&str]) -> Effect {
    let folder = args.iter().find_map(|(at, arg)| {
        if flags.contains(&arg) {
            return Some(args.words.get(at + 1).and_then(|word| word.value.clone()));
        }
        let attached = flags.iter().find_map(|flag| arg.strip_prefix(&format!("{flag}=")));
        attached.map(|folder| Some(folder.to_owned()))
    });
    match folder {
        Some(Some(folder)) => Effect { makes: Makes::Paths(vec![folder]), ..Effect::default() },
        Some(None) => anything(),
        None if args.has_unknown() => anything(),
        None => here(),
    }
}

pub(super) fn copies(args: &Args<'_>) -> Effect {
    let last = args.words.last().and_then(|word| word.value.as_deref());
    if args.iter().any(|(_, arg)| arg.starts_with("-t") || arg.starts_with("--target-directory")) {
        return anything();
    }
    match last {
        Some(path) if !path.starts_with('-') && !path.contains(':') => {
            Effect { makes: Makes::Paths(vec![path.to_owned()]), ..Effect::default() }
        }
        _ => anything(),
    }
}
