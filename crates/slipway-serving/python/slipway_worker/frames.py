"""Control frames. Their layout is described once, in `src/transport/frame.rs` of the crate slipway-serving."""

import array
import socket
import struct

HELLO, READY, PREDICT, RESULT, ERROR, FAILED = 1, 2, 3, 4, 5, 6
MODE_TENSORS, MODE_NAMED, MODE_JSON_ROWS, MODE_JSON_WHOLE = 0, 1, 2, 3
MAX_FRAME = 64 * 1024
# Leaves room for the header; a longer text is cut in the middle.
MAX_TEXT = 16 * 1024

_PREDICT = struct.Struct("<BBHIQ")
_REPLY = struct.Struct("<BBHIQQ")
_TENSOR = struct.Struct("<BBHIQQ")


class Descriptor:
    """Where one tensor is in its region."""

    __slots__ = ("code", "shape", "offset", "nbytes", "name")

    def __init__(self, code, shape, offset, nbytes, name):
        self.code = code
        self.shape = shape
        self.offset = offset
        self.nbytes = nbytes
        self.name = name


def receive_hello(sock):
    """The JSON text of the first frame and the descriptor of the shared memory."""
    fds = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(MAX_FRAME, socket.CMSG_SPACE(fds.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if len(data) < 8 or data[0] != HELLO or len(fds) != 1:
        raise RuntimeError("the runner did not say hello")
    return bytes(data[8:]), fds[0]


def read_predict(frame):
    """`(mode, tensors, rows, id)` of a predict frame; its descriptors follow at `DESCRIPTORS`."""
    kind, mode, count, rows, batch = _PREDICT.unpack_from(frame)
    if kind != PREDICT:
        raise RuntimeError("a frame of the unknown kind %d" % kind)
    return mode, count, rows, batch


DESCRIPTORS = _PREDICT.size


def read_descriptors(data, count):
    """Descriptors from the bytes behind a frame's header."""
    descriptors = []
    at = 0
    for _ in range(count):
        code, rank, name_len, _, offset, nbytes = _TENSOR.unpack_from(data, at)
        at += _TENSOR.size
        shape = struct.unpack_from("<%dQ" % rank, data, at)
        at += 8 * rank
        name = bytes(data[at : at + name_len]).decode("utf-8")
        at += name_len
        descriptors.append(Descriptor(code, shape, offset, nbytes, name))
    return descriptors


def pack_descriptor(code, shape, offset, nbytes, name):
    """One descriptor as bytes."""
    encoded = name.encode("utf-8")
    head = _TENSOR.pack(code, len(shape), len(encoded), 0, offset, nbytes)
    return head + struct.pack("<%dQ" % len(shape), *shape) + encoded


def result(batch, nanos, count, descriptors, json_mode=False):
    """The frame that answers a batch."""
    return _REPLY.pack(RESULT, 1 if json_mode else 0, count, 0, batch, nanos) + descriptors


def ready(length):
    """The frame that says that the signature's JSON is in the output region."""
    return _REPLY.pack(READY, 0, 0, length, 0, 0)


def error(batch, status, text):
    """The frame that refuses a batch."""
    encoded = _cut(text)
    return _REPLY.pack(ERROR, 0, status, len(encoded), batch, 0) + encoded


def failed(text):
    """The frame that says why the model cannot be loaded."""
    encoded = _cut(text)
    return _REPLY.pack(FAILED, 0, 0, len(encoded), 0, 0) + encoded


def _cut(text):
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MAX_TEXT:
        return encoded
    half = MAX_TEXT // 2 - 8
    cut = encoded[:half].decode("utf-8", "ignore") + "\n…\n" + encoded[-half:].decode("utf-8", "ignore")
    return cut.encode("utf-8")
