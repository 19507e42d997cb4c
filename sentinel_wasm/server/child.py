"""Work that takes long or may go wrong, done by a process of its own that gives way to all others."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from sentinel_wasm.errors import UserError
from sentinel_wasm.server.nameless import nameless

_log = structlog.stdlib.get_logger("child")

CPU_S = 10 * (os.cpu_count() or 1)
_PATIENCE_S = 60.0  # beside a loaded agent it may hardly run: the processor's time is what is limited

# The same modules as here, as in `process`.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from sentinel_wasm.server.child import main;"
    " main(sys.argv[1], int(sys.argv[2]))"
)


class ChildError(UserError):
    """The child was killed, or could not be made."""


async def ask(
    function: str, question: object, descriptors: Sequence[int] = (), *, patience_s: float = _PATIENCE_S
) -> Any:
    """What `function` ("package.module:name") gives for a question, both such that pickle takes them.

    The child has the `descriptors` under the same numbers. It is exec'd: a forked child of a process with an
    engine hangs when it compiles. Raises the UserError that the function raises, and ChildError where there
    is no answer.
    """
    try:
        with await asyncio.to_thread(_written, question) as file:
            # Not asyncio's: uvloop forks, which holds the event loop for 20 ms, and this for half of one.
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _PROGRAM, function, str(file.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(file.fileno(), *descriptors),
                start_new_session=True,  # Ctrl-C is for the agent, which then kills it
            )
    except OSError as error:
        raise ChildError(f"no process can be made: {error.strerror}") from None
    heard = asyncio.ensure_future(asyncio.to_thread(process.communicate))
    try:
        said, _ = await asyncio.wait_for(asyncio.shield(heard), patience_s)
    except asyncio.TimeoutError:
        raise ChildError(f"it took more than {patience_s:g} s") from None
    finally:
        process.kill()
        await heard
    if process.returncode != 0:
        raise ChildError(_why(process.returncode))
    # From the process that was started here, whose output nobody else can write to.
    answer = pickle.loads(said)  # noqa: S301
    if isinstance(answer, UserError):
        raise answer
    return answer


def _written(question: object) -> BinaryIO:
    file = os.fdopen(nameless("question"), "wb")
    pickle.dump(question, file)
    file.flush()
    return file


def _why(status: int) -> str:
    if status == -signal.SIGXCPU:
        return f"it took more than {CPU_S} s of processor time"
    if status < 0:
        return f"the process that did it was {ending(status)}"
    return f"the process that did it ended with status {status}"


def ending(status: int) -> str:
    """How a process ended, by what Popen says."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"  # most real-time signals have no name


def main(function: str, file: int) -> None:
    """In the child."""
    _give_way()
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever is printed is no answer
    with os.fdopen(file, "rb") as asked:
        asked.seek(0)
        question = pickle.load(asked)  # noqa: S301
    module, _, name = function.partition(":")
    try:
        answer = getattr(importlib.import_module(module), name)(question)
    except UserError as error:
        answer = error
    except ImportError as error:
        answer = UserError(str(error))
    except MemoryError:
        answer = UserError("no memory was left for it")
    except Exception as defect:
        _log.error("internal error, please report it", exc_info=defect)
        answer = UserError(f"internal error: {type(defect).__name__}")
    with os.fdopen(answers, "wb") as out:
        pickle.dump(answer, out)


def _give_way() -> None:
    """Where the service may not, it does without."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # it, and not the agent
    limit(resource.RLIMIT_CPU, CPU_S)
    limit(resource.RLIMIT_CORE, 0)


def limit(resource_number: int, most: int) -> None:
    """In the child: as setrlimit(2), but never more than it may have."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource_number, (most, resource.getrlimit(resource_number)[1]))
