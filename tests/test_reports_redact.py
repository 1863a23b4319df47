"""What leaves the house: nothing that was to be redacted is in any document, and the story is the same."""

from __future__ import annotations

import io
import json
import zipfile
from hashlib import sha256

import pytest
from report_tables import ANON_VMA, QUALITY, sample_tables, table

from reports import json_summary, render_markdown, render_page, render_text
from reports.bundle import make_bundle, where_it_fits
from reports.redact import KINDS, kinds_of, redact
from schemas.errors import UsageError

SECRETS = {"comm": "payrolld", "path": "/home/alice/secret.dat", "host": "db7.example"}


def secret_tables() -> dict[str, object]:
    note = QUALITY[0] | {"effect": "payrolld of db7.example in /home/alice/secret.dat was busy."}
    tables = sample_tables(
        comm=SECRETS["comm"],
        capture={"path": SECRETS["path"], "hostname": SECRETS["host"], "tool": "run on db7.example"},
    )
    return tables | {"quality": table("quality", [note])}


def documents(tables: dict[str, object]) -> str:
    rows = json.dumps({name: each.to_pylist() for name, each in tables.items()})
    return "".join(
        [rows, render_text(tables), render_markdown(tables), render_page(tables), json_summary(tables)]
    )


def test_nothing_redacted_is_left_anywhere() -> None:
    before, after = documents(secret_tables()), documents(redact(secret_tables(), KINDS))
    for secret in (*SECRETS.values(), f"{ANON_VMA:#x}", str(ANON_VMA)):
        assert secret in before
        assert secret not in after


@pytest.mark.parametrize("kind", SECRETS)
def test_only_what_is_asked_for_is_redacted(kind: str) -> None:
    after = documents(redact(secret_tables(), (kind,)))
    assert {other for other, secret in SECRETS.items() if secret not in after} == {kind}
    assert f"{ANON_VMA:#x}" in after


def test_aliases_are_stable_across_tables() -> None:
    before, after = secret_tables(), redact(secret_tables(), KINDS)
    alias = {}
    for name in ("loop", "avc", "rmap_item", "miss"):
        for column in ("anon_vma", "mm", "rmap_item"):
            if column in before[name].column_names:
                pairs = zip(before[name][column].to_pylist(), after[name][column].to_pylist(), strict=True)
                for old, new in pairs:
                    assert alias.setdefault(old, new) == new
    assert alias.pop(None, None) is None
    assert len(set(alias.values())) == len(alias)
    assert max(alias.values()) < 10_000


def test_the_report_says_so_and_tells_the_same() -> None:
    text = render_text(redact(secret_tables(), ("comm", "ptr")))
    assert "redacted: Replaced by aliases: names of tasks, kernel addresses." in " ".join(text.split())
    before, after = (
        json.loads(json_summary(each)) for each in (secret_tables(), redact(secret_tables(), KINDS))
    )
    assert before["verdict"] == after["verdict"]
    assert before["summary"] == after["summary"]


def test_kinds_are_names_or_all() -> None:
    assert kinds_of("all") == KINDS
    assert kinds_of("ptr,comm") == ("comm", "ptr")
    with pytest.raises(UsageError, match="nothing to redact is named 'pid'"):
        kinds_of("comm,pid")


def test_a_bundle_holds_all_documents_and_their_hashes() -> None:
    packed = make_bundle(sample_tables())
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        assert {entry["name"] for entry in manifest["files"]} == set(archive.namelist()) - {"manifest.json"}
        for entry in manifest["files"]:
            content = archive.read(entry["name"])
            assert (len(content), sha256(content).hexdigest()) == (entry["size_bytes"], entry["sha256"])
        assert archive.read("report.md").decode() == render_markdown(sample_tables())
    assert packed == make_bundle(sample_tables())


def test_where_a_bundle_fits() -> None:
    assert "fits a GitHub issue and a gitlab.com issue" in where_it_fits(25 * 2**20)
    assert "fits a gitlab.com issue;" in where_it_fits(25 * 2**20 + 1)
    assert "too big" in where_it_fits(101 * 2**20)
