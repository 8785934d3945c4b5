//! The project that is built: two files of an app beside 20,000 files of data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::Error;
use super::timed;

/// Folders of data.
const FOLDERS: usize = 200;
/// Files of data.
pub const FILES: usize = 20_000;

/// A project on disk.
#[derive(Debug)]
pub struct Project {
    folder: PathBuf,
    changes: usize,
}

impl Project {
    /// Writes one whose data is about `bytes` long. Half of each file is random, half compresses well. The same on
    /// every machine.
    pub fn create(folder: &Path, base: &str, bytes: usize) -> Result<Self, Error> {
        let project = Self { folder: folder.to_owned(), changes: 0 };
        project.write("Dockerfile", format!("FROM {base}\nCOPY big /big\nCOPY app /app\n").as_bytes())?;
        project.write("app/main.py", b"print('version 0')\n")?;
        project.write("app/util.py", b"VALUE = 1\n")?;
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mean = bytes / FILES;
        for number in 0..FILES {
            // Half to one and a half of the mean.
            let size = mean / 2 + (random.next() as usize) % mean.max(1);
            project.write(&data_path(number), &content(&mut random, number, size))?;
        }
        Ok(project)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes a file of the app; gives its path in the image and how it starts now.
    pub fn change_app(&mut self) -> Result<(String, String), Error> {
        self.changes += 1;
        let text = format!("print('version {}')", self.changes);
        self.write("app/main.py", format!("{text}\n").as_bytes())?;
        Ok(("/app/main.py".into(), text))
    }

    /// Changes 8 bytes of a file of the data, in place; gives its path in the image and how it starts now.
    pub fn change_big(&mut self) -> Result<(String, String), Error> {
        self.changes += 1;
        let path = data_path(FILES / 2);
        let text = format!("{:08}", self.changes);
        let file = self.folder.join(&path);
        std::fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(Error::io("change", &file))?;
        Ok((format!("/{path}"), text))
    }

    /// How long it takes to look at every file's size and times: less no builder can do that keeps no watch.
    pub fn walk(&self) -> Result<Duration, Error> {
        let (time, files) = timed(|| {
            let mut files = 0;
            for entry in walkdir::WalkDir::new(&self.folder) {
                let failed = |e: walkdir::Error| Error::io("walk", &self.folder)(e.into());
                let entry = entry.map_err(failed)?;
                files += usize::from(entry.metadata().map_err(failed)?.is_file());
            }
            Ok(files)
        })?;
        if files < FILES {
            return Err(Error::unexpected("files in the project", files.to_string()));
        }
        Ok(time)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let file = self.folder.join(path);
        file.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&file, bytes))
            .map_err(Error::io("write", &file))
    }
}

fn data_path(number: usize) -> String {
    format!("big/d{:03}/f{:05}.bin", number % FOLDERS, number)
}

fn content(random: &mut Random, number: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 64);
    bytes.extend_from_slice(format!("{number:08}").as_bytes());
    while bytes.len() < size / 2 {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    while bytes.len() < size {
        bytes.extend_from_slice(format!("{number},0.0,1.0,0.5,label\n").as_bytes());
    }
    bytes.truncate(size.max(8));
    bytes
}

/// xorshift64*: fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_what_it_says() {
        let scratch = tempfile::tempdir().unwrap();
        let mut project = Project::create(scratch.path(), "base", FILES * 40).unwrap();
        assert_eq!(std::fs::read_dir(scratch.path().join("big")).unwrap().count(), FOLDERS);
        for change in [Project::change_app, Project::change_big] {
            let (path, text) = change(&mut project).unwrap();
            let held = std::fs::read(scratch.path().join(&path[1..])).unwrap();
            assert!(held.starts_with(text.as_bytes()), "{path}");
        }
        assert!(project.walk().unwrap() > Duration::ZERO);
    }

    #[test]
    fn content_is_half_random_and_repeatable() {
        let make = || content(&mut Random(5), 17, 10_000);
        assert_eq!(make(), make());
        assert_eq!(make().len(), 10_000);
        assert!(make().starts_with(b"00000017"));
        assert!(
            make().ends_with(b"17,0.0,1.0,0.5,label\n") || make()[5100..].windows(5).any(|w| w == b"label")
        );
    }
}
