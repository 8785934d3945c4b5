//! Bounds of the arena, hostile replies, and frames over a real socket pair.

use bytes::Bytes;
use proptest::prelude::*;
use slipway_types::model::DataType;

use super::arena::OutOfBounds;
use super::frame::{self, BadReply, Descriptor};
use super::*;
use crate::tensor::{Tensor, TensorData};

const LAYOUT: Layout = Layout { input: 1 << 16, output: 1 << 16 };

/// A result frame with one tensor, every field as given.
fn result(code: u8, dims: &[u64], offset: u64, bytes: u64, name: &[u8]) -> Vec<u8> {
    let mut out = vec![4, 0, 1, 0, 0, 0, 0, 0];
    out.extend_from_slice(&7_u64.to_le_bytes());
    out.extend_from_slice(&9_u64.to_le_bytes());
    out.extend_from_slice(&[code, dims.len() as u8]);
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    for dim in dims {
        out.extend_from_slice(&dim.to_le_bytes());
    }
    out.extend_from_slice(name);
    out
}

#[test]
fn an_honest_result() {
    let reply = frame::reply(&result(10, &[2, 3], 64, 24, b"y"), LAYOUT).unwrap();
    let output =
        Descriptor { name: "y".into(), datatype: DataType::Fp32, shape: vec![2, 3], offset: 64, bytes: 24 };
    assert_eq!(reply, Reply::Result { id: 7, nanos: 9, outputs: vec![output], json: false });
}

#[test]
fn hostile_results() {
    let region = LAYOUT.output as u64;
    let bounds = |offset, len| BadReply::Bounds(OutOfBounds { offset, len, region: LAYOUT.output });
    for (frame, error) in [
        (vec![], BadReply::Short),
        (vec![4; 23], BadReply::Short),
        (vec![0; 24], BadReply::Kind(0)),
        (result(14, &[1], 0, 4, b""), BadReply::Type(14)),
        (result(10, &[1], 0, 8, b""), BadReply::Size { bytes: 8, needed: 4 }),
        (result(10, &[2], region - 4, 8, b""), bounds(region - 4, 8)),
        (result(10, &[1], u64::MAX - 1, 4, b""), bounds(u64::MAX - 1, 4)),
        (result(1, &[region + 1], 0, region + 1, b""), BadReply::Shape),
        (result(10, &[u64::MAX, 2], 0, 8, b""), BadReply::Shape),
        (result(10, &[1 << 62], 0, 0, b""), BadReply::Shape),
        (result(11, &[1 << 61], 0, 0, b""), BadReply::Shape),
        (result(10, &[0, u64::MAX], 0, 0, b""), BadReply::Shape),
        (result(10, &[1; 33], 0, 4, b""), BadReply::Rank(33)),
        (result(13, &[2], 0, 16, b""), BadReply::Size { bytes: 16, needed: 24 }),
        (result(13, &[u64::MAX], 0, 16, b""), BadReply::Shape),
        (result(10, &[1], 0, 4, b"\xff"), BadReply::Name),
        (result(10, &[1], 0, 4, &[b'x'; 1025]), BadReply::Name),
    ] {
        assert_eq!(frame::reply(&frame, LAYOUT), Err(error), "{frame:?}");
    }
    let mut many = result(10, &[1], 0, 4, b"");
    many[2..4].copy_from_slice(&300_u16.to_le_bytes());
    assert_eq!(frame::reply(&many, LAYOUT), Err(BadReply::Count(300)));
    many[2..4].copy_from_slice(&2_u16.to_le_bytes());
    assert_eq!(frame::reply(&many, LAYOUT), Err(BadReply::Short));
    let whole = result(1, &[region], 0, region, b"");
    let mut twice = whole.clone();
    twice[2] = 2;
    twice.extend_from_slice(&whole[24..]);
    assert_eq!(frame::reply(&twice, LAYOUT), Err(BadReply::Total));
    let mut ready = vec![2, 0, 0, 0, 0, 0, 0, 0xff];
    ready.extend_from_slice(&[0; 16]);
    assert_eq!(frame::reply(&ready, LAYOUT), Err(BadReply::Signature(0xff00_0000)));
}

#[test]
fn the_arena_ends_where_it_ends() {
    let mut arena = Arena::new(LAYOUT).unwrap();
    arena.write(LAYOUT.input - 2, b"ab").unwrap();
    assert!(arena.write(LAYOUT.input - 1, b"ab").is_err());
    assert!(arena.write(usize::MAX, b"ab").is_err());
    assert_eq!(arena.read(LAYOUT.output as u64 - 2, 2).unwrap(), [0, 0]);
    assert!(arena.read(LAYOUT.output as u64 - 1, 2).is_err());
    assert!(arena.read(u64::MAX, 2).is_err());
    assert!(rustix::fs::ftruncate(arena.fd(), 10).is_err(), "the size is sealed");
    assert!(rustix::fs::ftruncate(arena.fd(), 1 << 30).is_err(), "the size is sealed");
}

#[test]
fn pages_of_a_large_batch_are_given_back() {
    let layout = Layout::for_bodies(16 << 20, 32);
    let mut arena = Arena::new(layout).unwrap();
    let blocks = |arena: &Arena| rustix::fs::fstat(arena.fd()).unwrap().st_blocks * 512;
    let used = 32 << 20;
    arena.write(0, &vec![1; used]).unwrap();
    assert!(blocks(&arena) >= used as i64);
    arena.trim(used, 0);
    assert!(blocks(&arena) <= 5 << 20);
    arena.trim(layout.input, layout.output);
}

