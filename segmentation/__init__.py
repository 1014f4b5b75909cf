"""SkipSeg: train, ablate and deploy biomedical segmentation U-Nets, with the evidence for every choice.

Importing this package is cheap: no submodule is loaded, so ``skipseg --help`` never waits for torch.
"""

__version__ = "0.2.0"


class SkipSegError(ValueError):
    """A problem that the user can mend: its message says what was wrong, what was received, what to do.

    The command line prints the message alone, without a traceback. Everything below the command line
    raises it for bad input, so that a bug of ours (any other exception) is never mistaken for one.
    """


class SettingsError(SkipSegError):
    """A wrong setting or an unknown name: the question is wrong, whatever the data and the machine are like."""


def is_lack_of_memory(error: Exception) -> bool:
    """Tell whether Python, PyTorch on a GPU, or PyTorch on a CPU ran out of memory."""
    # PyTorch's own kinds are known by name and words: importing it here would cost seconds.
    kind, words = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in words
