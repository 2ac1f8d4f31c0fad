"""`orders up` as a user runs it: a process, its terminal, its children."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from cli.stack.accounts import Account
from cli.stack.descriptor import Stack, load_stack
from cli.stack.embedded_server import free_port
from cli.stack.processes import identity
from cli.stack.service import orders_command
from tests.orders_command import environment
from tests.running import wait_until


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run. A zombie does not: its parent has not reaped it."""
    return [process for process in processes if identity(process.pid) is not None and process.is_running()]


class OrdersUp:
    """A stack in `data_dir`, on ports of its own; its output goes to a file, beside the data unless given."""

    def __init__(
        self,
        data_dir: Path,
        account: Account | None = None,
        *,
        terminal: Path | None = None,
        options: Sequence[str] = (),
        **added: str,
    ) -> None:
        self.data_dir = data_dir
        self._terminal = terminal or data_dir.with_name(data_dir.name + ".terminal")
        self.command_url = f"http://127.0.0.1:{free_port()}"
        self.query_url = f"http://127.0.0.1:{free_port()}"
        self._account, self._added, self._options = account, added, options
        self.process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        uid, gid = self._account or (None, None)
        with self._terminal.open("w") as screen:
            return subprocess.Popen(
                orders_command("up", *self.arguments, *self._options),
                env=environment(**self._added),
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                start_new_session=True,
            )

    def start_again(self) -> None:
        """The next `orders up` on the same data, at the same addresses; what the last one printed is gone."""
        assert self.process.poll() is not None, "it still runs"
        self.process = self._launch()

    @property
    def arguments(self) -> list[str]:
        command_port, query_port = self.command_url.rpartition(":")[2], self.query_url.rpartition(":")[2]
        return ["--data-dir", str(self.data_dir), "--command-port", command_port, "--query-port", query_port]

    @property
    def terminal(self) -> str:
        return self._terminal.read_text()

    @property
    def descriptor(self) -> Stack:
        stack = load_stack(self.data_dir)
        assert stack is not None
        return stack

    def until_ready(self) -> OrdersUp:
        def ready() -> bool:
            assert self.process.poll() is None, self.terminal
            return "\nready\n" in self.terminal

        wait_until(ready, "orders up prints ready", seconds=40)
        return self

    def until_it_says(self, text: str, seconds: float = 20.0) -> None:
        wait_until(lambda: text in self.terminal, f"orders up says {text!r}", seconds)

    def processes(self) -> list[psutil.Process]:
        """Every process below it, and it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def place_order(self) -> tuple[str, str]:
        """(order id, consistency token) of an order that was acknowledged."""
        order = {
            "customer_id": "17850",
            "currency": "GBP",
            "items": [{"product_id": "85123A", "quantity": 6, "unit_price": 255}],
            "shipping_address_id": "address-1",
        }
        answer = httpx.post(f"{self.command_url}/orders", json=order, timeout=30)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return answer.json()["aggregate_id"], answer.json()["consistency_token"]

    def order_total(self, order_id: str, token: str) -> int:
        """The total that the query service answers, once it has reached `token`."""
        headers = {"Consistency-Token": token, "Prefer": "wait=20"}
        answer = httpx.get(f"{self.query_url}/orders/{order_id}", headers=headers, timeout=30)
        assert answer.status_code == httpx.codes.OK, answer.text
        return int(answer.json()["total_amount"])

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send `sig` to it alone; its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(40)
