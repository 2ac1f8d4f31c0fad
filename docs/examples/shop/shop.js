// The page: what a customer has ordered, and what can be done about it.
import { Client, Problem } from "./client.js"
import { follow } from "./follow.js"
import { expectedOrder, newOrder } from "./form.js"
import { Orders } from "./orders.js"
import { at, copy, showErrors, showOpened, showOrder, showRows, showState, tell } from "./view.js"

const PAGE_SIZE = 5
const READ_TOGETHER = 50 // milliseconds: events that come together cause one read

const meta = (name) => document.querySelector(`meta[name=${name}]`).content
const caller = at("caller").elements
const move = at("move").querySelector("form").elements

const client = new Client({
  commands: meta("commands"),
  queries: meta("queries"),
  bearer: () => caller.bearer.value,
})
let orders = new Orders()
let listed = [] // order ids, newest first
let older // the address of the next page
let opened // an order id
let decidedOn // the ETag of what the customer saw when beginning to change the address
let stop = () => {}
const rows = new Map() // elements by order id
const due = new Set() // orders about to be read

// --- reading -------------------------------------------------------------------------------------------------------

const ordersOfCustomer = () => `/customers/${encodeURIComponent(caller.customer.value)}/orders`

async function load() {
  stop()
  orders = new Orders()
  ;[listed, older, opened] = [[], undefined, undefined]
  tell()
  showErrors(at("caller"), {})
  showState(caller.state, "ended")
  try {
    const token = await loadPage(`${ordersOfCustomer()}?limit=${PAGE_SIZE}`)
    if (token && caller.live.checked) followFrom(token)
  } catch (problem) {
    showErrors(at("caller"), { "path/customer_id": caller.customer }, problem)
    throw problem
  }
}

/** Adds a page to the list. Returns the token of what it shows; nothing where another customer was chosen meanwhile. */
async function loadPage(path) {
  const into = orders
  const { document, next, token } = await client.query(path, { onWait: tell })
  if (into !== orders) return
  tell()
  document.orders.forEach((order) => orders.read(order))
  listed.push(...document.orders.map((order) => order.order_id).filter((orderId) => !listed.includes(orderId)))
  older = next
  render()
  return token
}

/** Reads an order until the read side shows every acknowledged write. */
async function readOrder(orderId) {
  const into = orders
  let waited = false
  const onWait = (problem) => {
    waited = true
    tell(problem)
  }
  for (;;) {
    try {
      const { document, etag } = await client.query(`/orders/${orderId}`, { onWait })
      into.read({ ...document, etag })
      if (waited) tell()
      return render()
    } catch (problem) {
      if (!problem.mayPass) throw problem
    }
  }
}

// --- following -----------------------------------------------------------------------------------------------------

/** Follows the customer's orders from the position of a token on. */
function followFrom(token) {
  stop = follow(`${meta("queries")}${ordersOfCustomer()}/events`, onEvent, {
    after: token.slice(token.lastIndexOf("-") + 1),
    headers: () => client.authorization(),
    onState: (state) => showState(caller.state, state),
    onProblem: (problem) => (problem.code === "unknown-position" ? attempt(load) : tell(new Problem(problem))),
  })
}

function onEvent({ order_id: orderId, event_type: type, version, consistency_token: token }) {
  client.remember(token)
  if (type === "OrderPlaced" && !listed.includes(orderId)) listed.unshift(orderId)
  if (version <= orders.version(orderId) || due.has(orderId)) return
  due.add(orderId)
  setTimeout(() => {
    due.delete(orderId)
    attempt(() => readOrder(orderId))
  }, READ_TOGETHER)
}

// --- changing ------------------------------------------------------------------------------------------------------

/** Shows what the command will make of the order, sends it, and takes that back where it is refused. Returns the
 * refusal, if any. */
async function change(orderId, apply, send) {
  tell()
  const expected = orders.expect(orderId, apply)
  render()
  try {
    const { version } = await untilKnown(send)
    orders.acknowledge(expected, version)
  } catch (problem) {
    orders.refuse(expected)
    render()
    if (orders.version(orderId)) await readOrder(orderId) // something else has happened to it
    tell(problem)
    return problem
  }
  await readOrder(orderId)
  tell()
}

