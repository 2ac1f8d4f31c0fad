// Shows values in the elements of the page.
import { money } from "./money.js"
import { LANGUAGE, explain } from "./texts.js"

const STATES = { live: "live", waiting: "reconnecting …", ended: "not live" }

export const at = (id) => document.getElementById(id)
export const copy = (template) => at(template).content.firstElementChild.cloneNode(true)

/** Writes into the element's field of that name, where it has one, and returns that. */
export function write(element, field, text) {
  const target = element.querySelector(`[data-field=${field}]`)
  if (target) target.textContent = text
  return target
}

export function showOrder(element, order) {
  const amount = (minor) => money(minor ?? 0, order.currency, order.currency_exponent)
  write(element, "name", order.order_id.slice(0, 8))
  write(element, "status", order.status).dataset.status = order.status
  write(element, "total", amount(order.total_amount))
  write(element, "placed", new Date(order.placed_at).toLocaleString())
  write(element, "paid", amount(order.amount_paid))
  write(element, "due", amount(order.amount_due))
  write(element, "address", order.shipping_address_id)
  write(element, "version", order.version)
  element.classList.toggle("unconfirmed", order.unconfirmed)
}

/** The order that is open, with its lines and what can be done about it. */
export function showOpened(order) {
  at("order").hidden = !order?.items
  if (!order?.items) return
  showOrder(at("order"), order)
  at("items").replaceChildren(...order.items.map((item) => lineOf(item, order)))
  at("pay").hidden = at("move").hidden = order.status !== "PENDING"
  at("cancel").hidden = !["PENDING", "CONFIRMED"].includes(order.status)
  at("pay").disabled = at("cancel").disabled = order.unconfirmed
}

function lineOf(item, order) {
  const line = copy("item")
  write(line, "name", item.product_name ?? item.product_id)
  write(line, "quantity", item.quantity.toLocaleString())
  write(line, "price", money(item.unit_price, order.currency, order.currency_exponent))
  return line
}

/** Puts the rows into the list, in this order. A row that is in its place keeps the focus. */
export function showRows(list, rows) {
  rows.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null)
  })
  while (list.children.length > rows.length) list.lastElementChild.remove()
}

export function showState(output, state) {
  output.value = STATES[state]
  output.dataset.state = state
}

/** A problem in the reader's words; nothing: there is none. */
export function tell(problem) {
  at("notice").lang = LANGUAGE
  at("notice").textContent = problem ? explain(problem.document) : ""
}

/** Puts each form error beside its field, and clears the others of the form; `fields` are inputs by pointer. */
export function showErrors(form, fields, problem) {
  for (const input of form.querySelectorAll("[aria-describedby]")) mark(input, "")
  for (const error of problem?.document?.errors ?? []) {
    if (fields[error.pointer]) mark(fields[error.pointer], explain(error))
  }
  form.querySelector("[aria-invalid=true]")?.focus()
}

function mark(input, text) {
  const message = at(input.getAttribute("aria-describedby"))
  message.lang = LANGUAGE
  message.textContent = text
  input.setAttribute("aria-invalid", text !== "")
}
