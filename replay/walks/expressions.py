"""Lookups of the user: a small language of arithmetic over what is known of a page at its merge.

    mine=address_page - 1
    window=linear_page_index - 16 .. linear_page_index + 16
    mixed=where(vm_pgoff == vm_start_page, address_page, linear_page_index)

The text is parsed by Python's own parser and only the listed kinds of nodes are accepted; nothing is
evaluated. Arithmetic is the kernel's: unsigned long, wrapping at 2**64.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NoReturn

import polars as pl

from replay.strategies import ULONG_MAX, Strategy
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS: Final = {
    "address_page": "rmap_item->address >> PAGE_SHIFT",
    "vm_start_page": "vma->vm_start >> PAGE_SHIFT at the merge",
    "vm_end_page": "vma->vm_end >> PAGE_SHIFT at the merge (exclusive)",
    "vm_pgoff": "vma->vm_pgoff at the merge",
    "linear_page_index": "page offset of the page at the merge",
}
"""Names that an expression may use: all uint64, in pages; null where the capture does not tell."""

MAX_LENGTH: Final = 1000
"""Most characters of one expression: nesting, and with it Python's stack, stays bounded."""

_WIDE: Final = pl.Int128

_BINARY: Final[dict[type[ast.operator], Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: pl.when(b != 0).then(a // b),
    ast.Mod: lambda a, b: pl.when(b != 0).then(a % b),
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}


def parse_strategy(text: str) -> Strategy:
    """The strategy that ``NAME=EXPR`` or ``NAME=FIRST..LAST`` describes.

    Raises:
        UsageError: It is not of that form, or the expression is not of this language; a caret under the
            text shows the place.
    """
    name, _, body = text.partition("=")
    name = name.strip()
    if not (name.isidentifier() and name.isascii()) or not body.strip():
        raise UsageError(
            f"{text!r} is no strategy",
            where="--strategy",
            hint="give the name of one, or NAME=EXPR, or NAME=FIRST..LAST",
        )
    if len(body) > MAX_LENGTH:
        raise UsageError(
            f"the expression of strategy {name} is too long",
            where=f"--strategy, {len(body)} characters",
            hint=f"use at most {MAX_LENGTH}",
        )
    first, dots, last = body.partition("..")
    ends = [_Parser(first).expression]
    if dots:
        ends.append(_Parser(last).expression)
    return Strategy(name, ends[0], ends[-1], body.strip())


class _Parser:
    """One expression: its text, and the polars expression that it means."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        try:
            tree = ast.parse(self.text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            column = error.offset if isinstance(error, SyntaxError) else None
            self._fail("this is no expression", (column or 1) - 1)
        self.expression = (self._number(tree.body) & ULONG_MAX).cast(pl.UInt64)

    def _number(self, node: ast.expr) -> pl.Expr:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            if not 0 <= node.value <= ULONG_MAX:
                self._fail("a number must fit in 64 bits", node.col_offset)
            return pl.lit(node.value, _WIDE)
        if isinstance(node, ast.Name):
            return self._column(node.id, node)
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.LShift | ast.RShift):
                return self._shift(node)
            if type(node.op) in _BINARY:
                wrapped = _BINARY[type(node.op)](self._number(node.left), self._number(node.right))
                return wrapped & ULONG_MAX
            self._fail(
                "this operator is not known; known are + - * // % << >> & |", node.right.col_offset - 1
            )
        if isinstance(node, ast.Call):
            return self._call(node)
        self._fail(
            "a number, a column, + - * // % << >> & |, min(), max() or where() is needed", node.col_offset
        )

    def _shift(self, node: ast.BinOp) -> pl.Expr:
        by = node.right
        if not (isinstance(by, ast.Constant) and type(by.value) is int and 0 <= by.value < 64):
            self._fail("a shift must be by a number from 0 to 63", by.col_offset)
        factor = pl.lit(1 << by.value, _WIDE)
        shifted = self._number(node.left)
        return (shifted * factor if isinstance(node.op, ast.LShift) else shifted // factor) & ULONG_MAX

    def _call(self, node: ast.Call) -> pl.Expr:
        if isinstance(node.func, ast.Attribute):
            return self._polars_column(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords:
            self._fail("arguments have no names", node.col_offset)
        if name in ("min", "max") and len(node.args) > 1:
            values = [self._number(argument) for argument in node.args]
            known = pl.all_horizontal(value.is_not_null() for value in values)
            of_all = pl.min_horizontal(values) if name == "min" else pl.max_horizontal(values)
            return pl.when(known).then(of_all)
        if name == "where" and len(node.args) == 3:
            condition = self._condition(node.args[0])
            yes, no = (self._number(argument) for argument in node.args[1:])
            return pl.when(condition).then(yes).when(~condition).then(no)
        self._fail("known are min(a, b, ...), max(a, b, ...) and where(condition, a, b)", node.col_offset)

    def _condition(self, node: ast.expr) -> pl.Expr:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return _COMPARE[type(node.ops[0])](self._number(node.left), self._number(node.comparators[0]))
        self._fail("a comparison is needed: a == b, a != b, a < b, a <= b, a > b or a >= b", node.col_offset)

    def _polars_column(self, node: ast.Call) -> pl.Expr:
        """``pl.col("NAME")``, for those who think in polars."""
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="pl"), attr="col"),
                args=[ast.Constant(value=str(name))],
                keywords=[],
            ):
                return self._column(name, node.args[0])
        self._fail('of polars only pl.col("NAME") is known', node.col_offset)

    def _column(self, name: str, node: ast.expr) -> pl.Expr:
        if name not in COLUMNS:
            self._fail(f"no column is called {name!r}; known are {', '.join(COLUMNS)}", node.col_offset)
        return pl.col(name).cast(_WIDE)

    def _fail(self, what: str, column: int) -> NoReturn:
        place = len(self.text.encode()[: max(column, 0)].decode(errors="ignore"))
        raise UsageError(
            what, where=f"--strategy: {self.text}", hint=" " * (len("--strategy: ") + place) + "^"
        )
