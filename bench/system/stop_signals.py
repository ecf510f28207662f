"""What stops a command: besides Ctrl-C, `kill` and the end of its terminal (SIGHUP). No torch."""

import os
import signal
import stat
from contextlib import suppress
from types import FrameType


def stop_signals() -> list[signal.Signals]:
    """Those that ask to stop; without SIGHUP under `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def interrupt_on_stop_signals() -> None:
    """From now on SIGTERM and SIGHUP are as good as Ctrl-C."""
    for number in stop_signals()[1:]:
        hangup = number == signal.SIGHUP
        signal.signal(number, _hang_up if hangup else signal.default_int_handler)


def ignore_hangup() -> None:
    """From now on: a closed terminal sends several, with its shell; none is a second Ctrl-C."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def leave_closed_terminal() -> None:
    """What is still printed to a terminal that is gone goes nowhere, instead of failing."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _hang_up(number: int, frame: FrameType | None) -> None:
    ignore_hangup()
    leave_closed_terminal()
    raise KeyboardInterrupt
