"""What went wrong: whose doing it is, and how it is told."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

log = logging.getLogger("dit_acceleration")

HERE = Path(__file__).parent


class BeginAgainError(Exception):
    """Of several ranks one could not finish its part of an evaluation, so all begin it again.

    The message is the sentence that says why.
    """


FAILED = "something went wrong in the acceleration"


def log_failure(error: Exception) -> None:
    """Tell the log, in words: a record that refers to the error would keep its tensors alive."""
    told = "".join(traceback.format_exception(error))
    log.warning("Acceleration stopped here; sampling goes on.\n%s", told)


def failed_sentence(error: Exception) -> str:
    """Why a run goes on without acceleration."""
    message = next(iter(str(error).splitlines()), "no message")[:120]
    return (
        f"{FAILED} ({type(error).__name__}: {message}), so what it remembered was dropped and the "
        "rest of this run was computed in full"
    )


def is_ours(error: BaseException) -> bool:
    """Whether an error comes out of this package and not of the model or of anything it calls."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and Path(at.tb_frame.f_code.co_filename).is_relative_to(HERE)
