"""The worker's life: hello, load, warm up, ready, and then one batch after another."""

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback

from . import frames

PR_SET_PDEATHSIG = 1


def main(fd):
    """Serves the runner at the other end of the socket `fd` until it closes it. Gives the exit code."""
    sock = _take_socket(fd)
    _die_with_parent()
    text, memory = frames.receive_hello(sock)
    hello = json.loads(text)
    try:
        # NumPy may be missing in the image; that shall be said as well as any other failure.
        from .arena import Arena
        from .tensors import Writer

        arena = Arena(memory, hello["input"], hello["output"])
        model = _load(hello)
        signature = model.to_json()
        Writer(arena).write_raw(signature)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        traceback.print_exc()
        sock.sendall(frames.failed(_reason(error)))
        return 1
    gc.collect()
    gc.freeze()
    sock.sendall(frames.ready(len(signature)))
    _serve(sock, arena, model)
    return 0


def _take_socket(fd):
    """The socket at `fd`, moved away from there so that neither the user's code nor its children see it."""
    sock = socket.socket(fileno=os.dup(fd))
    os.set_inheritable(sock.fileno(), False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, fd)
    os.close(null)
    return sock


def _die_with_parent():
    """A runner that is killed leaves no worker behind, not even one that hangs in the user's code."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def log(message):
    """One line for the container's log."""
    sys.stderr.write("slipway: %s\n" % message)
    sys.stderr.flush()


def _load(hello):
    from . import loaders, warmup
    from .signature import Declared

    started = time.monotonic()
    model_dir = hello["model_dir"]
    for folder in reversed([model_dir] + hello.get("code_dirs", [])):
        if os.path.isdir(folder) and folder not in sys.path:
            sys.path.insert(0, folder)
    declared = Declared.beside(model_dir)
    model = loaders.load(hello["format"], model_dir, hello.get("entry"), declared)
    model.apply(declared)
    loaded = time.monotonic()
    warmup.run(model, model_dir, log)
    log("model loaded in %.2f s, warm after %.2f s" % (loaded - started, time.monotonic() - started))
    return model


def _reason(error):
    """The exception and the last lines of its traceback."""
    lines = traceback.format_exc().rstrip().splitlines()
    head = "".join(traceback.format_exception_only(type(error), error)).strip()
    return "%s\n%s" % (head, "\n".join(lines[-12:]))


def _serve(sock, arena, model):
    from . import results
    from .tensors import Reader, Writer

    reader, writer = Reader(arena), Writer(arena)
    names = [spec.name for spec in model.inputs]
    outputs_spec = model.outputs
    predict = model.predict
    clock = time.perf_counter_ns
    receive, send = sock.recv, sock.sendall
    while True:
        frame = receive(frames.MAX_FRAME)
        if not frame:
            return
        mode, count, _, batch = frames.read_predict(frame)
        data = frame[frames.DESCRIPTORS :]
        try:
            if mode == frames.MODE_TENSORS:
                inputs = {name: array for name, (_, array) in zip(names, reader.read(data, count))}
            elif mode == frames.MODE_NAMED:
                inputs = dict(reader.read(data, count))
            else:
                inputs = json.loads(reader.raw(data))
            started = clock()
            result = predict(inputs)
            nanos = clock() - started
            if mode >= frames.MODE_JSON_ROWS:
                encoded = results.to_json(result, inputs if mode == frames.MODE_JSON_ROWS else None)
                reply = frames.result(batch, nanos, 1, writer.write_raw(encoded), json_mode=True)
            else:
                outputs = results.named(result, outputs_spec)
                reply = frames.result(batch, nanos, len(outputs), writer.write(outputs))
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            status = getattr(error, "status", 0)
            if type(status) is not int or not 400 <= status < 500:
                status = 0
                traceback.print_exc()
            text = str(error) if status else "%s: %s" % (type(error).__name__, error)
            reply = frames.error(batch, status, text)
        send(reply)
