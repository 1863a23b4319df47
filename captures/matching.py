"""Which events of a capture have a role in ``captures.roles``, and which of their fields they need for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from captures.columns import arrow_type
from captures.decode import COMMON, column_name
from captures.roles import ROLES, From, Role
from schemas import TABLES
from schemas.errors import MissingEventsError

if TYPE_CHECKING:
    from captures.eventfmt import EventFormat
    from captures.info import Capture

# What perf probe, kprobe_events and fprobe events put around the name of the function.
_DECORATION: Final = re.compile(r"^(?:[pr]_)?(?P<function>\w+?)(?:__(?:entry|exit|return))?(?:_\d+)?$")
_PROBE_FIELD: Final = b"field:unsigned long __probe_"


@dataclass(frozen=True)
class Match:
    """An event of the capture that has a role.

    Attributes:
        name: ``system:name``.
        role: The role.
        sources: For each column that the event fills, the raw field that it comes from.
        lacking: Columns that may not be null and that no field fills.
    """

    name: str
    role: Role
    sources: dict[str, From]
    lacking: tuple[str, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same for two events that tell of the same thing."""
        return self.role.table, *self.role.constants.items()


def find_roles(capture: Capture) -> list[Match]:
    """The events of a capture that have a role and the fields for it, whether or not they occur.

    Raises:
        MissingEventsError: An event that occurs lacks a field that its role cannot do without, and no other
            event has that role.
    """
    found = match_all(capture)
    complete = [each for each in found if not each.lacking]
    filled = {each.key for each in complete}
    for each in found:
        if each.lacking and each.key not in filled and each.name in capture.event_counts():
            raise _missing(capture, each)
    return complete


def match_all(capture: Capture) -> list[Match]:
    """As ``find_roles``, but with the events that lack a field that their role cannot do without."""
    return [
        _matched(name, event, role)
        for name, event in capture.formats.items()
        if (role := _role_of(name, event)) is not None
    ]


def _role_of(name: str, event: EventFormat) -> Role | None:
    """The role of an event; None: it has none."""
    if name in _BY_TRACEPOINT:
        return _BY_TRACEPOINT[name]
    if _PROBE_FIELD not in event.text:
        return None
    is_return = b"__probe_ret_ip" in event.text
    decorated = _DECORATION.match(event.name)
    by_function = _BY_FUNCTION.get((decorated["function"], is_return)) if decorated else None
    return _BY_ALIAS.get((event.name, is_return), by_function)


def _matched(name: str, event: EventFormat, role: Role) -> Match:
    """The raw field of each column of a role."""
    columns = TABLES[role.table].columns[len(COMMON) :]
    wanted = role.columns or {each.name: From((each.name,)) for each in columns if not role.constants}
    sources = {}
    for column in columns:
        source = wanted.get(column.name)
        if source is not None:
            lower = _field(event, source.names, source, column.type)
            upper = _field(event, source.upper, source, column.type)
            if lower is not None and (upper is not None) == bool(source.upper):
                sources[column.name] = From((lower,), source.rule, () if upper is None else (upper,))
    needed = [each.name for each in columns if each.null is None and each.name not in role.constants]
    return Match(name, role, sources, tuple(each for each in needed if each not in sources))


def is_number(event: EventFormat, field: str) -> bool:
    """Whether the values of a field are numbers."""
    type_ = arrow_type(event.fields[field])
    return bool(pa.types.is_integer(type_) or pa.types.is_boolean(type_))


def _field(event: EventFormat, names: tuple[str, ...], source: From, type_: pa.DataType) -> str | None:
    """Column of the first field with one of the names whose values can be what the column holds."""
    by_column = {column_name(field): field for field in event.fields}
    for name in names:
        if name in by_column and source.rule == "frames":
            return name if pa.types.is_list(arrow_type(event.fields[by_column[name]])) else None
        if name in by_column:
            number = is_number(event, by_column[name])
            text = event.fields[by_column[name]].is_string
            if (number or text) if source.rule == "symbol" else text if pa.types.is_string(type_) else number:
                return name
    return None


def _missing(capture: Capture, match: Match) -> MissingEventsError:
    column = match.lacking[0]
    names = match.role.columns[column].names if column in match.role.columns else (column,)
    fields = [name for name in capture.formats[match.name].fields if not name.startswith("__probe_")]
    return MissingEventsError(
        f"the event {match.name} lacks the field {column}",
        path=capture.path,
        expected=f"a field {' or '.join(names)}",
        found=f"fields {', '.join(fields) or '(none)'}",
        hint=f"record it again with that field; `replay schema {match.role.table}` lists what is needed",
    )


_BY_TRACEPOINT: Final = {name: role for role in ROLES for name in role.tracepoints}
_BY_FUNCTION: Final = {(function, role.is_return): role for role in ROLES for function in role.functions}
_BY_ALIAS: Final = {(alias, role.is_return): role for role in ROLES for alias in role.aliases}
