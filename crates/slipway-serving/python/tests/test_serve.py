"""A worker process with a runner played by the test."""

import array
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from slipway_worker import frames

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(HERE, "slipway_worker", "__main__.py")
SIZE = 1 << 20

MODEL = """
import os, sys
import numpy as np

class Model:
    signature = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [-1]}]}

    def load(self, model_dir):
        assert sys.stdin.read() == "", "the control socket must be out of reach"
        assert os.path.dirname(sys.argv[0]) not in sys.path

    def predict(self, inputs):
        if 13 in inputs["x"]:
            raise ValueError("unlucky")
        return {"twice": inputs["x"] * 2}
"""


@unittest.skipUnless(hasattr(os, "memfd_create"), "no memfd_create here")
class Serving(unittest.TestCase):
    def start(self, source):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with open(os.path.join(folder.name, "model.py"), "w") as handle:
            handle.write(source)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(30)
        self.addCleanup(ours.close)
        process = subprocess.Popen(
            [sys.executable, "-u", SCRIPT], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        theirs.close()
        memory = os.memfd_create("arena")
        os.ftruncate(memory, 2 * SIZE)
        self.map = mmap.mmap(memory, 2 * SIZE)
        hello = {"format": "python", "model_dir": folder.name, "code_dirs": [], "entry": None, "input": SIZE, "output": SIZE}
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
        ours.sendmsg([bytes([frames.HELLO]) + bytes(7) + json.dumps(hello).encode()], rights)
        os.close(memory)
        return ours, process

    def predict(self, ours, values, batch):
        x = np.array(values, "<i4")
        self.map[: x.nbytes] = x.tobytes()
        head = struct.pack("<BBHIQ", frames.PREDICT, frames.MODE_TENSORS, 1, len(values), batch)
        ours.send(head + frames.pack_descriptor(7, x.shape, 0, x.nbytes, ""))
        return ours.recv(frames.MAX_FRAME)

    def test_from_hello_to_the_end(self):
        ours, process = self.start(MODEL)
        kind, _, _, length = struct.unpack_from("<BBHI", ours.recv(frames.MAX_FRAME))
        self.assertEqual(kind, frames.READY)
        signature = json.loads(self.map[SIZE : SIZE + length])
        self.assertEqual(signature["outputs"], [{"name": "twice", "datatype": "INT32", "shape": [-1]}])
        self.assertTrue(signature["batched"])
        for batch, values in [(1, [1, 2, 3]), (2, [4]), (3, [5, 6, 7])]:
            reply = self.predict(ours, values, batch)
            kind, mode, count, _, answered, nanos = struct.unpack_from("<BBHIQQ", reply)
            self.assertEqual((kind, mode, count, answered), (frames.RESULT, 0, 1, batch))
            self.assertGreater(nanos, 0)
            (d,) = frames.read_descriptors(reply[24:], 1)
            twice = np.frombuffer(self.map, "<i4", len(values), SIZE + d.offset)
            self.assertEqual((d.name, twice.tolist()), ("twice", [2 * v for v in values]))
            del twice
        reply = self.predict(ours, [13], 4)
        kind, _, status, length, answered, _ = struct.unpack_from("<BBHIQQ", reply)
        self.assertEqual((kind, status, answered), (frames.ERROR, 0, 4))
        self.assertEqual(reply[24 : 24 + length], b"ValueError: unlucky")
        ours.close()
        self.assertEqual(process.wait(30), 0)
        output = process.stdout.read().decode()
        self.assertIn("slipway: model loaded in", output)
        self.assertIn('raise ValueError("unlucky")', output)

    def test_a_failure_to_load(self):
        ours, process = self.start("raise KeyError('weights')\n")
        reply = ours.recv(frames.MAX_FRAME)
        kind, _, _, length = struct.unpack_from("<BBHI", reply)
        text = reply[24 : 24 + length].decode()
        self.assertEqual(kind, frames.FAILED)
        self.assertTrue(text.startswith("KeyError: 'weights'\n"), text)
        self.assertIn('model.py", line 1', text)
        self.assertEqual(process.wait(30), 1)


if __name__ == "__main__":
    unittest.main()
