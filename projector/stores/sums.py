"""Sums in PostgreSQL: what documents add up to, kept by what each adds and takes off."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.projection import Place, Share, Sums

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

RESET_SECONDS = 600.0  # to remove a whole read model


class SumsTable:
    """The lines of one generation in the table that has the sums' name, and their fields as columns."""

    def __init__(self, sums: Sums, generation: int) -> None:
        self._sums = sums
        self._generation = generation
        key = ", ".join(("generation", *sums.key))
        added = ", ".join(f"{name} = kept.{name} + excluded.{name}" for name in sums.amounts)
        # The rows come as JSON, so that the table itself says what type each column has. Names are our own constants.
        rows = f"json_populate_recordset(null::{sums.name}, $1)"
        empty = f"{sums.amounts[0]} = 0"
        self._add = (
            f"with changed as (insert into {sums.name} as kept select * from {rows}"  # noqa: S608
            f" on conflict ({key}) do update set {added} returning *) select {key} from changed where {empty}"
        )
        this = " and ".join(f"{name} = ${nr}" for nr, name in enumerate(("generation", *sums.key), start=1))
        self._remove = f"delete from {sums.name} where {this} and {empty}"  # noqa: S608
        self._clear = f"delete from {sums.name} where generation = $1"  # noqa: S608

    async def add(self, connection: Connection, removed: Sequence[Place], added: Sequence[Place]) -> None:
        lines: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(self._sums.amounts))
        for sign, places in ((-1, removed), (1, added)):
            for place in places:
                assert isinstance(place, Share)
                line = lines[place.key]
                for nr, amount in enumerate(place.amounts):
                    line[nr] += sign * amount
        # In the same order everywhere, by key. Lines that stay as they are are not touched.
        rows = json.dumps([self._row(key, amounts) for key, amounts in sorted(lines.items()) if any(amounts)])
        # Line by line, because few are empty: for all at once PostgreSQL reads the whole table.
        if empty := await connection.fetch(self._add, rows):
            await connection.executemany(self._remove, [tuple(line) for line in empty])

    def _row(self, key: tuple[str, ...], amounts: list[int]) -> dict[str, Any]:
        sums = self._sums
        return {
            "generation": self._generation,
            **dict(zip(sums.key, key, strict=True)),
            **dict(zip(sums.amounts, amounts, strict=True)),
        }

    async def clear(self, connection: Connection) -> None:
        await connection.execute(self._clear, self._generation, timeout=RESET_SECONDS)
