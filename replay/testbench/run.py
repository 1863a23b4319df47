"""``replay testbench``: workloads that make rmap walks long, as the benchmark of the patch series did.

A scenario maps pages of the same content, has KSM merge them, does to the VMAs what makes anon_vma trees big
or page offsets surprising, and has merged pages migrated before and after it.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from replay.testbench.bench import Bench, BenchOptions
from replay.testbench.ksm import Ksm
from replay.testbench.scenarios import SCENARIOS
from schemas.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType


def run(options: BenchOptions) -> Bench:
    """Run a scenario in this process.

    Raises:
        UsageError: KSM cannot be set up, or does not merge; or the kernel refuses a call.
    """
    _end_in_order()
    if options.pages < 2 * options.contents:
        raise UsageError(
            f"{options.pages} pages of {options.contents} contents: no two are alike",
            where="replay testbench --pages, --contents",
            hint="give at least twice as many pages as contents",
        )
    with Ksm() as ksm:
        bench = Bench(options, ksm)
        if len(bench.nodes) < 2:
            sys.stderr.write(
                "testbench: one NUMA node: pages cannot be migrated to another; DAMON looks at them, or, "
                "where it cannot be used, memory is compacted\n"
            )
        try:
            SCENARIOS[options.scenario](bench)
        except OSError as error:
            raise UsageError(
                f"the kernel refuses: {error.strerror}",
                where=f"scenario {options.scenario}, {options.pages:,} pages",
                hint="run it as root; where vm.max_map_count is too low, raise it or take fewer --pages",
            ) from error
    return bench


def _end_in_order() -> None:
    """Let SIGTERM end the process as Ctrl-C does, so that KSM is set back."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
