"""How a stage may fail: the whole tree of errors, with the exit code of each.

::

    ReplayError
    |-- UsageError [2]             a wrong option or argument (typer's own usage errors are 2 as well)
    |-- CaptureError [3]           unreadable capture: path, byte offset, cpu, expected, found
    |   |-- UnknownFormatError     not a capture format that is known; also a ValueError
    |   |-- TruncatedError         the file ends too early
    |   |-- CorruptError           the bytes contradict each other
    |   `-- MissingEventsError     readable, but without the events that the question needs
    |-- SchemaError [4]            a table is not what schemas/ says: table, column, expected, found
    |-- OutputError [5]            cannot write: exists, unwritable, over the size budget
    |-- BatchIncomplete [1]        the batch ran to its end; some captures failed
    `-- InternalError [70]         a bug of replay itself

``str(error)`` is exactly three lines: what happened, where, and what to do about it. The texts may hold
bytes of an untrusted capture, so control characters (terminal escapes, line breaks) are shown as escapes.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import os


class ReplayError(Exception):
    """Base of every error that is reported to the user without a traceback.

    Attributes:
        exit_code: Exit code of the command line.
        what: What happened.
        where: File, place in it, option or column.
        hint: What the user can do.
    """

    exit_code: ClassVar[int]

    def __init__(self, what: str, *, where: str, hint: str) -> None:
        """Keep the three parts, each as one printable line."""
        self.what = printable(what)
        self.where = printable(where)
        self.hint = printable(hint)
        super().__init__(self.what)

    def __str__(self) -> str:
        """Three lines: what, where, hint."""
        return f"{self.what}\n{self.where}\n{self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by attributes: errors travel between the processes of a batch."""
        return _restore, (type(self), self.args), self.__dict__


class UsageError(ReplayError):
    """A wrong option or argument."""

    exit_code = 2


class CaptureError(ReplayError):
    """A capture that cannot be read, or not for what was asked.

    Attributes:
        path: The capture.
        offset: Bytes from the start of the file; None: not one place.
        cpu: The CPU whose buffer it is; None: not one CPU's.
        expected: What should be there; None: does not apply.
        found: What is there; None: does not apply.
    """

    exit_code = 3

    def __init__(
        self,
        what: str,
        *,
        path: str | os.PathLike[str],
        hint: str,
        offset: int | None = None,
        cpu: int | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        """Keep the evidence and put it into the line that says where."""
        self.path = str(path)
        self.offset = offset
        self.cpu = cpu
        self.expected = expected
        self.found = found
        where = self.path
        if offset is not None:
            where += f", byte {offset} ({offset:#x})"
        if cpu is not None:
            where += f", cpu {cpu}"
        evidence = []
        if expected is not None:
            evidence.append(f"expected {expected}")
        if found is not None:
            evidence.append(f"found {found}")
        if evidence:
            where += ": " + ", ".join(evidence)
        super().__init__(what, where=where, hint=hint)


class UnknownFormatError(CaptureError, ValueError):
    """The file is in no capture format that is known."""


class TruncatedError(CaptureError):
    """The file ends before something that it announced."""


class CorruptError(CaptureError):
    """The file contradicts itself."""


class MissingEventsError(CaptureError):
    """The capture can be read, but lacks the events that the question needs."""


class SchemaError(ReplayError):
    """A table is not what ``schemas`` says.

    Attributes:
        table: Name of the table.
        column: Name of the first column that differs; None: the table as a whole.
        expected: What the schema says.
        found: What the table has.
    """

    exit_code = 4

    def __init__(
        self,
        table: str,
        *,
        expected: str,
        found: str,
        column: str | None = None,
        written: str | None = None,
    ) -> None:
        """Keep the evidence; ``written`` is the ``NAME/VERSION`` that the table says it is."""
        self.table = table
        self.column = column
        self.expected = expected
        self.found = found
        where = f"table {table}" if column is None else f"table {table}, column {column}"
        if written is not None:
            where += f" (written as {written})"
        super().__init__(
            "table does not match its schema",
            where=f"{where}: expected {expected}, found {found}",
            hint=f"see `replay schema {table}`; a file of another version of replay has to be made anew",
        )


class OutputError(ReplayError):
    """A result cannot be written.

    Attributes:
        path: What should have been written.
    """

    exit_code = 5

    def __init__(self, what: str, *, path: str | os.PathLike[str], hint: str) -> None:
        """Keep the path."""
        self.path = str(path)
        super().__init__(what, where=self.path, hint=hint)


class BatchIncomplete(ReplayError):
    """The batch ran to its end, but some captures failed.

    Attributes:
        failed: Number of captures that failed.
        total: Number of captures of the batch.
        manifest: Table that says which failed and why.
    """

    exit_code = 1

    def __init__(self, failed: int, total: int, *, manifest: str | os.PathLike[str]) -> None:
        """Keep the numbers."""
        self.failed = failed
        self.total = total
        self.manifest = str(manifest)
        super().__init__(
            f"{failed} of {total} captures failed",
            where=self.manifest,
            hint="the table lists each capture with the cause",
        )


class InternalError(ReplayError):
    """A bug of replay itself."""

    exit_code = 70

    def __init__(self, error: BaseException) -> None:
        """Say what was raised, and by which line."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        super().__init__(
            f"error in replay itself: {type(error).__name__}: {error}",
            where=f"{place.filename}, line {place.lineno}, in {place.name}",
            hint="this is a bug: please report it, with the traceback that --debug shows",
        )


def printable(text: str) -> str:
    """``text`` as one line: whatever would move the cursor or be invisible becomes an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def _restore(kind: type[ReplayError], args: tuple[Any, ...]) -> ReplayError:
    """Make an error without running its ``__init__`` (its attributes follow)."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error
