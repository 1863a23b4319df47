"""The text documents: what is printed, the same numbers everywhere, limits that hold for any input."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_tables import ANON_VMA, QUALITY, SPLIT_NS, SUMMARY, sample_tables, summary_row, table

from replay.pipeline import analyze
from reports import figures_of, json_summary, render_markdown, render_page, render_text

if TYPE_CHECKING:
    import pyarrow as pa

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "captures" / "samples"
LOSSY = HERE / "data" / "tracedat" / "lost_events.dat"
TABLE = """\
                       Skip_mm_mismatch
          Skip_addr_out_of_range      |
       Nr_iteration_total      |      |
strategy   Time_ms      |      |      |  found missed  evidence
observed    34.600   2000   1999      0      -      -  observed
full        34.710   2000   1999      0     64      0  replayed
addr         0.012      1      0      0     64      0  replayed
vm_pgoff     0.012      1      1      0     34     30  replayed
linear       0.012      1      0      0     64      0  replayed
"""

HOSTILE = "</script><b>\x1b[2J\u202e\n|*_`é"


def without_waits() -> dict[str, pa.Table]:
    tables = sample_tables()
    return tables | {"wait": tables["wait"].slice(0, 0)}


class Cells(HTMLParser):
    """The cells of the first table of a page, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tables = 0
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        if self.tables == 1 and tag == "tr":
            self.rows.append([])
        self.inside = self.tables == 1 and tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1].append(data)


def expected_cells(strategy: str) -> list[str]:
    time, iterations, addr, mm, _, found, missed = SUMMARY[strategy]
    return [f"{time:.3f}", *("-" if n is None else str(n) for n in (iterations, addr, mm, found, missed))]


def test_text_holds_the_table_of_the_patch_series() -> None:
    assert TABLE in render_text(sample_tables())


def test_text_says_where_the_numbers_come_from_and_what_limits_them() -> None:
    text = render_text(sample_tables(), report="out/report.html")
    for line in (
        "sha256  " + "ab" * 32,
        "kernel  6.12.107+deb13-amd64 x86_64, 2 cpus, runs full, vm1",
        "events  123,456 in 5.000 s, 0 lost, clock mono, replay 0.1.0",
        "Time_ms of row observed is measured.",
        "replayed: computed from the recorded changes of the interval trees.",
        "  vm_pgoff: 30 by mprotect, which split the VMA after the merge",
        "  warning: lost_events (12, cpu 0-1): Trees may lack changes.",
        "  info: censored_avc (3): Three intervals were there before.",
    ):
        assert f"\n{line}\n" in text
    assert text.index("warning: lost_events") < text.index("info: censored_avc")
    assert text.endswith("\nFull report: out/report.html\n")


def test_verdict_names_the_longest_loops_and_what_is_missed() -> None:
    verdict = json.loads(json_summary(sample_tables()))["verdict"]
    assert verdict == [
        "vm_pgoff would miss 30 of 64 mappings; first cause: mprotect at 2.000 s by pid 123.",
        "full, addr and linear would miss none.",
        "Most iterations in one inner loop: full 2,000; addr, vm_pgoff and linear 1.",
        "3 waits to change an anon_vma family's trees lost 35.000 ms, 71.4 % of it while a walk of that "
        "family ran; the longest took 20.000 ms.",
    ]


def test_a_strategy_that_the_kernel_runs_misses_and_the_others_would_miss() -> None:
    tables = sample_tables(capture={"native_strategy": "vm_pgoff"})
    assert json.loads(json_summary(tables))["verdict"][0].startswith("vm_pgoff misses 30 of 64 mappings;")


def test_verdict_claims_nothing_that_is_not_known() -> None:
    tables = without_waits() | {
        "summary": table(
            "summary",
            [
                summary_row("full", None, None, None, None, None, 64, 0),
                summary_row("linear", None, None, None, None, None, None, None),
            ],
        )
    }
    assert json.loads(json_summary(tables))["verdict"] == [
        "full would miss none.",
        "What linear would miss is not known.",
    ]


