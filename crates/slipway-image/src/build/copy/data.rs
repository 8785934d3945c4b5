//! Copying a file's data: shared or copied by the kernel where it can, holes kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::{SeekFrom as Hole, Stat};
use rustix::io::Errno;

/// Which side failed.
pub(super) enum DataError {
    Read(io::Error),
    Write(io::Error),
}

/// Bytes per call; small enough that a cancelled build is not held up for long.
const CHUNK: usize = 16 << 20;

/// Copies everything; `to` is empty and at its start. `stat` is of `from`.
pub(super) fn copy(from: &File, to: &File, stat: &Stat) -> Result<(), DataError> {
    let size = stat.st_size as u64;
    let sparse = (stat.st_blocks as u64) * 512 < size;
    if !sparse {
        return copy_range(from, to, 0, size);
    }
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, Hole::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(_) => return copy_range(from, to, at, size),
        };
        let end = rustix::fs::seek(from, Hole::Hole(data)).unwrap_or(size).min(size);
        copy_range(from, to, data, end)?;
        at = end;
    }
    to.set_len(size).map_err(DataError::Write)
}

/// Copies `start..end` to the same place. A source that ends early is left to the caller's check of its stamp.
fn copy_range(from: &File, to: &File, start: u64, end: u64) -> Result<(), DataError> {
    let (mut input, mut output) = (start, start);
    while input < end {
        let length = usize::try_from(end - input).unwrap_or(CHUNK).min(CHUNK);
        match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), length) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Different file systems, or one that cannot: nothing was copied by this call.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) => {
                return send_range(from, to, input, end);
            }
            Err(error) => return Err(DataError::Write(error.into())),
        }
    }
    Ok(())
}

fn send_range(from: &File, mut to: &File, start: u64, end: u64) -> Result<(), DataError> {
    to.seek(SeekFrom::Start(start)).map_err(DataError::Write)?;
    let mut offset = start;
    while offset < end {
        let length = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
        match rustix::fs::sendfile(to, from, Some(&mut offset), length) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOSYS) => return read_range(from, to, offset, end),
            Err(error) => return Err(DataError::Write(error.into())),
        }
    }
    Ok(())
}

fn read_range(mut from: &File, mut to: &File, start: u64, end: u64) -> Result<(), DataError> {
    from.seek(SeekFrom::Start(start)).map_err(DataError::Read)?;
    let mut left = from.take(end - start);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match left.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).map_err(DataError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DataError::Read(error)),
        }
    }
}
