//! Compression of layers: told by the first bytes, never by a media type.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::archive::ArchiveError;

const BUFFER: usize = 256 * 1024;

/// Uncompresses a stream that is gzip, zstd or neither.
pub(super) fn decoder<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let mut start = Vec::new();
    let mut reader = reader;
    // A short read must not make gzip look like something else.
    reader.by_ref().take(6).read_to_end(&mut start).map_err(ArchiveError::Read)?;
    let format = Format::of(&start)?;
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(reader));
    Ok(match format {
        Format::Plain => Box::new(whole),
        Format::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Format::Zstd => Box::new(zstd(whole).map_err(ArchiveError::Read)?),
    })
}

fn zstd(reader: impl BufRead) -> io::Result<impl Read> {
    zstd::stream::read::Decoder::with_buffer(reader)
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
}

impl Format {
    /// Magic numbers: RFC 1952 section 2.3.1; RFC 8878 sections 3.1.1 and 3.1.2 (skippable frames); the xz and bzip2 formats.
    fn of(start: &[u8]) -> Result<Self, ArchiveError> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(ArchiveError::UnsupportedCompression { format: "xz" }),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => {
                Err(ArchiveError::UnsupportedCompression { format: "bzip2" })
            }
            _ => Ok(Self::Plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_format_is_told_and_read() {
        let plain = b"some bytes, twice: some bytes".to_vec();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        let two_members = [gzip.clone(), gzip.clone()].concat();
        for (name, data, expected) in [
            ("plain", &plain, plain.clone()),
            ("gzip", &gzip, plain.clone()),
            ("zstd", &zstd, plain.clone()),
            ("two gzip members", &two_members, plain.repeat(2)),
            ("empty", &Vec::new(), Vec::new()),
        ] {
            let mut out = Vec::new();
            decoder(OneByte(data)).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, expected, "{name}");
        }
        let xz = b"\xfd7zXZ\0rest";
        assert!(matches!(decoder(&xz[..]), Err(ArchiveError::UnsupportedCompression { format: "xz" })));
    }

    /// The slowest reader there is.
    struct OneByte<'a>(&'a [u8]);

    impl Read for OneByte<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(1);
            self.0.read(&mut buf[..n])
        }
    }
}
