r"""What stands behind the name of an event: which fields it has, as its first lines show, and their values.

Text carries no format descriptions. A stock event with a role has a template (``captures.text.grammar``);
of probes, system calls and all other events the names of the fields are read off the first lines::

    avc_insert: (anon_rmap_tree_insert+0x4/0xf0) avc=0xffff88d827e82c00 ...     a probe
    sys_mmap(addr: 0, len: 0x2000, ...)  sys_enter_mmap: addr: 0x00000000, ...  a system call
    sched_switch: prev_comm=bash prev_pid=135 ...                               any other event

The fields become an ``EventFormat``, so that nothing behind this module has to know text from binary.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from captures.eventfmt import MAX_FIELDS, EventFormat
from captures.text.grammar import MARKER_TEMPLATE, TEMPLATES, USER_STACK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_PLACE: Final = re.compile(r"\{(\w*):([\w|]+)\}")
_PAIR: Final = re.compile(r' (\w+)=("[^"]{0,255}"|\([^)]{0,40}\)|[^ ]*)', re.ASCII)
_ARGUMENT: Final = re.compile(r"(?:^|, )(?:[\w *]{1,99}[ *])?(\w+): (?:0x)?[0-9a-f]+\b", re.ASCII)
_STRING: Final = re.compile(r'"[^"]{0,511}"')
_PROBE: Final = re.compile(
    r"^ *(?:\([^()<]+( <- [^()]+)?\)|"
    r"__probe_(?:ip|func)=\S+(?: \([0-9-]+\))?( __probe_ret_ip=\S+(?: \([0-9-]+\))?)?)(?= |$)"
)

_HEX: Final = r"(?:0x)?([0-9a-f]+)"
_DEC: Final = r"(-?[0-9]+)"
_RAW_POINTER: Final = r"(0x[0-9a-f]+|[89a-f][0-9a-f]{15}|0+)"
_ANY_POINTER: Final = r"(0x[0-9a-f]+|[0-9a-f]+|\(_*ptrval_*\)|\(null\))"
_PROBE_PLACE: Final = r"^ *\([^()]*\)"
_DECIMAL_TOO: Final = r"(?: \(-?[0-9]+\))?"
_KINDS: Final = (
    ("hex", r"0x[0-9a-f]{1,16}", r"0x([0-9a-f]+)"),
    ("dec", r"-?[0-9]{1,20}", _DEC),
    ("text", r'(?:".*|\(fault\))', r"(?:\"(.*)\"|\(fault\))"),
)
"""Kinds of the values that probes print: a whole value (one of all, where it is text), and its pattern."""

_ARRAY: Final = r"^ARRAY\[[0-9a-f]{2}(?:, [0-9a-f]{2})*\]$"

_END: Final = r"(?:[ ,)]|$)"

_GROUP: Final = re.compile(r"\\.|\[[^\]]*\]|\((?!\?)")
"""What is escaped, a class of characters, or the begin of a group."""


@dataclass(frozen=True)
class TextField:
    """One field of an event: its name and its kind, as ``captures.text.grammar`` describes kinds."""

    name: str
    kind: str

    @property
    def declaration(self) -> str:
        """The field in the language of format descriptions, without its offset."""
        if self.kind == "text":
            return f"__data_loc char[] {self.name};\toffset:%d;\tsize:4;\tsigned:1;"
        if self.kind in ("hex", "ptr"):
            return f"u64 {self.name};\toffset:%d;\tsize:8;\tsigned:0;"
        return f"s64 {self.name};\toffset:%d;\tsize:8;\tsigned:1;"

    def values(self, found: pl.Series) -> pl.Series:
        """The values in their type: uint64, int64 or text."""
        if self.kind == "text":
            return _without_arrays(found)
        if self.kind == "hex":
            return found.str.to_integer(base=16, dtype=pl.UInt64, strict=False)
        if self.kind == "ptr":
            return found.str.strip_prefix("0x").str.to_integer(base=16, dtype=pl.UInt64, strict=False)
        if self.kind != "dec":
            words = {word: str(place) for place, word in enumerate(self.kind.split("|"))}
            found = found.replace(words)
        signed = found.cast(pl.Int64, strict=False)
        if signed.null_count() > found.null_count():
            large = found.cast(pl.UInt64, strict=False).reinterpret(signed=True)
            signed = signed.fill_null(large)
        return signed


def _without_arrays(texts: pl.Series) -> pl.Series:
    """Texts; those that trace-cmd report -R prints as ``ARRAY[23, 68, 00, ...]`` up to the first 0."""
    listed = texts.filter(texts.str.contains(_ARRAY)).unique().to_list()
    if not listed:
        return texts
    content = [bytes.fromhex(each[6:-1].replace(", ", "")).split(b"\0")[0] for each in listed]
    return texts.replace(
        dict(zip(listed, (each.decode("utf-8", "backslashreplace") for each in content), strict=True))
    )


@dataclass(frozen=True)
class Body:
    """How the lines of one event print its fields.

    Attributes:
        fields: Its fields, in the order of the text.
        pattern: Pattern of what stands behind the name; one group a field.
        probe: ``__probe_*`` field that a probe has in binary captures; empty: not a probe.
    """

    fields: tuple[TextField, ...]
    pattern: str
    probe: tuple[str, ...] = ()

    def format(self, system: str, name: str, number: int, path: str) -> EventFormat:
        """The event as a format description."""
        declarations = [f"unsigned long {each};\toffset:%d;\tsize:8;\tsigned:0;" for each in self.probe]
        declarations += [each.declaration for each in self.fields]
        lines = [f"\tfield:{each % (8 * (1 + place))}" for place, each in enumerate(declarations)]
        text = "\n".join([f"name: {name}", f"ID: {number}", "format:", *lines, ""])
        return EventFormat(system, name, number, text.encode(), path)

    def of(self, fields: Collection[TextField]) -> Body:
        """The same lines, of which only these fields are taken."""
        places = itertools.count()

        def kept(found: re.Match[str]) -> str:
            is_other = found[0] == "(" and self.fields[next(places)] not in fields
            return "(?:" if is_other else found[0]

        return Body(
            tuple(each for each in self.fields if each in fields), _GROUP.sub(kept, self.pattern), self.probe
        )

    def parse(self, bodies: pl.Series) -> tuple[list[pl.Series], pl.Series]:
        """Values of each field, and which bodies have them all; text may be null where it has.

        Args:
            bodies: What stands behind the name on each line of the event.
        """
        if not self.fields:
            return [], bodies.str.contains(self.pattern)
        found = bodies.str.extract_groups(self.pattern).struct.unnest()
        columns = [each.values(column) for each, column in zip(self.fields, found.get_columns(), strict=True)]
        numbers = [column for each, column in zip(self.fields, columns, strict=True) if each.kind != "text"]
        if not numbers:
            return columns, bodies.str.contains(self.pattern)
        complete = numbers[0].is_not_null()
        for column in numbers[1:]:
            complete &= column.is_not_null()
        return columns, complete


def body_of(name: str, samples: Sequence[str], *, is_marker: bool) -> Body | str:
    """How an event prints its fields.

    Args:
        name: ``system:name`` of the event.
        samples: Bodies of its first lines.
        is_marker: Whether ftrace:print comes under the name of the function that wrote it.

    Returns:
        The body; else why the fields cannot be read.
    """
    if is_marker:
        return _template(MARKER_TEMPLATE, _RAW_POINTER)
    if name == USER_STACK:
        return "stacks are read from a trace.dat or a perf.data, not from text"
    if name in TEMPLATES:
        return _best_template(TEMPLATES[name], samples)
    if name.startswith("syscalls:sys_enter_"):
        return _arguments(samples)
    if name.startswith("syscalls:sys_exit_"):
        return _best_template("{ret:hex}", samples)
    return _named_values(samples)


def is_probe(samples: Sequence[str]) -> bool:
    """Whether the first bodies of an event are those of a probe: they begin with where it is."""
    return bool(samples) and all(_PROBE.match(each) for each in samples)


def _best_template(template: str, samples: Sequence[str]) -> Body | str:
    """The printed form or the raw form (``name=value``) of a template, whichever fits the lines."""
    forms = (_template, _raw_template)
    lines = pl.Series(samples, dtype=pl.String)
    for form in forms:
        body = form(template, _RAW_POINTER)
        if lines.str.contains(body.pattern).any():
            return body
    if any(lines.str.contains(form(template, _ANY_POINTER).pattern).any() for form in forms):
        return "its pointers are hashed (%p) and join with nothing"
    return "its lines do not print what is needed, or in another form"


def _template(template: str, pointer: str) -> Body:
    """The printed form of a template."""
    pattern, end, fields = r"^ ?" if template.startswith("{buf") else r"^ *", 0, []
    for place in _PLACE.finditer(template):
        pattern += re.escape(template[end : place.start()]) + _value(place[2], pointer)
        end = place.end()
        if place[1]:
            fields.append(TextField(place[1], place[2]))
    rest = template[end:]
    pattern += re.escape(rest) + ("" if rest else r"$" if fields[-1].kind == "text" else _END)
    return Body(tuple(fields), pattern.replace(r"\ ", " ").replace(r"\,", ","))


def _raw_template(template: str, pointer: str) -> Body:
    """``name=value`` for each field of a template.

    ``trace-cmd report -R`` prints an address as ``name=symbol (0x...)``; the option ``fields`` of tracefs
    (kernel/trace/trace_output.c ``print_fields()``) prints every number as ``name=0x... (decimal)``.
    """
    fields = [TextField(place[1], place[2]) for place in _PLACE.finditer(template) if place[1]]
    before = {"hex": r"(?:[^ =(]* ?\(0x|0x|)", "text": "", "ptr": ""}
    pattern = "^(?:.*? )?"
    for place, each in enumerate(fields):
        if place:
            pattern += " " if fields[place - 1].kind == "text" else r"[),]* (?:.*? )?"
        value = _value(each.kind, pointer).removeprefix("(?:0x)?")
        pattern += f"{each.name}=" + before.get(each.kind, r"(?:[^ =(]* ?\()?") + value
    return Body(tuple(fields), pattern + ("$" if fields[-1].kind == "text" else _END))


def _value(kind: str, pointer: str) -> str:
    """Pattern of a value."""
    if kind == "skip":
        return ".*?"
    if kind == "text":
        return "(.*)"
    if kind in ("hex", "dec", "ptr"):
        return {"hex": _HEX, "dec": _DEC, "ptr": pointer}[kind]
    return f"({kind}|[0-9]{{1,10}})"


def _arguments(samples: Sequence[str]) -> Body | str:
    """Entry into a system call: ``name: value, ...``, always in base 16; a string may follow a value."""
    if any("__syscall_nr=" in each for each in samples):
        raw = _named_values(samples)
        if isinstance(raw, str):
            return raw
        known = [
            each for each in raw.fields if each.name != "__syscall_nr" and not each.name.endswith("_val")
        ]
        if any(each.kind == "text" for each in known):
            # With the option fields, tracefs prints in the place of a pointer what it leads to: none is sure.
            return Body((), "")
        pattern = "^" + "".join(f"(?:.*? )?{each.name}={_HEX}" for each in known)
        return Body(tuple(TextField(each.name, "hex") for each in known), pattern)
    names = _commonest(tuple(_ARGUMENT.findall(_STRING.sub("", each.strip()))) for each in samples)
    # With the option verbose, tracefs prints the type of each argument before its name.
    values = [rf"(?:[^,:\"]*[ *])?{each}: {_HEX}(?: \".*?\"| \([^)]*\))?" for each in names]
    if not _are_fields(names) or (not names and any(each.strip(" )") for each in samples)):
        return "its fields cannot be told apart"
    return Body(tuple(TextField(each, "hex") for each in names), "^ *" + ", ".join(values))


def _named_values(samples: Sequence[str]) -> Body | str:
    """A probe, or any other event: ``name=value`` with one space between."""
    probes = [match for each in samples if (match := _PROBE.match(each)) is not None]
    probing = is_probe(samples)
    rests = [each[match.end() :] for each, match in zip(samples, probes, strict=True)] if probing else samples
    found = [dict(_PAIR.findall(f" {each.strip()}")) for each in rests]
    names = _commonest(tuple(each) for each in found)
    if not _are_fields(names) or not (names or probing):
        return "its fields cannot be told apart"
    is_return = probing and any(match[1] or match[2] for match in probes)
    probe = ("__probe_func", "__probe_ret_ip") if is_return else ("__probe_ip",) if probing else ()
    fields, pattern, after = [], "^", ""
    if probing:
        if samples[0].lstrip().startswith("__probe_"):
            after = _DECIMAL_TOO if "(" in samples[0] else ""
            pattern = "^ *" + " ".join(f"{each}=[0-9a-fx]+{after}" for each in probe)
        else:
            pattern = _PROBE_PLACE
    for name in names:
        kind, value = _kind_of([each[name] for each in found if name in each])
        fields.append(TextField(name, kind))
        pattern += f" {name}={value}{after}" if probing else f"(?:.*? )?{name}={value}"
    return Body(tuple(fields), pattern + _END, probe)


def _kind_of(values: Sequence[str]) -> tuple[str, str]:
    """Kind of a field and pattern of its values, as most of its first values show."""
    for kind, whole, pattern in _KINDS:
        if 2 * sum(re.fullmatch(whole, each) is not None for each in values) > len(values):
            return kind, pattern
    return "text", "(.*)"


def _commonest(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The names that most lines have."""
    counted = Counter(lists)
    return counted.most_common(1)[0][0] if counted else ()


def _are_fields(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names) <= MAX_FIELDS
