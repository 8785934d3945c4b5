//! The names in a ZIP archive, from its central directory (PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 to 4.3.16).

use std::fs::File;
use std::os::unix::fs::FileExt;

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const ENTRY: u32 = 0x0201_4b50;
const END_SIZE: u64 = 22;
const LOCATOR_SIZE: u64 = 20;
/// The end record may be followed by a comment of at most so many bytes.
const MAX_COMMENT: u64 = 65_535;
const MAX_DIRECTORY: u64 = 32 << 20;

/// The names of the entries, or `None` when it is no ZIP archive, is damaged, or has an unusually large directory.
pub(super) fn names(file: &File) -> Option<Vec<String>> {
    let size = file.metadata().ok()?.len();
    let tail_start = size.saturating_sub(END_SIZE + MAX_COMMENT);
    let tail = read(file, tail_start, size - tail_start)?;
    let end =
        (0..=tail.len().checked_sub(END_SIZE as usize)?).rev().find(|&at| u32_at(&tail, at) == Some(END))?;
    let mut length = u64::from(u32_at(&tail, end + 12)?);
    let mut offset = u64::from(u32_at(&tail, end + 16)?);
    if offset == u64::from(u32::MAX) || length == u64::from(u32::MAX) {
        let locator = (tail_start + end as u64).checked_sub(LOCATOR_SIZE)?;
        let locator = read(file, locator, LOCATOR_SIZE)?;
        if u32_at(&locator, 0)? != LOCATOR_64 {
            return None;
        }
        let record = read(file, u64_at(&locator, 8)?, 56)?;
        if u32_at(&record, 0)? != END_64 {
            return None;
        }
        length = u64_at(&record, 40)?;
        offset = u64_at(&record, 48)?;
    }
    if length > MAX_DIRECTORY || offset.checked_add(length)? > size {
        return None;
    }
    let directory = read(file, offset, length)?;
    let mut names = Vec::new();
    let mut at = 0;
    while at < directory.len() {
        if u32_at(&directory, at)? != ENTRY {
            return None;
        }
        let name = usize::from(u16_at(&directory, at + 28)?);
        let rest = usize::from(u16_at(&directory, at + 30)?) + usize::from(u16_at(&directory, at + 32)?);
        let bytes = directory.get(at + 46..at + 46 + name)?;
        names.push(String::from_utf8_lossy(bytes).into_owned());
        at += 46 + name + rest;
    }
    Some(names)
}

fn read(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An archive with these entries, all empty and stored.
#[cfg(test)]
pub(super) fn archive(names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for name in names {
        let offset = out.len() as u32;
        out.extend(0x0403_4b50_u32.to_le_bytes());
        out.extend([0; 22]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(name.as_bytes());
        directory.extend(ENTRY.to_le_bytes());
        directory.extend([0; 24]);
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let offset = out.len() as u32;
    out.extend(&directory);
    out.extend(END.to_le_bytes());
    out.extend([0; 4]);
    out.extend((names.len() as u16).to_le_bytes());
    out.extend((names.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend([0; 2]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn of(bytes: &[u8]) -> Option<Vec<String>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        names(&file)
    }

    #[test]
    fn lists_names() {
        let bytes = archive(&["m/data.pkl", "m/code/x.py"]);
        assert_eq!(of(&bytes).unwrap(), ["m/data.pkl", "m/code/x.py"]);
        let mut commented = bytes.clone();
        let end = commented.len() - 2;
        commented[end..].copy_from_slice(&5_u16.to_le_bytes());
        commented.extend(b"hello");
        assert_eq!(of(&commented).unwrap().len(), 2);
        for cut in [0, 1, 21, bytes.len() - 1] {
            assert_eq!(of(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn reads_what_python_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        let script = "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as z:\n z.writestr('a/data.pkl', b'x' * 9999)\n z.writestr('a/b', b'')\n";
        let made = std::process::Command::new("python3").args(["-c", script]).arg(&path).status().unwrap();
        assert!(made.success());
        assert_eq!(names(&File::open(path).unwrap()).unwrap(), ["a/data.pkl", "a/b"]);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..400,
            value in any::<u8>(),
        ) {
            of(&bytes);
            bytes.extend(archive(&["a", "b/c"]));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            of(&bytes);
        }
    }
}
