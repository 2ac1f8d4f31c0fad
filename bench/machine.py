"""Describes the machine and the versions of a run."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import msgspec
import psutil

from cli.stack.binaries import postgres_binary, valkey_binary

PACKAGES = ("asyncpg", "eventsourcing", "fastapi", "httptools", "msgspec", "pydantic", "redis", "uvicorn", "uvloop")
FLUSHES = 50


class Machine(msgspec.Struct, frozen=True):
    processor: str
    cores: int
    memory_gib: float
    system: str
    filesystem: str
    flush_ms: float  # to write a page and flush it to disk, median
    busy_before: float  # share of all cores in use just before the run
    versions: dict[str, str]


def describe(directory: Path) -> Machine:
    """`directory` is on the disk that the servers use."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        filesystem=_filesystem(directory),
        flush_ms=round(_flush_ms(directory), 3),
        busy_before=psutil.cpu_percent(interval=1.0) / 100,
        versions=_versions(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _filesystem(directory: Path) -> str:
    """Returns its type. On `tmpfs` a flush costs nothing, so figures from it do not include durability."""
    mounts = [m for m in psutil.disk_partitions(all=True) if directory.resolve().is_relative_to(m.mountpoint)]
    return str(max(mounts, key=lambda mount: len(mount.mountpoint)).fstype) if mounts else "unknown"


def _flush_ms(directory: Path) -> float:
    path = directory / "flush"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(8192))
            started = perf_counter()
            os.fsync(file.fileno())
            times.append((perf_counter() - started) * 1_000)
    path.unlink()
    return statistics.median(times)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name, binary in (("postgres", postgres_binary("postgres")), ("valkey", valkey_binary())):
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        versions[name] = next(word.removeprefix("v=") for word in said.split() if word.removeprefix("v=")[0].isdigit())
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # the extra `bench` is not installed
            continue
    return versions
