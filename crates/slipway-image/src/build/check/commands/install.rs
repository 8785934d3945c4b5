//! Programs that install packages: pip, npm and relatives, conda, apt.

use super::{Apt, Args, Effect, Makes, Read, add, anything};

pub(super) fn pip(args: &Args<'_>) -> Effect {
    let Some(at) = (0..args.len()).find(|&at| args.get(at).is_some_and(|arg| !arg.starts_with('-'))) else {
        return Effect::default();
    };
    let makes = match args.get(at) {
        Some("install" | "sync") => Makes::Nothing,
        Some("uninstall" | "list" | "freeze" | "show" | "check" | "config" | "cache" | "debug") => {
            return Effect::default();
        }
        Some("download" | "wheel") => Makes::Anything,
        _ => return anything(),
    };
    let mut effect = Effect { makes, ..Effect::default() };
    let options = args.from(at + 1);
    let mut position = 0;
    while position < options.len() {
        let Some(arg) = options.get(position) else {
            position += 1;
            continue;
        };
        let (value, word, attached) = match arg {
            "-r" | "--requirement" | "--requirements" | "-c" | "--constraint" => {
                position += 1;
                (options.get(position), options.first + position, false)
            }
            "-t" | "--target" | "--prefix" | "--root" | "--src" => {
                position += 1;
                match options.get(position) {
                    Some(folder) => add(&mut effect.makes, folder.to_owned()),
                    None => effect.makes = Makes::Anything,
                }
                (None, 0, false)
            }
            _ => {
                let value = ["--requirement=", "--requirements=", "--constraint=", "-r", "-c"]
                    .iter()
                    .find_map(|prefix| arg.strip_prefix(prefix));
                if let Some(folder) = arg.strip_prefix("--target=").or_else(|| arg.strip_prefix("--prefix="))
                {
                    add(&mut effect.makes, folder.to_owned());
                }
                (value, options.first + position, true)
            }
        };
        position += 1;
        if let Some(path) = value.filter(|path| !path.is_empty() && *path != "-" && !path.contains("://")) {
            effect.reads.push(Read { path: path.to_owned(), word: Some(word), is_replaceable: !attached });
        }
    }
    effect
}

pub(super) fn node(name: &str, args: &Args<'_>) -> Effect {
    let elsewhere = ["-g", "--global", "--prefix", "-C", "--cwd", "--dir", "--location"];
    if args.has_unknown() || args.iter().any(|(_, arg)| elsewhere.iter().any(|flag| arg.starts_with(flag))) {
        return Effect { makes: Makes::Anything, ..Effect::default() };
    }
    let words: Vec<&str> = args.iter().map(|(_, arg)| arg).filter(|arg| !arg.starts_with('-')).collect();
    let installs_all = match words.as_slice() {
        [] => name == "yarn",
        ["ci" | "clean-install"] => name != "yarn",
        ["install" | "i"] => true,
        _ => false,
    };
    match words.first() {
        _ if installs_all => {
            let read = Read { path: "package.json".to_owned(), word: None, is_replaceable: false };
            Effect { reads: vec![read], makes: Makes::Anything, ..Effect::default() }
        }
        Some(&("config" | "cache" | "set" | "--version")) => Effect::default(),
        _ => anything(),
    }
}

pub(super) fn conda(args: &Args<'_>) -> Effect {
    let words: Vec<&str> =
        args.iter().map(|(_, arg)| arg).filter(|arg| !arg.starts_with('-')).take(2).collect();
    let makes = || {
        let folder = args.iter().find_map(|(at, arg)| match arg {
            "-p" | "--prefix" => args.words.get(at + 1)?.value.clone(),
            _ => arg.strip_prefix("--prefix=").map(str::to_owned),
        });
        folder.map_or(Makes::Nothing, |folder| Makes::Paths(vec![folder]))
    };
    let flags: &[&str] = match words.as_slice() {
        ["env", "create" | "update"] => &["-f", "--file"],
        ["install" | "create" | "update", ..] => &["-f", "--file"],
        ["clean" | "config" | "init" | "activate" | "list" | "info", ..] => return Effect::default(),
        _ => return anything(),
    };
    let mut effect = Effect { makes: makes(), ..Effect::default() };
    for (at, arg) in args.iter() {
        let (path, word) = if flags.contains(&arg) {
            (args.words.get(at + 1).and_then(|word| word.value.as_deref()), at + 1)
        } else {
            (arg.strip_prefix("--file="), at)
        };
        if let Some(path) = path.filter(|path| !path.contains("://")) {
            effect.reads.push(Read {
                path: path.to_owned(),
                word: Some(word),
                is_replaceable: word == at + 1,
            });
        }
    }
    effect
}

pub(super) fn apt(name: &str, args: &Args<'_>) -> Effect {
    let mut assumes_yes = false;
    let mut verb = None;
    let mut local = false;
    for (_, arg) in args.iter() {
        match arg {
            "--yes" | "--assume-yes" | "--force-yes" | "--dry-run" | "--simulate" | "--download-only"
            | "--print-uris" => assumes_yes = true,
            _ if arg.to_ascii_lowercase().contains("assume-yes") || arg == "-qq" => assumes_yes = true,
            _ if arg.starts_with("--") => {}
            _ if arg.starts_with('-') => assumes_yes |= arg.contains(['y', 's', 'd']) || arg.contains("qq"),
            _ if verb.is_none() => verb = Some(arg),
            _ => local |= arg.contains('/') && arg.ends_with(".deb"),
        }
    }
    // An option may hide in a variable.
    assumes_yes |= args.has_unknown() || name == "aptitude";
    let apt = match verb {
        Some("update") => Some(Apt::Update),
        Some("install") if !local && !args.has_unknown() => Some(Apt::Install { assumes_yes }),
        Some("download" | "source") => return anything(),
        _ => None,
    };
    Effect { apt, ..Effect::default() }
}
