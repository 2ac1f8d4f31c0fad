"""Runs of `orders import`, and what they leave."""

from __future__ import annotations

import asyncio
import csv
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.orders_command import invoke_orders, start_orders, wait_for_end

SAMPLE = Path(__file__).parent / "data" / "online_retail_sample.csv.gz"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


@dataclass
class Run:
    """How one run of the command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> tuple[int, int, int]:
        """(accepted, rejected, already there), which must be the last line."""
        match = re.fullmatch(r"accepted (\d+), rejected (\d+), already there (\d+)", self.stdout.splitlines()[-1])
        assert match
        accepted, rejected, already_there = map(int, match.groups())
        return accepted, rejected, already_there


def start_import(cwd: Path, file: Path, url: str, *options: str) -> subprocess.Popen[str]:
    return start_orders("import", str(file), "--command-url", url, *options, cwd=cwd)


async def finish(process: subprocess.Popen[str]) -> Run:
    ended = await asyncio.to_thread(wait_for_end, process)
    return Run(ended.returncode, ended.stdout, ended.stderr)


async def orders_import(cwd: Path, file: Path, url: str, *options: str) -> Run:
    arguments = "import", str(file), "--command-url", url, *options
    ended = await asyncio.to_thread(invoke_orders, *arguments, cwd=cwd)
    return Run(ended.returncode, ended.stdout, ended.stderr)


def read_rejects(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


async def all_pages(queries: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    orders: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = await queries.get(path, params={"limit": 100, **({"cursor": cursor} if cursor else {})})
        answer.raise_for_status()
        page = answer.json()
        orders += page["orders"]
        cursor = page["next_cursor"]
        if cursor is None:
            return orders