/// Offsets of strings that a worker wrote, read back through a result frame.
fn read_strings(offsets: &[u64], bytes: &[u8]) -> Result<TensorData, BadReply> {
    let encoded: Vec<u8> =
        offsets.iter().flat_map(|o| o.to_le_bytes()).chain(bytes.iter().copied()).collect();
    let layout = Layout { input: 1 << 16, output: 1 << 16 };
    let arena = Arena::new(layout).unwrap();
    // The worker's side of the memory.
    rustix::io::pwrite(arena.fd(), &encoded, layout.input as u64).unwrap();
    let frame = result(13, &[offsets.len() as u64 - 1], 0, encoded.len() as u64, b"s");
    let Reply::Result { outputs, .. } = frame::reply(&frame, layout)? else { unreachable!() };
    Ok(frame::collect(&arena, outputs)?.remove(0).tensor.data)
}

#[test]
fn strings_of_a_worker() {
    let good = read_strings(&[0, 1, 3], b"abc").unwrap();
    assert_eq!(good, TensorData::Strings { offsets: vec![0, 1, 3], bytes: Bytes::from_static(b"abc") });
    for offsets in [&[0, 2, 1][..], &[1, 1, 3], &[0, 1, 2], &[0, 1, 4], &[0, u64::MAX, 3]] {
        assert_eq!(read_strings(offsets, b"abc"), Err(BadReply::Offsets), "{offsets:?}");
    }
}

#[test]
fn requests_below_each_other() {
    let mut arena = Arena::new(LAYOUT).unwrap();
    let numbers = |rows: usize, fill: u8| Tensor {
        datatype: DataType::Uint8,
        shape: vec![rows, 3],
        data: TensorData::Fixed(vec![fill; rows * 3].into()),
    };
    let strings = |offsets: Vec<u64>, bytes: &'static [u8]| Tensor {
        datatype: DataType::Bytes,
        shape: vec![offsets.len() - 1],
        data: TensorData::Strings { offsets, bytes: Bytes::from_static(bytes) },
    };
    let batch = [
        Inputs::Tensors(vec![numbers(1, 1), strings(vec![0, 2], b"ab")]),
        Inputs::Tensors(vec![numbers(2, 2), strings(vec![0, 0, 1], b"c")]),
    ];
    let mut frame = Vec::new();
    let used = gather(&mut arena, &mut frame, batch.iter(), 3, 5).unwrap();
    assert_eq!(used, 128);
    let mut memory = [0; 128];
    rustix::io::pread(arena.fd(), &mut memory, 0).unwrap();
    assert_eq!(&memory[..10], &[1, 1, 1, 2, 2, 2, 2, 2, 2, 0]);
    let offsets: Vec<u64> = memory[64..96].as_chunks().0.iter().map(|c| u64::from_le_bytes(*c)).collect();
    assert_eq!((offsets, &memory[96..99]), (vec![0, 2, 2, 3], &b"abc"[..]));
    let mut expected = Vec::new();
    frame::predict(&mut expected, 0, 2, 3, 5);
    frame::tensor(&mut expected, DataType::Uint8, [3, 3].into_iter(), "", 0, 9);
    frame::tensor(&mut expected, DataType::Bytes, [3].into_iter(), "", 64, 35);
    assert_eq!(frame, expected);

    let large = [Inputs::Tensors(vec![numbers(LAYOUT.input, 0)])];
    assert!(matches!(gather(&mut arena, &mut frame, large.iter(), 1, 6), Err(GatherError::TooLarge(_))));
}

#[tokio::test]
async fn frames_and_the_end_of_a_worker() {
    let (mut channel, theirs) = Channel::pair().unwrap();
    let arena = Arena::new(LAYOUT).unwrap();
    channel.send_with_fd(&frame::hello(b"{}"), arena.fd()).await.unwrap();
    let mut buffer = [0; 64];
    let (_, len) = rustix::net::recv(&theirs, &mut buffer, rustix::net::RecvFlags::empty()).unwrap();
    assert_eq!(&buffer[..len], b"\x01\0\0\0\0\0\0\0{}");
    rustix::net::send(&theirs, b"answer", rustix::net::SendFlags::empty()).unwrap();
    assert_eq!(channel.receive().await.unwrap(), Some(&b"answer"[..]));
    rustix::net::send(&theirs, &[0; frame::MAX_FRAME + 1], rustix::net::SendFlags::empty()).unwrap();
    assert!(channel.receive().await.is_err());
    drop(theirs);
    assert_eq!(channel.receive().await.unwrap(), None);
    assert!(channel.send(b"x").await.is_err());
}

proptest! {
    #[test]
    fn any_frame_is_refused_or_within_bounds(mut bytes in proptest::collection::vec(any::<u8>(), 0..160), kind in 0..8_u8) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(Reply::Result { outputs, .. }) = frame::reply(&bytes, LAYOUT) {
            for output in outputs {
                prop_assert!(output.offset + output.bytes <= LAYOUT.output as u64);
            }
        }
    }
}
