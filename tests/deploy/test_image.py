"""The Dockerfile and what it sends to the builder, held against the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BUILD, FINAL = re.split(r"^FROM ", DOCKERFILE.replace("\\\n", " "), flags=re.MULTILINE)[1:]
COPIED = [source for line in re.findall(r"^COPY (.*)$", BUILD, re.MULTILINE) for source in line.split()[:-1]]


def sent_to_builder(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that fits it, or a folder above it, decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            fits = any(pattern.count("/") == part.count("/") and fnmatch(part, pattern) for part in above)
        if fits:
            sent = wanted
    return sent


def tracked(*suffixes: str) -> set[str]:
    """Source files of the packages that make up the program."""
    packages = ("cli", "command_service", "migrations", "projector", "query_service", "shared")
    files = (file for package in packages for file in (ROOT / package).rglob("*") if file.suffix in suffixes)
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_both_stages_start_from_the_same_python_pinned_to_a_patch_version() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 2
    assert len(set(images)) == 1
    assert re.fullmatch(r"python:3\.13\.\d+-slim-[a-z]+", images[0])


def test_the_lock_is_installed_by_hash_and_the_project_without_asking_for_more() -> None:
    installs = re.findall(r"pip [^&\n]*\binstall\b[^&\n]*", BUILD)
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)
    assert any("-r requirements/runtime.lock" in install for install in installs)
    assert re.search(r"pip wheel [^&\n]*--no-deps [^&\n]*--no-build-isolation", BUILD)
    assert "==" in (ROOT / "requirements/runtime.lock").read_text()
    assert re.search(r"^setuptools==.*\n +--hash=", (ROOT / "requirements/embedded.lock").read_text(), re.MULTILINE)


def test_the_final_image_holds_the_environment_only_and_runs_orders_as_nobody_in_particular() -> None:
    assert not re.search(r"^(RUN|ADD)", FINAL, re.MULTILINE)
    assert re.findall(r"^COPY .*$", FINAL, re.MULTILINE) == ["COPY --from=build /opt/orders /opt/orders"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", FINAL, re.MULTILINE)
    assert FINAL.rstrip().endswith('ENTRYPOINT ["orders"]')


@pytest.mark.parametrize("source", COPIED)
def test_everything_copied_exists_and_is_sent_to_the_builder(source: str) -> None:
    path = ROOT / source
    assert path.exists()
    files = list(path.rglob("*.py")) if path.is_dir() else [path]
    assert files
    assert all(sent_to_builder(file.relative_to(ROOT).as_posix()) for file in files)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".orders/stack.json",
        ".env",
        "tests/conftest.py",
        "bench/load.py",
        "docs/decisions/0001-x.md",
        "shared/__pycache__/settings.cpython-311.pyc",
        "orders.egg-info/PKG-INFO",
    ],
)
def test_what_is_no_part_of_the_program_is_not_sent_to_the_builder(path: str) -> None:
    assert not sent_to_builder(path)


@pytest.mark.subprocess
def test_the_wheel_built_from_what_is_copied_holds_the_whole_program(tmp_path: Path) -> None:
    for source in COPIED:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True, timeout=50)
    [wheel] = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert tracked(".py", ".sql", ".lua") <= packed


@pytest.mark.subprocess
def test_orders_starts_without_the_packages_that_only_development_has() -> None:
    name = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)
    runtime = set(name.findall((ROOT / "requirements/runtime.lock").read_text()))
    absent = set(name.findall((ROOT / "requirements/dev.lock").read_text())) - runtime
    assert "pytest" in absent
    program = f"""
import importlib.metadata, pkgutil, sys
absent = {absent!r}
for module, distributions in importlib.metadata.packages_distributions().items():
    if {{name.lower().replace("_", "-") for name in distributions}} <= absent:
        sys.modules[module] = None  # importing it fails, as it would in the image
import cli
for module in pkgutil.walk_packages(cli.__path__, "cli."):
    if module.name != "cli.__main__":
        importlib.import_module(module.name)
import command_service.app, query_service.app, projector.__main__
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert answer.returncode == 0, answer.stderr
