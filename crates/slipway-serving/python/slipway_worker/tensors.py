"""NumPy arrays over the shared memory, and arrays into it."""

import struct

import numpy as np

from . import frames

# The position is the code on the wire.
NAMES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BF16", "BYTES",
)  # fmt: skip
BYTES = NAMES.index("BYTES")
BF16 = NAMES.index("BF16")

_NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_NAME_OF = {np.dtype(t): name for name, t in _NUMPY.items()}
_ALIGN = 64
# A cache of layouts is emptied when it has this many: shapes that vary freely must not fill the memory.
_MAX_LAYOUTS = 256


def bfloat16():
    """The bfloat16 type of `ml_dtypes`, which the frameworks that have the type bring along; None without it."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


def numpy_type(name):
    """The NumPy type of a datatype; arrays of BYTES hold `bytes` objects."""
    if name == "BYTES":
        return np.dtype(object)
    if name == "BF16":
        return bfloat16() or np.dtype(np.uint16)
    return np.dtype(_NUMPY[name])


def name_of(dtype):
    """The datatype of a NumPy type, or None."""
    dtype = np.dtype(dtype)
    if dtype.kind in "SUO" or dtype.kind == "T":
        return "BYTES"
    if dtype.name == "bfloat16":
        return "BF16"
    return _NAME_OF.get(dtype.newbyteorder("="))


class Reader:
    """Arrays over the input region. They are read-only and valid until the batch is answered."""

    def __init__(self, arena):
        self._region = arena.inputs
        self._layouts = {}

    def read(self, data, count):
        """`[(name, array)]` for the descriptors in `data`."""
        layout = self._layouts.get(data)
        if layout is None:
            layout = [(d, self._view(d)) for d in frames.read_descriptors(data, count)]
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[bytes(data)] = layout
        # A fresh view each time: the caller may reshape it in place.
        return [(d.name, self._strings(d) if view is None else view.view()) for d, view in layout]

    def _view(self, d):
        if d.code == BYTES:
            return None
        dtype = numpy_type(NAMES[d.code])
        count = d.nbytes // dtype.itemsize
        array = np.frombuffer(self._region, dtype=dtype, count=count, offset=d.offset) if count else np.empty(0, dtype)
        return array.reshape(d.shape)

    def _strings(self, d):
        count = 1
        for dim in d.shape:
            count *= dim
        table = (count + 1) * 8
        offsets = struct.unpack_from("<%dQ" % (count + 1), self._region, d.offset)
        data = bytes(self._region[d.offset + table : d.offset + d.nbytes])
        array = np.empty(count, dtype=object)
        for i in range(count):
            array[i] = data[offsets[i] : offsets[i + 1]]
        return array.reshape(d.shape)

    def raw(self, data):
        """The bytes of the one tensor that `data` describes."""
        (d,) = frames.read_descriptors(data, 1)
        return bytes(self._region[d.offset : d.offset + d.nbytes])


class Writer:
    """Arrays into the output region."""

    def __init__(self, arena):
        self._region = arena.outputs
        self._size = arena.output_size
        self._layouts = {}

    def write(self, outputs):
        """Writes `[(name, array)]`; gives the packed descriptors."""
        key = tuple([(name, array.dtype, array.shape) for name, array in outputs])
        layout = self._layouts.get(key)
        if layout is not None:
            views, packed = layout
            for view, (_, array) in zip(views, outputs):
                view[...] = array
            return packed
        views, packed, at = [], [], 0
        for name, array in outputs:
            datatype = name_of(array.dtype)
            if datatype is None:
                raise TypeError("output %r has the type %s, which no protocol can carry" % (name, array.dtype))
            if datatype == "BYTES":
                encoded = encode_strings(name, array)
                nbytes = len(encoded)
                self._check(at + nbytes)
                self._region[at : at + nbytes] = encoded
                views = None
            else:
                dtype = numpy_type(datatype)
                nbytes = array.size * dtype.itemsize
                self._check(at + nbytes)
                view = np.frombuffer(self._region, dtype=dtype, count=array.size, offset=at) if array.size else np.empty(0, dtype)
                view = view.reshape(array.shape)
                view[...] = array
                if views is not None:
                    views.append(view)
            packed.append(frames.pack_descriptor(NAMES.index(datatype), array.shape, at, nbytes, name))
            at += -(-nbytes // _ALIGN) * _ALIGN
        packed = b"".join(packed)
        if views is not None:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = (views, packed)
        return packed

    def write_raw(self, data):
        """Writes bytes at the start of the region; gives the packed descriptor."""
        self._check(len(data))
        self._region[: len(data)] = data
        return frames.pack_descriptor(NAMES.index("UINT8"), (len(data),), 0, len(data), "")

    def _check(self, end):
        if end > self._size:
            raise ValueError("the outputs need more than %d bytes, which is all that a reply may have" % self._size)


def encode_strings(name, array):
    """Offsets and bytes of an array of strings, in row-major order."""
    items = []
    for item in array.ravel().tolist():
        if isinstance(item, str):
            item = item.encode("utf-8")
        elif not isinstance(item, (bytes, bytearray)):
            raise TypeError("output %r holds a %s where a string is needed" % (name, type(item).__name__))
        items.append(item)
    offsets = [0]
    for item in items:
        offsets.append(offsets[-1] + len(item))
    return struct.pack("<%dQ" % len(offsets), *offsets) + b"".join(items)
