"""Frames and arrays over shared memory."""

import mmap
import os
import struct
import unittest

import numpy as np

from slipway_worker import frames, tensors


class FakeArena:
    """Regions in memory of this process alone."""

    def __init__(self, size=1 << 16):
        self.store = mmap.mmap(-1, size)
        self.inputs = memoryview(self.store).toreadonly()
        self.outputs = memoryview(bytearray(size))
        self.output_size = size


def descriptor(name, array, offset):
    code = tensors.NAMES.index(tensors.name_of(array.dtype))
    return frames.pack_descriptor(code, array.shape, offset, array.nbytes, name)


class Reading(unittest.TestCase):
    def test_arrays_are_read_only_views_of_the_memory(self):
        arena = FakeArena()
        arena.store[64:88] = np.arange(6, dtype="<f4").tobytes()
        data = descriptor("x", np.zeros((2, 3), np.float32), 64)
        reader = tensors.Reader(arena)
        ((name, array),) = reader.read(data, 1)
        self.assertEqual((name, array.tolist()), ("x", [[0, 1, 2], [3, 4, 5]]))
        self.assertFalse(array.flags.writeable)
        array.shape = (6,)
        arena.store[64:68] = struct.pack("<f", 9)
        ((_, again),) = reader.read(data, 1)
        self.assertEqual((again.shape, again[0, 0]), ((2, 3), 9))

    def test_every_type(self):
        arena = FakeArena()
        for name in tensors.NAMES:
            if name in ("BYTES", "BF16"):
                continue
            array = np.array([[1, 0, 1]], dtype=tensors.numpy_type(name))
            arena.store[128 : 128 + array.nbytes] = array.tobytes()
            ((_, read),) = tensors.Reader(arena).read(descriptor("x", array, 128), 1)
            self.assertEqual((read.dtype, read.tolist()), (array.dtype, array.tolist()))
            self.assertEqual(tensors.name_of(read.dtype), name)

    def test_strings_and_empty_arrays(self):
        arena = FakeArena()
        encoded = tensors.encode_strings("t", np.array([b"a", b"", "é"], dtype=object))
        arena.store[: len(encoded)] = encoded
        data = frames.pack_descriptor(tensors.BYTES, (3, 1), 0, len(encoded), "t")
        ((_, array),) = tensors.Reader(arena).read(data, 1)
        self.assertEqual(array.tolist(), [[b"a"], [b""], ["é".encode()]])
        ((_, empty),) = tensors.Reader(arena).read(descriptor("x", np.zeros((0, 3), np.int8), 0), 1)
        self.assertEqual(empty.shape, (0, 3))

    def test_the_cache_of_layouts_is_bounded(self):
        reader = tensors.Reader(FakeArena())
        for rows in range(1000):
            reader.read(descriptor("x", np.zeros(rows, np.int8), 0), 1)
        self.assertLessEqual(len(reader._layouts), 256)


class Writing(unittest.TestCase):
    def test_arrays_and_strings_side_by_side(self):
        arena = FakeArena()
        writer = tensors.Writer(arena)
        outputs = [("y", np.asfortranarray(np.arange(6.0).reshape(2, 3))), ("s", np.array(["a", "bc"])), ("b", np.array([True]))]
        read = frames.read_descriptors(writer.write(outputs), 3)
        self.assertEqual([d.name for d in read], ["y", "s", "b"])
        self.assertTrue(all(d.offset % 64 == 0 for d in read))
        y = np.frombuffer(arena.outputs, np.float64, 6, read[0].offset)
        self.assertEqual(y.tolist(), [0, 1, 2, 3, 4, 5])
        s = bytes(arena.outputs[read[1].offset : read[1].offset + read[1].nbytes])
        self.assertEqual(s, struct.pack("<3Q", 0, 1, 3) + b"abc")
        self.assertEqual((read[2].nbytes, arena.outputs[read[2].offset]), (1, 1))

    def test_a_cached_layout_writes_new_values(self):
        arena = FakeArena()
        writer = tensors.Writer(arena)
        first = writer.write([("y", np.array([1.0, 2.0]))])
        second = writer.write([("y", np.array([3.0, 4.0]))])
        self.assertEqual(first, second)
        self.assertEqual(np.frombuffer(arena.outputs, np.float64, 2).tolist(), [3, 4])
        self.assertNotEqual(first, writer.write([("z", np.array([3.0, 4.0]))]))

    def test_big_endian_and_scalars(self):
        arena = FakeArena()
        (d,) = frames.read_descriptors(tensors.Writer(arena).write([("y", np.array(258, dtype=">i4"))]), 1)
        self.assertEqual((d.shape, bytes(arena.outputs[:4])), ((), b"\x02\x01\0\0"))

    def test_what_does_not_fit_or_has_no_type(self):
        writer = tensors.Writer(FakeArena(4096))
        with self.assertRaisesRegex(ValueError, "more than 4096 bytes"):
            writer.write([("y", np.zeros(1000))])
        with self.assertRaisesRegex(ValueError, "more than 4096 bytes"):
            writer.write([("s", np.array(["x" * 5000]))])
        with self.assertRaisesRegex(TypeError, "output 'c' has the type complex128"):
            writer.write([("c", np.zeros(1, complex))])
        with self.assertRaisesRegex(TypeError, "output 's' holds a int where a string is needed"):
            writer.write([("s", np.array([3], dtype=object))])


class Frames(unittest.TestCase):
    def test_a_long_text_is_cut_in_the_middle(self):
        frame = frames.failed("a" * 50000 + "é" * 50000 + "z")
        self.assertLess(len(frame), 20000)
        text = frame[24:].decode()
        self.assertTrue(text.startswith("aaa") and text.endswith("éz") and "…" in text)

    def test_lone_surrogates_do_not_break_an_error(self):
        self.assertTrue(frames.error(1, 0, "\udcff").endswith(b"?"))


if __name__ == "__main__":
    unittest.main()
