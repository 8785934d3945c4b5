//! The program that runs, with all that it needs to run alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::elf::Elf;

/// The files of the program that this process runs: itself, who loads it, and the libraries that it is linked with. A
/// statically linked one is alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Where each file is on this host, by its path in the image, without the slash before it.
    pub(super) files: BTreeMap<String, PathBuf>,
    /// Folders of the libraries in the image.
    pub(super) libraries: BTreeSet<String>,
    /// Where it is in the image.
    pub(super) at: String,
}

/// Why the files of the running program are not known.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A file cannot be read, or is not what it should be.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A library is not among those that are loaded from where they can be read.
    #[error("`{user}` needs the library `{name}`, which is not where it was loaded from")]
    Missing {
        /// The library.
        name: String,
        /// Who needs it.
        user: PathBuf,
    },
}

impl Program {
    /// The running program, to be at `at`, such as `slipway`, in an image.
    ///
    /// # Errors
    /// A library was replaced since it was loaded: then the process must be started again first.
    pub fn running(at: &str) -> Result<Self, ProgramError> {
        let maps = Path::new("/proc/self/maps");
        let text = std::fs::read_to_string(maps)
            .map_err(|source| ProgramError::Read { path: maps.to_owned(), source })?;
        // Not its path: it may have been replaced there, and what runs is what is to be sent.
        Self::of("/proc/self/exe".into(), at, &text)
    }

    /// Where each file is in the image, and on this host.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.files.iter().map(|(at, path)| (at.as_str(), path.as_path()))
    }

    fn of(exe: PathBuf, at: &str, maps: &str) -> Result<Self, ProgramError> {
        let own = read(&exe)?;
        let mut this = Self { at: at.to_owned(), ..Self::default() };
        this.files.insert(at.to_owned(), exe.clone());
        let Some(interpreter) = own.interpreter else { return Ok(this) };
        let loader = read(Path::new(&interpreter))?;
        let loaded = Loaded::read(maps)?;
        let mut done: BTreeSet<String> = loader.name.into_iter().collect();
        let mut wanted: Vec<(String, PathBuf)> =
            own.needed.into_iter().map(|name| (name, exe.clone())).collect();
        while let Some((name, user)) = wanted.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            let Some((path, needed)) = loaded.find(&name) else {
                return Err(ProgramError::Missing { name, user });
            };
            // The loader looks for the name, which on the host may be a link to the file.
            let folder = path.parent().unwrap_or(Path::new("/"));
            this.libraries.insert(folder.display().to_string());
            this.files.insert(relative(&folder.join(&name)), path.to_owned());
            wanted.extend(needed.iter().map(|name| (name.clone(), path.to_owned())));
        }
        this.files.insert(relative(Path::new(&interpreter)), interpreter.into());
        Ok(this)
    }
}

/// Libraries that are loaded into this process, by the names that others need them by.
struct Loaded(BTreeMap<String, (PathBuf, Vec<String>)>);

impl Loaded {
    fn read(maps: &str) -> Result<Self, ProgramError> {
        let paths: BTreeSet<&Path> = maps
            .lines()
            // Address, permissions, offset, device, inode, and the rest of the line is the path.
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
            .filter(|path| !path.ends_with(" (deleted)"))
            .map(Path::new)
            .collect();
        let mut all = BTreeMap::new();
        for path in paths {
            // Data is mapped as well, and so is what is no library.
            let Ok(elf) = read(path) else { continue };
            let file = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            for name in elf.name.into_iter().chain(file) {
                all.entry(name).or_insert_with(|| (path.to_owned(), elf.needed.clone()));
            }
        }
        Ok(Self(all))
    }

    fn find(&self, name: &str) -> Option<(&Path, &[String])> {
        self.0.get(name).map(|(path, needed)| (path.as_path(), needed.as_slice()))
    }
}

fn read(path: &Path) -> Result<Elf, ProgramError> {
    let failed = |source| ProgramError::Read { path: path.to_owned(), source };
    Elf::read(&File::open(path).map_err(failed)?).map_err(failed)
}

fn relative(path: &Path) -> String {
    path.display().to_string().trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_with_its_loader_and_libraries() {
        let program = Program::running("slipway").unwrap();
        assert_eq!(program.files["slipway"], Path::new("/proc/self/exe"));
        let elf = read(Path::new("/proc/self/exe")).unwrap();
        let loader = elf.interpreter.unwrap();
        assert!(program.files.contains_key(&relative(Path::new(&loader))), "{program:?}");
        for name in elf.needed.iter().filter(|name| !loader.ends_with(name.as_str())) {
            let at = program.files.keys().find(|path| path.ends_with(&format!("/{name}")));
            let folder = format!("/{}", at.unwrap().trim_end_matches(&format!("/{name}")));
            assert!(program.libraries.contains(&folder), "{name}: {program:?}");
        }
        assert_eq!(Program::running("slipway").unwrap(), program);
    }

    #[test]
    fn a_library_that_was_replaced_is_not_sent_for_another() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let replaced: String = maps.lines().map(|line| format!("{line} (deleted)\n")).collect();
        let failed = Program::of("/proc/self/exe".into(), "slipway", &replaced);
        assert!(matches!(failed, Err(ProgramError::Missing { .. })), "{failed:?}");
        let failed = Program::of("/etc/passwd".into(), "slipway", &maps);
        assert!(matches!(failed, Err(ProgramError::Read { .. })), "{failed:?}");
    }
}
