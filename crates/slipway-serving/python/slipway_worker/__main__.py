"""Started by slipway-runner as `python3 -u …/slipway_worker/__main__.py`, with its control socket as standard input."""

import os
import sys

if __name__ == "__main__":
    # The interpreter put this package's own folder first; its module names must not hide anything.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from slipway_worker import serve

    sys.exit(serve.main(0))
