"""As much of curl as the README and the welcome of `orders up` use, for machines that have none:
curl -s [-S] [-N] [-m SECONDS] [-X M] [-H "Name: value"] [-d BODY] [-w TEXT] URL"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import httpx


def path_with_curl(directory: Path) -> str:
    """A PATH where `curl` is found: the machine's, else this one."""
    return path_with_stand_in(directory) if shutil.which("curl") is None else os.environ["PATH"]


def path_with_stand_in(directory: Path) -> str:
    """A PATH where this one is found, put into the directory."""
    script = directory / "curl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    script.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("-s", "-S", "-N"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-m", dest="seconds", type=float, default=30.0)
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    parser.add_argument("-w", dest="afterwards", default="")
    parser.add_argument("url")
    options = parser.parse_args()
    with (
        suppress(httpx.ReadTimeout),
        httpx.stream(
            options.method or ("GET" if options.body is None else "POST"),
            options.url if "://" in options.url else f"http://{options.url}",
            headers=dict(header.split(": ", 1) for header in options.headers),
            content=options.body,
            timeout=options.seconds,
        ) as answer,
    ):
        for text in answer.iter_text():
            print(text, end="", flush=True)  # noqa: T201 - a command of its own
    print(options.afterwards.replace("\\n", "\n"), end="")  # noqa: T201


if __name__ == "__main__":
    main()
