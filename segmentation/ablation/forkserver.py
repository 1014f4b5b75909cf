"""Processes that are forked from a server which has imported the libraries once."""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.forkserver import ensure_running


def start_forkserver(modules: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Start the server, if it does not run yet, and give the context whose processes it forks.

    Ctrl-C reaches every process of a terminal. The server and its children ignore it: the process that started them
    ends them.

    Args:
        modules: What the server imports before the first fork.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    if threading.current_thread() is not threading.main_thread():
        return context
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context
