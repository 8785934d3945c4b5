"""The memory shared with the runner."""

import mmap
import os


class Arena:
    """Two mappings of one file: the input region, read-only, and the output region."""

    def __init__(self, fd, input_size, output_size):
        self.inputs = memoryview(mmap.mmap(fd, input_size, prot=mmap.PROT_READ))
        self.outputs = memoryview(
            mmap.mmap(fd, output_size, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=input_size)
        )
        self.output_size = output_size
        os.close(fd)
