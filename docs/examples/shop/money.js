// Amounts: integers in minor units. An amount beyond 2^53 comes as a string of digits, which stays exact here.

/** An amount as the reader's language writes it. The exponent is `currency_exponent`, which comes with every amount. */
export function money(amount, currency, exponent) {
  const digits = { minimumFractionDigits: exponent, maximumFractionDigits: exponent } // Intl's own are not ISO 4217's
  return new Intl.NumberFormat(undefined, { style: "currency", currency, ...digits }).format(`${amount}e-${exponent}`)
}
