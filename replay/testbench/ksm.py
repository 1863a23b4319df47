"""KSM set to merge fast, and set back."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from schemas.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

FOLDER: Final = Path("/sys/kernel/mm/ksm")

_FAST: Final = {
    "advisor_mode": "none",  # first: it would refuse the next one
    "smart_scan": "0",
    "use_zero_pages": "0",
    "pages_to_scan": "20000",
    "sleep_millisecs": "10",
    "run": "1",
}
"""Settings in the order in which they are made; a kernel need not have the first two (6.8, 6.7)."""


class Ksm:
    """Context in which ksmd merges fast; on leaving it every setting is what it was."""

    def __init__(self, folder: Path = FOLDER, own: Path = Path("/proc/self")) -> None:
        """Take the settings in ``folder``; ``own`` is this process in /proc."""
        self._folder = folder
        self._own = own
        self._before: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Make the settings.

        Raises:
            UsageError: No KSM, or no permission.
        """
        try:
            for name, value in _FAST.items():
                path = self._folder / name
                if path.exists() or name == "run":
                    self._before[name] = _chosen(path.read_text(encoding="ascii"))
                    path.write_text(value, encoding="ascii")
        except OSError as error:
            self._put_back()
            raise UsageError(
                f"cannot set KSM up: {error.strerror}",
                where=str(error.filename or self._folder),
                hint="run it as root, on a kernel with CONFIG_KSM",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the settings back, in reverse order."""
        self._put_back()

    def _put_back(self) -> None:
        for name, value in reversed(self._before.items()):
            with suppress(OSError):  # the others still have to be put back
                (self._folder / name).write_text(value, encoding="ascii")
        self._before.clear()

    def stop(self) -> None:
        """Let ksmd rest; what is merged stays so."""
        (self._folder / "run").write_text("0", encoding="ascii")

    def merge(self, pages: int, timeout_s: float) -> int:
        """Let ksmd work until it has merged ``pages`` pages of this process, and then for two more passes.

        Returns:
            Pages of this process that are merged.

        Raises:
            UsageError: They were not merged in time.
        """
        (self._folder / "run").write_text("1", encoding="ascii")
        end = time.monotonic() + timeout_s
        while (merged := self._merging()) < pages:
            if time.monotonic() > end:
                raise UsageError(
                    f"KSM merged {merged:,} of {pages:,} pages in {timeout_s:g} s",
                    where=str(self._folder),
                    hint="give it more time with --timeout, or take fewer --pages",
                )
            time.sleep(0.05)
        scans = self._full_scans()
        while self._full_scans() < scans + 2 and time.monotonic() < end:
            time.sleep(0.05)
        self.stop()
        return self._merging()

    def _merging(self) -> int:
        return int((self._own / "ksm_merging_pages").read_text(encoding="ascii"))

    def _full_scans(self) -> int:
        return int((self._folder / "full_scans").read_text(encoding="ascii"))


def _chosen(text: str) -> str:
    """The value of a setting; of ``[none] scan-time`` what is in brackets."""
    found = re.search(r"\[(.*?)\]", text)
    return found[1] if found else text.strip()
