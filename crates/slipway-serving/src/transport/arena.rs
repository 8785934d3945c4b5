//! The memory that the runner and one worker share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::MmapRaw;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// Sizes of the two regions, in bytes. The input region starts at 0, the output region right behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes that the runner writes; a multiple of the page size.
    pub input: usize,
    /// Bytes that the worker writes; a multiple of the page size.
    pub output: usize,
}

/// Largest page size of the architectures that are supported; regions are multiples of it.
const PAGE: usize = 64 * 1024;
/// What a batch may leave resident in each region.
const KEEP: usize = 4 << 20;
/// Least size of the output region: outputs can be much larger than inputs, and untouched pages are free.
const LEAST_OUTPUT: usize = 256 << 20;

impl Layout {
    /// Regions for request bodies of at most `max_body` bytes in batches of at most `max_rows` rows.
    ///
    /// An element of 8 bytes can take 2 bytes of JSON, so a body becomes at most four times its size.
    pub fn for_bodies(max_body: usize, max_rows: usize) -> Self {
        // Room to merge small requests; large ones are merged only as far as they fit.
        let slack = max_rows.saturating_mul(4096).min(64 << 20) + (1 << 20);
        let input = max_body.saturating_mul(4).saturating_add(slack).min(1 << 40).next_multiple_of(PAGE);
        Self { input, output: input.max(LEAST_OUTPUT) }
    }

    /// Bytes of both regions.
    pub fn total(self) -> usize {
        self.input + self.output
    }
}

/// Why no arena could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} shared memory of {bytes} bytes for a worker")]
pub struct ArenaError {
    step: &'static str,
    bytes: usize,
    #[source]
    source: io::Error,
}

/// An access outside of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} are outside of a region of {region} bytes")]
pub struct OutOfBounds {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Size of the region.
    pub region: usize,
}

/// A sealed memfd and its mapping in this process.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    map: MmapRaw,
    layout: Layout,
}

impl Arena {
    /// Makes the memory. Its size is sealed, so that no access within it can fault because the worker shrank it.
    pub fn new(layout: Layout) -> Result<Self, ArenaError> {
        let bytes = layout.total();
        let fail = |step| move |source: io::Error| ArenaError { step, bytes, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("slipway-arena", flags).map_err(|e| fail("create")(e.into()))?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(|e| fail("size")(e.into()))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(|e| fail("seal")(e.into()))?;
        let map = MmapRaw::map_raw(&fd).map_err(fail("map"))?;
        Ok(Self { fd, map, layout })
    }

    /// The descriptor to pass to the worker.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sizes of its regions.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Writes into the input region.
    #[allow(unsafe_code, reason = "shared memory has no safe view")]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        within(offset as u64, bytes.len() as u64, self.layout.input)?;
        // SAFETY: `offset .. offset + len` is within the input region, which is within the mapping, which lives as
        // long as `self` and cannot shrink (it is sealed). `bytes` is memory of this process alone, so the ranges do
        // not overlap. `&mut self` keeps other threads of this process from writing; the worker only reads here, and
        // what it reads during a write concerns only itself.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len());
        }
        Ok(())
    }

    /// Copies out of the output region, as it was at some moment: a worker that misbehaves may be writing.
    #[allow(unsafe_code, reason = "shared memory has no safe view")]
    pub fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, OutOfBounds> {
        within(offset, len, self.layout.output)?;
        let (offset, len) = (offset as usize, len as usize);
        let mut copy = Vec::<u8>::with_capacity(len);
        // SAFETY: `offset .. offset + len` is within the output region, which starts at `layout.input` and ends with
        // the mapping; the mapping lives as long as `self` and cannot shrink. `copy` has room for `len` bytes of its
        // own, all of which are written before the length says so. The worker may write at the same time; any bytes
        // are valid `u8`s, and no reference into the shared memory is ever made.
        unsafe {
            let from = self.map.as_ptr().add(self.layout.input + offset);
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        Ok(copy)
    }

    /// Gives back pages that a batch touched beyond what a usual one does.
    pub fn trim(&self, input_used: usize, output_used: usize) {
        let regions =
            [(0, input_used, self.layout.input), (self.layout.input, output_used, self.layout.output)];
        for (start, used, size) in regions {
            if used > KEEP {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (from, len) =
                    ((start + KEEP) as u64, (size.min(used.next_multiple_of(PAGE)) - KEEP) as u64);
                if let Err(error) = rustix::fs::fallocate(&self.fd, punch, from, len) {
                    tracing::debug!(%error, "cannot give back pages of shared memory");
                }
            }
        }
    }
}

fn within(offset: u64, len: u64, region: usize) -> Result<(), OutOfBounds> {
    match offset.checked_add(len) {
        Some(end) if end <= region as u64 => Ok(()),
        _ => Err(OutOfBounds { offset, len, region }),
    }
}
