"""What commands that read much take: they hold a part of it at a time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg
import pytest

from cli.importer.rows import COLUMNS
from tests.faults.shop import Shop
from tests.faults.test_memory import highest, record
from tests.orders_command import environment
from tests.roles import url_of

MIB = 2**20
COMMAND_MIB = 200
ROWS = 160_000

pytestmark = pytest.mark.timeout(300)


async def peak_of(*arguments: str, **added: str) -> float:
    """The most MiB that a program in Python takes; what it prints is dropped."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", *arguments),
        env=environment(**added),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    watching = asyncio.create_task(highest(process))
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return await watching


@pytest.mark.promise("memory", "Commands that show, verify or export the largest orders hold a part at a time")
async def test_the_largest_orders_are_shown_verified_and_exported(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await record(connection, 40, changes=20)
    auditor = {"DATABASE_URL": url_of(shop.servers.database_url, "orders_auditor")}
    for arguments in (
        ("replay", "0"),
        ("replay", "0", "--json"),
        ("audit", "verify"),
        ("audit", "export"),
    ):
        peak = await peak_of("-m", "cli", *arguments, **auditor)
        sys.stdout.write(f"orders {' '.join(arguments)}: {peak:.0f} MiB\n")
        assert peak < COMMAND_MIB, arguments


@pytest.mark.promise("memory", "An import takes a few times the bytes of its file, which are bounded")
async def test_an_import_takes_a_few_times_the_bytes_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "invoices.csv"
    with file.open("w") as table:
        table.write(",".join(COLUMNS) + "\n")
        for number in range(ROWS):
            what = f"WHITE HANGING HEART T-LIGHT HOLDER {number}"
            table.write(f"{536_365 + number // 20},85123A{number % 4_000},{what},6,12/1/2010 8:26,2.55,17850,France\n")
    program = "import sys; from pathlib import Path; from cli.importer import online_retail as module; "
    idle = await peak_of("-c", program)
    invoices = "found = module.read_invoices(Path(sys.argv[1]), 'mdy'); assert not found.rejects"
    peak = await peak_of("-c", program + invoices, str(file))
    times = (peak - idle) * MIB / file.stat().st_size
    sys.stdout.write(f"import: {times:.1f} times the file\n")
    assert times < 7
