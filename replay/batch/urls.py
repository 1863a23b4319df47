"""Paths that are URLs: captures and results that fsspec reaches (extra ``s3``, or another fsspec package)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from schemas.errors import UsageError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(path: str) -> bool:
    """Whether ``path`` is a URL such as ``s3://bucket/trace.dat``."""
    return _SCHEME.match(path) is not None


def shown(path: str) -> str:
    """``path`` for a table or document.

    A URL loses user, password, query and fragment, which may be secrets; bytes of a file name that are not
    UTF-8 become escapes.
    """
    if not is_url(path):
        return path.encode("utf-8", "backslashreplace").decode()
    parts = urlsplit(path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def url_to_fs(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path as that filesystem names it.

    Raises:
        UsageError: fsspec is not installed, or not what it needs for this scheme.
    """
    try:
        from fsspec.core import url_to_fs as resolve

        filesystem, path = resolve(url)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"cannot reach {url.partition('://')[0]}:// ({error})",
            where=shown(url),
            hint="for s3:// install the extra: pipx install 'rmap-replay[s3]'; else its fsspec package",
        ) from error
    return filesystem, str(path)
