"""As much of curl as the README uses, for machines that have none:
curl -s [-N] [-m SECONDS] [-X M] [-H "Name: value"] [-d BODY] URL"""

from __future__ import annotations

import argparse
from contextlib import suppress

import httpx

parser = argparse.ArgumentParser()
parser.add_argument("-s", action="store_true")
parser.add_argument("-N", action="store_true")
parser.add_argument("-m", dest="seconds", type=float, default=30.0)
parser.add_argument("-X", dest="method")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="body")
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
