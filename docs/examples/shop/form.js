// The form of a new order.
import { money } from "./money.js"
import { at, copy, write } from "./view.js"

const EXPONENTS = { GBP: 2, JPY: 0, KWD: 3 } // ISO 4217
const PRODUCTS = [
  { id: "85123A", name: "White hanging heart", prices: { GBP: 255, JPY: 490, KWD: 1_005 } },
  { id: "71053", name: "White metal lantern", prices: { GBP: 339, JPY: 650, KWD: 1_335 } },
  { id: "22423", name: "Cake stand, three tiers", prices: { GBP: 1_275, JPY: 2_450, KWD: 5_020 } },
]
const { currency, address, total } = at("place").elements
const products = PRODUCTS.map((product) => ({ product, row: newRow(product) }))

/** The body of the command, and the inputs by the pointer at which a form error names them. */
export function newOrder(customerId) {
  const chosen = products.map(({ product, row }) => ({ product, input: inputOf(row) })).filter(({ input }) => input.value)
  const fields = { "#/shipping_address_id": address, "#/items": inputOf(products[0].row) }
  chosen.forEach(({ input }, index) => (fields[`#/items/${index}/quantity`] = input))
  const items = chosen.map(({ product: { id, name, prices }, input }) => ({
    product_id: id,
    product_name: name,
    quantity: Number(input.value),
    unit_price: prices[currency.value],
  }))
  const body = {
    order_id: crypto.randomUUID(), // so that the order can be shown at once
    customer_id: customerId,
    currency: currency.value,
    items,
    shipping_address_id: address.value,
  }
  return { body, fields }
}

/** The order as its document will show it. */
export function expectedOrder(body) {
  return {
    ...body,
    status: "PENDING",
    currency_exponent: EXPONENTS[body.currency],
    total_amount: totalAmount(),
    amount_due: totalAmount(),
    placed_at: new Date().toISOString(),
    version: 0,
  }
}

/** In minor units. A quantity may be any text. */
function totalAmount() {
  return products.reduce((sum, { product, row }) => {
    const quantity = /^\d+$/.test(inputOf(row).value) ? BigInt(inputOf(row).value) : 0n
    return sum + quantity * BigInt(product.prices[currency.value])
  }, 0n)
}

function show() {
  const amount = (minor) => money(minor, currency.value, EXPONENTS[currency.value])
  for (const { product, row } of products) write(row, "price", amount(product.prices[currency.value]))
  total.value = amount(totalAmount())
}

function newRow({ id, name }) {
  const row = copy("product")
  write(row, "name", name)
  row.querySelector(".error").id = `${id}-error`
  inputOf(row).setAttribute("aria-label", `Quantity of ${name}`)
  inputOf(row).setAttribute("aria-describedby", `${id}-error`)
  at("products").append(row)
  return row
}

function inputOf(row) {
  return row.querySelector("input")
}

at("place").addEventListener("input", show)
show()