def test_verdict_tells_missing_none_from_not_knowing_about_some() -> None:
    rows = [
        summary_row("full", None, 1, 0, 0, 1, 4532, 0),
        summary_row("vm_pgoff", None, 1, 0, 0, 1, 944, 3308),
        summary_row("linear", None, 1, 0, 0, 1, 4252, 0),
    ]
    tables = without_waits() | {"summary": table("summary", rows)}
    assert json.loads(json_summary(tables))["verdict"][:-1] == [
        "vm_pgoff would miss 3,308 of 4,252 mappings; of 280 more it is not known; "
        "first cause: mprotect at 2.000 s by pid 123.",
        "linear would miss none of 4,252 mappings; of 280 more it is not known.",
        "full would miss none.",
    ]


def test_a_capture_without_walks_is_not_called_free_of_misses() -> None:
    row = summary_row("full", None, None, None, None, None, 0, 0) | {"walks": 0, "loops": 0}
    tables = sample_tables() | {"summary": table("summary", [row])}
    assert "holds no walk of rmap_walk_ksm()" in render_text(tables)
    assert "miss" not in render_text(tables).split("\n\n")[1]


@pytest.mark.parametrize("strategy", SUMMARY)
def test_all_documents_print_the_same_numbers(strategy: str) -> None:
    tables = sample_tables()
    text = next(line for line in render_text(tables).splitlines() if re.match(rf"{strategy} +[\d-]", line))
    assert text.split()[1:7] == expected_cells(strategy)
    markdown = next(
        line for line in render_markdown(tables).splitlines() if line.startswith(f"| {strategy} |")
    )
    assert [cell.strip() for cell in markdown.split("|")][2:8] == expected_cells(strategy)
    parser = Cells()
    parser.feed(render_page(tables))
    shown = next(row for row in parser.rows if row[0] == strategy)[1:7]
    assert [cell.replace(",", "") for cell in shown] == expected_cells(strategy)
    row = next(row for row in json.loads(json_summary(tables))["summary"] if row["strategy"] == strategy)
    names = ("time_ms_max", "iterations_max", "skip_addr_out_of_range_max", "skip_mm_mismatch_max")
    assert tuple(row[name] for name in (*names, "iterations_total", "found", "missed")) == SUMMARY[strategy]


def test_full_names_head_the_markdown_and_the_html_table() -> None:
    names = ["Time_ms", "Nr_iteration_total", "Skip_addr_out_of_range", "Skip_mm_mismatch", "found", "missed"]
    header = next(
        line for line in render_markdown(sample_tables()).splitlines() if line.startswith("| strategy")
    )
    assert [cell.strip() for cell in header.split("|")][2:8] == names
    parser = Cells()
    parser.feed(render_page(sample_tables()))
    assert parser.rows[0][1:7] == names


def test_text_keeps_its_limits_for_the_worst_input() -> None:
    quality = [
        {"kind": f"kind{n}", "cpu": n, "count": 10**15, "severity": "warning", "effect": "Word " * 200}
        for n in range(500)
    ]
    names = tuple(f"{'x' * 90}{n}" for n in range(100))
    tables = sample_tables(custom=names, capture={"path": "p" * 5000 + HOSTILE, "hostname": "h" * 64})
    big = 10**8 - 1
    summary = [summary_row(name, 99999.999, big, big, big, big, 10**7, 10**7) for name in ("full", *names)]
    misses = tables["miss"].to_pylist()
    misses = [row | {"strategy": name, "cause_event": "c" * 300} for row in misses[:5] for name in names]
    tables |= {
        "summary": table("summary", summary),
        "quality": table("quality", quality),
        "miss": table("miss", misses),
    }
    text = render_text(tables, report="r" * 4000)
    assert max(map(len, text.splitlines())) <= 72
    assert len(text) < 4096
    assert text.isascii()
    assert "\t" not in text


