"""What the generated clients are used for: an order is placed, read, and looked for in vain."""

PYTHON = """
import sys
from orders_commands import AuthenticatedClient as Commands
from orders_commands.api.orders import place_order
from orders_commands.models import Acknowledgement, OrderItemBody, PlaceOrderBody, PlaceOrderBodyCurrency
from orders_queries import AuthenticatedClient as Queries
from orders_queries.api.orders import get_order
from orders_queries.models import Order

_, command_url, query_url, token = sys.argv
commands = Commands(base_url=command_url, token=token)
queries = Queries(base_url=query_url, token=token)

mugs = OrderItemBody(product_id="MUG", quantity=2, unit_price=450)
body = PlaceOrderBody(
    customer_id="alice", currency=PlaceOrderBodyCurrency.GBP, items=[mugs], shipping_address_id="home"
)
placed = place_order.sync(client=commands, body=body, idempotency_key="once")
assert isinstance(placed, Acknowledgement), placed
order = get_order.sync(
    placed.aggregate_id, client=queries, consistency_token=placed.consistency_token, prefer="wait=5"
)
assert isinstance(order, Order), order
missing = get_order.sync("no-such-order", client=queries)
assert missing is not None and not isinstance(missing, Order)
print(order.total_amount, order.status, missing.code)
"""

TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths as Commands } from "./command.js";
import type { paths as Queries } from "./query.js";

declare const process: { argv: [string, string, string, string, string] };
const [, , commandUrl, queryUrl, token] = process.argv;
const headers = { Authorization: `Bearer ${token}` };
const commands = createClient<Commands>({ baseUrl: commandUrl, headers });
const queries = createClient<Queries>({ baseUrl: queryUrl, headers });

const placed = await commands.POST("/orders", {
  params: { header: { "Idempotency-Key": "once" } },
  body: {
    customer_id: "alice",
    currency: "GBP",
    items: [{ product_id: "MUG", quantity: 2, unit_price: 450 }],
    shipping_address_id: "home",
  },
});
if (placed.error) throw new Error(placed.error.detail);
const { aggregate_id, consistency_token } = placed.data;

const read = await queries.GET("/orders/{order_id}", {
  params: { path: { order_id: aggregate_id }, header: { "Consistency-Token": consistency_token, Prefer: "wait=5" } },
});
if (read.error) throw new Error(read.error.detail);
const total: number = read.data.total_amount;
const status: "PENDING" | "CONFIRMED" | "SHIPPED" | "DELIVERED" | "CANCELLED" = read.data.status;

const missing = await queries.GET("/orders/{order_id}", { params: { path: { order_id: "no-such-order" } } });
const code = missing.error?.code;
if (code === undefined) throw new Error("found");
// @ts-expect-error: the compiler knows every code that the operation answers
if (code === "no-such-code") throw new Error(code);
console.log(total, status, code);
"""

TYPESCRIPT_SETTINGS = """{
  "compilerOptions": {"strict": true, "target": "es2022", "module": "nodenext", "lib": ["es2022", "dom"], "types": []},
  "files": ["shop.ts"]
}"""
