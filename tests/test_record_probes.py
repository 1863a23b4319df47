"""Probe definitions for a given kernel: offsets from its BTF are those that its compiler chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from captures.recipes import read_recipe, recipe_path
from replay.record.btf import Btf
from replay.record.options import Profile
from replay.record.probes import MODERN, Definition, Syntax, adapt, definitions, kernel_of
from schemas.errors import UsageError
from tests.fake_machine import KERNELS

BY_NUMBER = Syntax(names=False, kprobes=True)

# Offsets and registers as the disassembly of the two Debian kernels has them.
COMPILED = {
    "6.12": {
        "avc_insert": "avc=$arg1:x64 vma=+0($arg1):x64 anon_vma=+8($arg1):x64 vm_start=+0(+0($arg1)):u64 "
        "vm_end=+8(+0($arg1)):u64 vm_pgoff=+120(+0($arg1)):u64 vm_mm=+16(+0($arg1)):x64 "
        "vm_flags=+32(+0($arg1)):u64 anon_vma_root=+0(+8($arg1)):x64",
        "stable_tree_append": "rmap_item=$arg1:x64 address=+24($arg1):u64 mm=+16($arg1):x64 "
        "anon_vma=+8($arg1):x64 stable_node=$arg2:x64 kpfn=+48($arg2):u64",
        "remove_rmap_item_from_tree": "rmap_item=$arg1:x64 address=+24($arg1):u64 mm=+16($arg1):x64 "
        "anon_vma=+8($arg1):x64 head=+40($arg1):x64",
        "rmap_walk_ksm": "folio=$arg1:x64 mapping=+24($arg1):x64 rmap_one=+16($arg2):symbol "
        "done=+24($arg2):x64 invalid_vma=+40($arg2):x64 try_lock=+8($arg2):u8 mapcount=+48($arg1):s32",
    },
    "7.3": {
        "avc_insert": "avc=$arg1:x64 vma=+0($arg1):x64 anon_vma=$arg2:x64 vm_start=+0(+0($arg1)):u64 "
        "vm_end=+8(+0($arg1)):u64 vm_pgoff=+80(+0($arg1)):u64 vm_mm=+16(+0($arg1)):x64 "
        "vm_flags=+32(+0($arg1)):u64 anon_pgoff_lo=+44(+0($arg1)):u32 anon_pgoff_hi=+132(+0($arg1)):u32 "
        "anon_vma_root=+0($arg2):x64",
        "stable_tree_append": "rmap_item=$arg1:x64 address=+24($arg1):u64 mm=+16($arg1):x64 "
        "anon_vma=+8($arg1):x64 stable_node=$arg2:x64 kpfn=+48($arg2):u64 linear_page_index=+32($arg1):u64",
    },
}


def btf(kernel: str) -> Btf:
    path = KERNELS / kernel / "vmlinux.btf"
    return Btf(path.read_bytes(), path)


def by_name(kernel: str, profile: Profile = Profile.exact) -> dict[str, Definition]:
    return {each.text.split()[0].partition("/")[2]: each for each in definitions(profile, kernel)}


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_a_kernel_is_known_by_its_functions(kernel: str) -> None:
    assert kernel_of(btf(kernel)) == kernel


@pytest.mark.parametrize(("kernel", "event"), [(k, e) for k, events in COMPILED.items() for e in events])
def test_offsets_are_those_of_the_compiled_kernel(kernel: str, event: str) -> None:
    adapted = adapt(by_name(kernel)[event], BY_NUMBER, btf(kernel))
    assert adapted is not None
    assert adapted.text.split(" ", 2)[2] == COMPILED[kernel][event]


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
@pytest.mark.parametrize("profile", [Profile.exact, Profile.truth])
def test_rewriting_keeps_every_event_and_field(kernel: str, profile: Profile, tmp_path: Path) -> None:
    recipes = ["exact", "truth"][: 1 + (profile is Profile.truth)]
    wanted = [probe for each in recipes for probe in read_recipe(recipe_path(each, kernel))]
    adapted = [adapt(each, BY_NUMBER, btf(kernel)) for each in definitions(profile, kernel)]
    path = tmp_path / "rewritten"
    path.write_text("\n".join(each.text for each in adapted if each is not None))
    assert list(read_recipe(path)) == wanted
    assert "->" not in path.read_text()


def test_a_modern_kernel_takes_the_recipe_as_it_is() -> None:
    for kernel in ("6.12", "7.3"):
        assert Syntax.of((KERNELS / kernel / "README").read_text()) == MODERN
        for each in definitions(Profile.truth, kernel):
            assert adapt(each, MODERN, None) == each


def test_without_kprobe_events_it_is_fprobes() -> None:
    fprobes = Syntax(names=True, kprobes=False)
    probes = by_name("6.12")
    assert adapt(probes["remove_node_from_stable_tree"], fprobes, None) == Definition(
        "remove_node_from_stable_tree",
        True,
        "f:ksmprobe/remove_node_from_stable_tree remove_node_from_stable_tree stable_node=stable_node",
    )
    walk_return = adapt(probes["rmap_walk_ksm_ret"], fprobes, None)
    assert walk_return is not None
    assert walk_return.text == "f256:ksmprobe/rmap_walk_ksm_ret rmap_walk_ksm%return"


def test_syntax_is_read_from_the_readme_of_tracefs() -> None:
    text = (KERNELS / "6.12" / "README").read_text()
    assert Syntax.of(text.replace("<argname>[->field", "")) == BY_NUMBER
    fprobes = text.replace("    place: [<module>:]<symbol>", "    other: ")
    assert Syntax.of(fprobes) == Syntax(names=True, kprobes=False)
    # As of a kernel with uprobes only, which takes definitions that begin alike.
    with pytest.raises(UsageError, match="takes no probes on its functions"):
        Syntax.of(fprobes.replace("f[:[<group>/][<event>]] <func-name>", ""))


def test_a_field_that_the_kernel_has_not() -> None:
    needed = Definition("stable_tree_append", True, "p:ksmprobe/x stable_tree_append a=rmap_item->nothing")
    with pytest.raises(UsageError, match="does not tell field nothing of stable_tree_append"):
        adapt(needed, BY_NUMBER, btf("6.12"))
    optional = Definition(needed.function, False, needed.text)
    assert adapt(optional, BY_NUMBER, btf("6.12")) is None
    with pytest.raises(UsageError, match="argument rmap_item"):
        adapt(needed, BY_NUMBER, None)


def test_btf_of_something_else_or_cut_off() -> None:
    whole = (KERNELS / "6.12" / "vmlinux.btf").read_bytes()
    for data in (b"", b"\x7fELF" + bytes(60), whole[:20], whole[: len(whole) // 2], whole[:-10]):
        with pytest.raises(UsageError, match="not the type information"):
            Btf(data, Path("vmlinux"))


def test_a_kernel_without_anon_vma_trees() -> None:
    data = (KERNELS / "6.12" / "vmlinux.btf").read_bytes()
    other = Btf(data.replace(b"anon_vma_interval_tree_insert", b"anon_vma_interval_tree_inserx"), Path("x"))
    with pytest.raises(UsageError, match="no function that puts an anon_vma_chain"):
        kernel_of(other)
