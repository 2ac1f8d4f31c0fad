"""Rollups in PostgreSQL: sums over documents, updated by what each document adds and takes off."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.projection import Contribution, IndexEntry, Rollup

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

RESET_SECONDS = 600.0  # to remove a whole read model


class RollupTable:
    """The lines of one generation in the table that has the rollup's name, and their fields as columns."""

    def __init__(self, rollup: Rollup, generation: int) -> None:
        self._rollup = rollup
        self._generation = generation
        key = ("generation", *rollup.key)
        self._added = ", ".join(f"{name} = kept.{name} + excluded.{name}" for name in rollup.amounts)
        self._key = ", ".join(key)
        this = " and ".join(f"kept.{name} = line.{name}" for name in key)
        self._remove = (
            f"delete from {rollup.name} kept using json_populate_record(null::{rollup.name}, $1) line"  # noqa: S608
            f" where {this} and kept.{rollup.amounts[0]} = 0"
        )
        self._clear = f"delete from {rollup.name} where generation = $1"  # noqa: S608

    def add(self, parameter: int, condition: str) -> str:
        """The statement that adds lines, given as JSON in that parameter, where `condition` has a row."""
        # As JSON, so that the table itself says what type each column has. Names are our own constants.
        return (
            f"insert into {self._rollup.name} as kept select line.* from {condition},"  # noqa: S608
            f" json_populate_recordset(null::{self._rollup.name}, ${parameter}) line"
            f" on conflict ({self._key}) do update set {self._added}"
        )

    def lines(self, removed: Sequence[IndexEntry], added: Sequence[IndexEntry]) -> list[dict[str, Any]]:
        """What is to be added: in the same order everywhere, by key. Lines that stay as they are are not touched."""
        lines: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(self._rollup.amounts))
        for sign, places in ((-1, removed), (1, added)):
            for place in places:
                assert isinstance(place, Contribution)
                line = lines[place.key]
                for nr, amount in enumerate(place.amounts):
                    line[nr] += sign * amount
        return [self._line(key, amounts) for key, amounts in sorted(lines.items()) if any(amounts)]

    def _line(self, key: tuple[str, ...], amounts: list[int]) -> dict[str, Any]:
        rollup = self._rollup
        return {
            "generation": self._generation,
            **dict(zip(rollup.key, key, strict=True)),
            **dict(zip(rollup.amounts, amounts, strict=True)),
        }

    def shrinking(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that count fewer documents, and perhaps none any more."""
        return [line for line in lines if line[self._rollup.amounts[0]] < 0]

    async def remove_empty(self, connection: Connection, lines: Sequence[dict[str, Any]]) -> None:
        """Of those lines the ones that count no document."""
        # Line by line: for all at once PostgreSQL reads the whole table.
        await connection.executemany(self._remove, [(json.dumps(line),) for line in lines])

    async def clear(self, connection: Connection) -> None:
        await connection.execute(self._clear, self._generation, timeout=RESET_SECONDS)
