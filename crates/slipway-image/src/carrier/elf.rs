//! What a program or library of this machine says of itself: who loads it, what it is called, and what it needs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Largest table and longest text that are read.
const MAX_TABLE: u64 = 1 << 20;
const MAX_TEXT: u64 = 4096;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// What is read of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// Path of the program that loads it; absent in a library and where it is linked statically.
    pub interpreter: Option<String>,
    /// Name under which others need it.
    pub name: Option<String>,
    /// Names of libraries that it needs.
    pub needed: Vec<String>,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Elf {
    /// Reads a file. Only what runs on a 64-bit little-endian machine is understood, as all that we build for is.
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(bad("it is no 64-bit little-endian ELF file"));
        }
        let (at, length, count) = (number(&header, 32), half(&header, 54), half(&header, 56));
        if usize::from(length) < SEGMENT {
            return Err(bad("its program headers are too short"));
        }
        let table = bytes(file, at, u64::from(length) * u64::from(count), MAX_TABLE)?;
        let segments: Vec<Segment> = table
            .chunks_exact(usize::from(length))
            .map(|entry| Segment {
                kind: word(entry, 0),
                offset: number(entry, 8),
                address: number(entry, 16),
                size: number(entry, 32),
            })
            .collect();
        let of = |kind: u32| segments.iter().find(|segment| segment.kind == kind);
        let mut elf = Self::default();
        if let Some(segment) = of(PT_INTERP) {
            elf.interpreter = Some(text(&bytes(file, segment.offset, segment.size, MAX_TEXT)?)?);
        }
        let Some(dynamic) = of(PT_DYNAMIC) else { return Ok(elf) };
        let entries = bytes(file, dynamic.offset, dynamic.size, MAX_TABLE)?;
        let entries: Vec<(u64, u64)> = entries
            .chunks_exact(16)
            .map(|entry| (number(entry, 0), number(entry, 8)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let Some((_, texts)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(elf) };
        // The table of texts is told by the address that it is loaded at.
        let inside =
            |s: &&Segment| s.kind == PT_LOAD && (s.address..s.address.saturating_add(s.size)).contains(texts);
        let home = segments.iter().find(inside).ok_or_else(|| bad("its texts are in no segment"))?;
        let texts = home.offset.saturating_add(texts - home.address);
        let read = |offset: u64| {
            let mut buffer = vec![0; MAX_TEXT as usize];
            let length = file.read_at(&mut buffer, texts.saturating_add(offset))?;
            text(&buffer[..length])
        };
        for (tag, value) in entries {
            match tag {
                DT_NEEDED => elf.needed.push(read(value)?),
                DT_SONAME => elf.name = Some(read(value)?),
                _ => {}
            }
        }
        Ok(elf)
    }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

fn bytes(file: &File, at: u64, size: u64, most: u64) -> io::Result<Vec<u8>> {
    if size > most {
        return Err(bad("a part of it is too large"));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// A text that ends with a zero.
fn text(bytes: &[u8]) -> io::Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(|| bad("a text has no end"))?;
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| bad("a name is no text"))
}

// Each caller gives at least as many bytes as it reads from.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) | u16::from(bytes[at + 1]) << 8
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn reads_a_program_of_this_machine_and_survives_what_is_none() {
        let own = Elf::read(&File::open("/proc/self/exe").unwrap()).unwrap();
        // Tests are linked dynamically against the C library, under whatever name it has here.
        assert!(own.interpreter.as_deref().is_some_and(|path| path.starts_with('/')), "{own:?}");
        assert!(own.needed.iter().any(|name| name.starts_with("libc.")), "{own:?}");
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let read = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            Elf::read(&file)
        };
        assert!(read(b"#!/bin/sh\n").is_err());
        for length in [0, 10, 63, 64, 100, 500, 1000] {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        // Any value anywhere in the headers is an error or another reading, never a panic or a huge buffer.
        let head = &whole[..4096.min(whole.len())];
        for at in 0..HEADER + 12 * SEGMENT {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = head.to_vec();
                changed[at] = value;
                let _ = read(&changed);
            }
        }
    }
}