def test_what_was_left_out_is_said() -> None:
    quality = [{"kind": f"kind{n}", "count": 1, "severity": "info", "effect": "None."} for n in range(200)]
    text = render_text(sample_tables() | {"quality": table("quality", quality)})
    shown = text.count("info: kind")
    assert shown > 40
    assert f"({200 - shown} more in report.html#quality)" in text
    assert 3800 < len(text) < 4096


def test_no_control_or_direction_character_leaves_the_capture() -> None:
    tables = sample_tables(comm=HOSTILE, capture={"path": HOSTILE, "kernel_release": HOSTILE})
    for document in (render_text(tables), render_markdown(tables), render_page(tables)):
        assert "\x1b" not in document
        assert "\u202e" not in document
    assert "</script><b>\\x1b[2J\\u202e" in render_text(tables)


def test_markdown_escapes_what_it_would_act_on() -> None:
    markdown = render_markdown(sample_tables(capture={"path": "a|b <img src=x> [x](y) *z* `c`"}))
    assert r"a\|b &lt;img src=x&gt; \[x\](y) \*z\* \`c\`" in markdown
    assert "<img" not in markdown


def test_quality_rows_that_say_the_same_are_counted_together_but_never_guessed() -> None:
    unknown = [*QUALITY, QUALITY[1] | {"cpu": 5, "count": None}]
    quality = json.loads(json_summary(sample_tables() | {"quality": table("quality", unknown)}))["quality"]
    lost = next(note for note in quality if note["kind"] == "lost_events")
    assert lost["rows"] == 3
    assert lost["cpus"] == [0, 1, 5]
    assert lost["count"] is None


def test_quality_rows_that_differ_in_numbers_take_one_line() -> None:
    rows = [
        QUALITY[1] | {"cpu": 1, "count": n, "effect": f"{n} events of cpu 1 were lost."} for n in range(3, 9)
    ]
    text = render_text(sample_tables() | {"quality": table("quality", rows)})
    line = "warning: lost_events (33, cpu 1): 3 events of cpu 1 were lost. (first of 6 such rows)"
    assert line in text.replace("\n    ", " ")
    assert text.count("were lost") == 1


def test_events_lost_without_a_number_are_not_zero() -> None:
    text = render_text(sample_tables(capture={"events_lost": None}))
    assert ", lost: unknown, " in text
    assert " 0 lost" not in text


def test_documents_are_the_same_for_the_same_tables() -> None:
    for render in (render_text, render_markdown, json_summary, render_page):
        assert render(sample_tables()) == render(sample_tables())


