"""What `orders up` prints once everything is ready."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from urllib.parse import urlsplit

from cli.stack.descriptor import Stack


def welcome(stack: Stack, data_dir: Path) -> str:
    """The addresses, and two commands that work when pasted into another terminal, repeatedly."""
    order_id = f"demo-{time.time_ns() // 1_000_000:x}"
    acknowledgement = shlex.quote(str(data_dir / "acknowledgement.json"))
    order = {
        "order_id": order_id,
        "customer_id": "17850",
        "currency": "GBP",
        "items": [
            {"product_id": "85123A", "product_name": "WHITE HANGING HEART", "quantity": 6, "unit_price": 255},
            {"product_id": "71053", "product_name": "WHITE METAL LANTERN", "quantity": 6, "unit_price": 339},
        ],
        "shipping_address_id": "address-1",
    }
    token = f"""$(sed 's/.*"consistency_token" *: *"\\([^"]*\\)".*/\\1/' {acknowledgement})"""
    return f"""
ready
  commands    {stack.command_url}  (reference: {stack.command_url}/docs)
  queries     {stack.query_url}  (reference: {stack.query_url}/docs)
  projector   {stack.projector_url}  (health: {stack.projector_url}/readyz)
{_optional("processes", stack.processes_url)}{_optional("sandbox", stack.sandbox_url)}\
  PostgreSQL  {_without_secrets(stack.database_url)}
  Redis       {_without_secrets(stack.redis_url)}
  passwords   {data_dir / "stack.json"}
  logs        {data_dir / "logs"}

Place an order:

curl -sS -w '\\n' {stack.command_url}/orders -H 'Content-Type: application/json' -H 'Idempotency-Key: {order_id}' \
-d '{json.dumps(order)}' | tee {acknowledgement}

Read it back, with the token of its acknowledgement:

curl -sS -w '\\n' {stack.query_url}/orders/{order_id} -H "Consistency-Token: {token}"

Ctrl-C stops everything; the data stays in {data_dir}
"""


def _optional(name: str, url: str) -> str:
    return f"  {name:11} {url}  (health: {url}/readyz)\n" if url else ""


def _without_secrets(url: str) -> str:
    """Its scheme, host, port and path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
