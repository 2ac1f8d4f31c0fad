"""`python -m cli`: the same as `orders`."""

from __future__ import annotations

from cli.main import app

app(prog_name="orders")