def test_json_refuses_numbers_that_are_none() -> None:
    tables = sample_tables() | {
        "summary": table("summary", [summary_row("full", float("nan"), 1, 0, 0, 1, 1, 0)])
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_summary(tables)


def test_times_are_only_explained_where_there_are_times() -> None:
    rows = [summary_row("full", None, 1, 0, 0, 1, 1, 0), summary_row("linear", None, 1, 0, 0, 1, 1, 0)]
    assert "is a fit to the durations" in render_markdown(sample_tables())
    untimed = render_markdown(sample_tables() | {"summary": table("summary", rows)})
    assert "is a fit" not in untimed
    assert "is measured" not in untimed


@pytest.mark.parametrize(
    ("rows", "unknown", "told"),
    [
        (("observed", "full", "linear"), (), "The 10 walks with most iterations in row observed."),
        (("observed", "full", "linear"), ("observed",), "The 10 walks with most iterations in row full."),
        (("linear",), (), "The 10 walks with most iterations in row linear."),
        (("observed", "full"), ("observed", "full"), "The 10 walks with the longest time."),
        ((), (), "The capture holds no walk."),
    ],
)
def test_longest_walks_come_from_the_best_row_there_is(
    rows: tuple[str, ...], unknown: tuple[str, ...], told: str
) -> None:
    tables = sample_tables()
    walks = [row for row in tables["walk"].to_pylist() if row["strategy"] in rows]
    walks = [row | {"iterations_total": None} if row["strategy"] in unknown else row for row in walks]
    page = render_page(tables | {"walk": table("walk", walks)})
    assert told in page


def test_a_cause_that_is_not_known_is_said_to_be_unknown() -> None:
    misses = [row | {"cause_event": None, "cause_kind": None} for row in sample_tables()["miss"].to_pylist()]
    text = render_text(sample_tables() | {"miss": table("miss", misses)})
    assert "\n  vm_pgoff: 30, cause not known\n" in text


def test_finding_nothing_is_not_missing_nothing() -> None:
    rows = [summary_row("full", None, 1, 0, 0, 1, 0, 0), summary_row("linear", None, 1, 0, 0, 1, 0, 0)]
    verdict = json.loads(json_summary(without_waits() | {"summary": table("summary", rows)}))["verdict"]
    assert verdict[:-1] == ["No walk finds a mapping, under any strategy."]


def test_text_names_the_worst_walks() -> None:
    text = render_text(sample_tables())
    assert (
        "\nWorst walks (most iterations, row observed):\n  walk 8 at 3.000 s, pid 123 ksmload, try_to" in text
    )
    assert "8,000 iterations in 4 loops, took 34.600 ms" in " ".join(text.split())


def test_walks_that_have_only_bounds_are_counted_and_told() -> None:
    """One walk of the sample gets bounds under addr in place of its count, another loses all counts."""
    tables = sample_tables()
    walks = [
        row | {"mappings_missed": 0, "iterations_total": row["iterations_total"] or 1}
        for row in tables["walk"].to_pylist()
    ]
    first, second, *rest = sorted({row["walk_id"] for row in walks if row["strategy"] != "observed"})
    for row in walks:
        if row["walk_id"] == first and row["strategy"] == "full":
            row |= {"iterations_total": None, "iterations_total_least": 70_000, "mappings_missed": None}
            row |= {"iterations_total_most": 90_000, "loops": None}
        if row["walk_id"] == second and row["strategy"] != "observed":
            row |= {"iterations_total": None}
    shown = [row for row in walks if row["strategy"] != "observed"]
    told = tables | {"walk": table("walk", shown)}
    counted = json.loads(json_summary(told))["walks"]
    assert counted == {"counted": len(rest), "bounded": 1, "unknown": 1, "missed_known": len(rest) + 1}
    text = " ".join(render_text(told).split())
    known = f"counts are known of {len(rest)}, bounds of 1, nothing of 1"
    assert f"Of {len(rest) + 2} walks, {known}; what would be missed, of {len(rest) + 1}." in text
    assert f"walk {first} at" in text.partition("Worst walks")[2].partition(";")[0]
    assert "70000..90000 iterations," in text.partition("Worst walks")[2]


def test_digits_count_the_loops_of_each_power_of_two() -> None:
    lines = render_text(sample_tables()).splitlines()
    plot = lines[lines.index("Inner loops by iterations:") + 1 :]
    # 32 loops of 1 iteration and 32 of 2,000 (1,024 to 2,047); linear: 64 loops of 1
    assert plot[1].split() == ["full", ".", "2", *"." * 9, "2"]
    assert plot[4].split() == ["linear", ".", "2", *"." * 10]
    assert plot[5] == "  columns: no iteration, then 1, 2-3, 4-7, ... up to 2,047"


def test_a_first_cause_is_the_earliest_that_is_known() -> None:
    misses = sample_tables()["miss"].to_pylist()
    misses[0] |= {"cause_event": None, "cause_ts_ns": None, "cause_pid": None}
    misses[1] |= {"cause_event": "mremap", "cause_ts_ns": misses[1]["walk_id"], "cause_pid": 7}
    text = render_text(sample_tables(capture={"first_ts_ns": 0}) | {"miss": table("miss", misses)})
    assert "first cause: mremap at 0.000 s by pid 7." in " ".join(text.split())


def audited() -> dict[str, pa.Table]:
    """The split audit of the made-up capture: mprotect made 1,999 of the 2,000 VMAs of the tree."""
    site = {"tree_id": 0, "sites": 1, "inserted": 0, "removed": 0, "most_by_call": 2, "evidence": "exact"}
    times = {"first_ts_ns": 1, "last_ts_ns": 2}
    tree = {"tree_id": 0, "anon_vma": ANON_VMA, "root": ANON_VMA, "before": 1, "peak": 2000, "at_end": 2000}
    tree |= {"inserted": 3998, "removed": 1999, "mms": 1, "evidence": "exact"}
    who = {"cause_event": "mprotect", "arguments": "PROT_READ", "pid": 123, "comm": HOSTILE}
    return sample_tables() | {
        "tree": table("tree", [tree]),
        "split": table("split", [site | times | who | {"calls": 1000, "vmas": 1999, "vmas_to_peak": 1999}]),
        "population": table(
            "population",
            [
                {"tree_id": 0, "cause_event": "mprotect", "ts_ns": SPLIT_NS + n * 1000, "vmas": n}
                for n in range(2000)
            ],
        ),
        "refusal": table(
            "refusal",
            [
                who
                | {"kind": "neighbours", "tree_id": 0, "reasons": "flags", "vm_flags": 2, "merges": 1999}
                | {"evidence": "exact"}
            ],
        ),
    }


def test_the_split_audit_is_in_every_document_with_the_same_numbers() -> None:
    tables = audited()
    text = " ".join(render_text(tables).split())
    said = (
        f"2,000 VMAs at once on the largest tree, of anon_vma {ANON_VMA:#x}: 1,999 made by mprotect PROT_READ"
    )
    assert said in text
    assert "1,999 pairs of neighbours are not one VMA, made by mprotect: flags (WRITE)" in text
    splits = json.loads(json_summary(tables))["sections"]["splits"]
    assert splits["split_sites"][0]["vmas_to_peak"] == 1999
    assert splits["refusals"][0]["merges"] == 1999
    assert "</script><b>" not in render_page(tables)
    assert "1,999" in render_page(tables)
    drawn = figures_of(tables)["splits"]
    assert max(drawn.spec["data"][0]["y"]) == 1999
    assert len(drawn.spec["data"][0]["x"]) < 400
    assert said in drawn.finding


class Tables(HTMLParser):
    """The cells of all tables of a page, table by table."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.inside = True
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def test_every_number_of_the_json_is_in_the_page_and_in_the_markdown() -> None:
    tables = audited()
    document = json.loads(json_summary(tables))
    parser = Tables()
    parser.feed(render_page(tables))
    shown = {tuple(cell.strip().replace(",", "") for cell in row) for each in parser.tables for row in each}
    listed = {
        tuple(cell.strip().replace(",", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in render_markdown(tables).splitlines()
        if line.startswith("| ")
    }
    rows = 0
    for section, content in document["sections"].items():
        for name, values in content.items():
            for row in values if name != "sentences" else []:
                numbers = [n for n in row.values() if isinstance(n, int) and not isinstance(n, bool)]
                forms = [{str(n), f"{n / 1e6:.3f}", f"{n / 1e9:.6f}"} for n in numbers]
                where = [shown] if section in ("strategies", "provenance") else [shown, listed]
                for written in where:
                    assert any(all(form & set(cells) for form in forms) for cells in written), (name, row)
                rows += 1
    assert rows > 60


@pytest.mark.parametrize("capture", [*sorted(SAMPLES.glob("*.dat")), LOSSY], ids=lambda path: path.name)
def test_the_text_of_a_real_capture_fits_one_mail(capture: Path) -> None:
    tables = analyze(capture).tables
    text = render_text(tables, report="report.html")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 72
    assert text.isascii()
    assert len(text) < 4096
    assert [line.split()[0] for line in lines[1:5]] == ["capture", "sha256", "kernel", "events"]
    assert lines[5] == ""
    assert text == render_text(tables, report="report.html")
    assert len(render_page(tables).encode()) < 2_000_000
