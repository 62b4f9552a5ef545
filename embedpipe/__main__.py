"""The ``embedpipe`` command, also as ``python -m embedpipe``."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends the process without a traceback while the libraries are still imported."""
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from embedpipe._utils.importing import collect_rarely

    collect_rarely()
    from embedpipe.cli import main as run

    if interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    finally:
        # At its end Python searches all objects for cycles, those of every library too. Triton, which PyTorch for CUDA
        # imports, needs that: it complains at length of every object that is left.
        if "triton" not in sys.modules:
            gc.freeze()


if __name__ == "__main__":
    main()
