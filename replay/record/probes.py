"""The definitions of the probe recipes, in the words that a given kernel understands.

The recipes name arguments as the kernel's sources do, which takes BTF arguments in tracefs (Linux 6.6 with
CONFIG_PROBE_EVENTS_BTF_ARGS). For a kernel without them a definition is rewritten to the number of the
argument and offsets, both from the kernel's BTF; for one without kprobe events it is rewritten to fprobes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from captures.recipes import KERNELS, recipe_path
from schemas.errors import UsageError

if TYPE_CHECKING:
    from replay.record.btf import Btf
    from replay.record.options import Profile

SYSTEMS: Final = ("ksmprobe", "ksmtruth")
"""Systems of the events that the recipes define."""

TELLING: Final = {"6.12": "anon_vma_interval_tree_insert", "7.3": "anon_rmap_tree_insert"}
"""For each of ``captures.recipes.KERNELS`` the function that tells it."""

_RECIPES: Final = {"stock": (), "exact": ("exact",), "truth": ("exact", "truth")}
_OPTIONAL: Final = re.compile(r"folio_migrate_ksm|damon_\w+|\w+_one|remove_migration_pte")
"""Functions that a kernel may lack without making the capture worse than it says."""
_DEFINITION: Final = re.compile(r"(?P<kind>p|r(?P<depth>\d*)):(?P<name>\S+) (?P<function>\w+)(?P<rest>.*)")
_BY_NAME: Final = re.compile(r"(?P<argument>[a-z_]\w*)(?P<path>(->\w+|\.\w+)*)(?P<type>:\w+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Syntax:
    """What the tracefs of a kernel understands.

    Attributes:
        names: Arguments by name.
        kprobes: Definitions ``p:`` and ``r:``; without them ``f:``.
    """

    names: bool
    kprobes: bool

    @classmethod
    def of(cls, readme: str) -> Syntax:
        """From the README that tracefs has in its folder.

        Raises:
            UsageError: The kernel takes neither kprobes nor fprobes.
        """
        kprobes = "place: [<module>:]<symbol>" in readme
        if not kprobes and re.search(r"\bf\[?:", readme) is None:
            raise UsageError(
                "this kernel takes no probes on its functions",
                where="README of tracefs",
                hint="record with --events stock, which needs none; or boot a kernel that has "
                "CONFIG_KPROBE_EVENTS or CONFIG_FPROBE_EVENTS",
            )
        return cls(names="<argname>[->field" in readme, kprobes=kprobes)


MODERN: Final = Syntax(names=True, kprobes=True)
"""A kernel that takes the recipes as they are."""


@dataclass(frozen=True)
class Definition:
    """One probe.

    Attributes:
        function: The kernel function that it is on.
        needed: Whether the capture is worth less without it.
        text: The line for dynamic_events.
    """

    function: str
    needed: bool
    text: str


def definitions(profile: Profile, kernel: str, *, anon: bool = False) -> list[Definition]:
    """The probes of a profile as the recipes have them.

    Args:
        profile: How much is recorded.
        kernel: One of ``captures.recipes.KERNELS``.
        anon: Whether those of walks over ordinary anonymous pages are among them.
    """
    found = []
    for recipe in (*_RECIPES[profile], *(("anon",) if anon else ())):
        lines = recipe_path(recipe, kernel).read_text(encoding="utf-8").splitlines()
        for line in lines:
            match = _DEFINITION.fullmatch(line)
            if match is not None:
                function = match["function"]
                found.append(Definition(function, _OPTIONAL.fullmatch(function) is None, line))
    return found


def kernel_of(btf: Btf) -> str:
    """Which of ``captures.recipes.KERNELS`` the types are of.

    Raises:
        UsageError: Of none.
    """
    for kernel in KERNELS:
        if btf.has_function(TELLING[kernel]):
            return kernel
    raise UsageError(
        "this kernel has no function that puts an anon_vma_chain into a tree",
        where=f"BTF, functions {' and '.join(TELLING.values())}",
        hint="record with --events stock, which needs no probes; or build the kernel with CONFIG_KSM",
    )


def adapt(probe: Definition, syntax: Syntax, btf: Btf | None) -> Definition | None:
    """The probe in the words of a kernel.

    Args:
        probe: The probe as the recipe has it.
        syntax: What the kernel understands.
        btf: Its types; needed only without arguments by name.

    Returns:
        None: the kernel lacks what an optional probe is about.

    Raises:
        UsageError: The kernel lacks what a needed probe is about.
    """
    match = _DEFINITION.fullmatch(probe.text)
    assert match is not None
    rest = match["rest"]
    if not syntax.names and rest:
        try:
            rest = "".join(f" {_by_number(each, probe.function, btf)}" for each in rest.split())
        except LookupError as error:
            if not probe.needed:
                return None
            raise UsageError(
                f"this kernel's BTF does not tell {error.args[0]} of {probe.function}",
                where=probe.text,
                hint="give the BTF of the kernel with --btf FILE; or record with --events stock",
            ) from error
    if syntax.kprobes:
        return Definition(
            probe.function, probe.needed, f"{match['kind']}:{match['name']} {match['function']}{rest}"
        )
    is_return = match["kind"] != "p"
    place = f"{match['function']}%return" if is_return else match["function"]
    return Definition(probe.function, probe.needed, f"f{match['depth'] or ''}:{match['name']} {place}{rest}")


def _by_number(field: str, function: str, btf: Btf | None) -> str:
    """``name=vma->vm_mm`` as ``name=+16($arg2):x64``; a field that names no argument stays as it is.

    Raises:
        LookupError: With what the BTF does not have.
    """
    name, _, value = field.partition("=")
    match = _BY_NAME.fullmatch(value)
    if match is None:
        return field
    found = None if btf is None else btf.parameter(function, match["argument"])
    if btf is None or found is None:
        raise LookupError(f"argument {match['argument']}")
    place, type_id = found
    fetch, offset = f"$arg{place}", 0
    steps = re.findall(r"(->|\.)(\w+)", match["path"])
    for number, (how, member) in enumerate(steps):
        if how == "->":
            if number:
                fetch, offset = f"+{offset}({fetch})", 0
            target = btf.pointed_to(type_id)
            if target is None:
                raise LookupError(f"{value} as a pointer")
            type_id = target
        step = btf.field(type_id, member)
        if step is None:
            raise LookupError(f"field {member}")
        offset, type_id = offset + step.offset, step.type_id
    if steps:
        fetch = f"+{offset}({fetch})"
    fetch_type = match["type"] or f":{btf.fetch_type(type_id)}"
    if fetch_type == ":None":
        raise LookupError(f"{value} as a number")
    return f"{name}={fetch}{fetch_type}"