/** Sends again, with the same key, while nothing says whether the command was carried out. */
async function untilKnown(send) {
  const key = crypto.randomUUID()
  for (;;) {
    try {
      return await send({ key, onWait: tell })
    } catch (problem) {
      if (!problem.outcomeUnknown) throw problem
    }
  }
}

async function placeOrder() {
  const { body, fields } = newOrder(caller.customer.value)
  const [orderId, before] = [body.order_id, opened]
  const expected = expectedOrder(body)
  showErrors(at("place"), {})
  listed.unshift(orderId)
  opened = orderId
  const refusal = await change(
    orderId,
    () => expected,
    (how) => client.command("POST", "/orders", body, how),
  )
  if (!refusal) return
  listed = listed.filter((other) => other !== orderId)
  if (opened === orderId) opened = before
  render()
  showErrors(at("place"), fields, refusal)
}

function pay(order) {
  const body = { payment_reference: `page-${crypto.randomUUID()}`, amount: order.amount_due }
  return change(
    order.order_id,
    (order) => ({ ...order, status: "CONFIRMED", amount_paid: body.amount, amount_due: 0 }),
    (how) => client.command("POST", `/orders/${order.order_id}/payment`, body, how),
  )
}

function cancel(order) {
  return change(
    order.order_id,
    (order) => ({ ...order, status: "CANCELLED", amount_due: 0 }),
    (how) => client.command("POST", `/orders/${order.order_id}/cancellation`, { reason: "on the page" }, how),
  )
}

/** Only what the customer saw is changed: If-Match names it. */
async function changeAddress(order) {
  const body = { shipping_address_id: move.address.value }
  const etag = decidedOn
  const refusal = await change(
    order.order_id,
    (order) => ({ ...order, ...body }),
    (how) => client.command("PUT", `/orders/${order.order_id}/shipping-address`, body, { etag, ...how }),
  )
  showErrors(at("move"), { "#/shipping_address_id": move.address }, refusal)
  if (!refusal) at("move").open = false
  decidedOn = orders.get(order.order_id)?.etag // the customer sees this one from now on
}

// --- showing -------------------------------------------------------------------------------------------------------

function render() {
  showRows(at("list"), listed.map(rowOf))
  at("older").hidden = !older
  showOpened(orders.get(opened))
}

function rowOf(orderId) {
  const row = rows.get(orderId) ?? newRow(orderId)
  const order = orders.get(orderId)
  row.hidden = !order // placed elsewhere, and not read yet
  row.firstElementChild.ariaCurrent = orderId === opened ? "true" : null
  if (order) showOrder(row, order)
  return row
}

function newRow(orderId) {
  const row = copy("row")
  on(row.firstElementChild, "click", () => open(orderId))
  rows.set(orderId, row)
  return row
}

async function open(orderId) {
  opened = orderId
  at("move").open = false
  tell()
  render()
  if (!orders.get(orderId)?.items) await readOrder(orderId)
}

function beginMove() {
  const order = orders.get(opened)
  move.address.value = order?.shipping_address_id ?? ""
  decidedOn = order?.etag
}

/** Tells of a problem; any other error is a defect of this page. */
async function attempt(act) {
  try {
    await act()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    tell(error)
  }
}

function on(element, name, act) {
  element.addEventListener(name, (event) => {
    if (name === "submit") event.preventDefault()
    attempt(act)
  })
}

on(at("caller"), "submit", load)
on(at("place"), "submit", placeOrder)
on(at("older"), "click", () => loadPage(older))
on(at("pay"), "click", () => pay(orders.get(opened)))
on(at("cancel"), "click", () => cancel(orders.get(opened)))
on(at("move").querySelector("summary"), "click", beginMove)
on(move.address.form, "submit", () => changeAddress(orders.get(opened)))
on(caller.live, "change", load)
attempt(load)
