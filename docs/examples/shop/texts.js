// What the page says for a code, in the reader's language. Codes never change; details are for developers.
import { money } from "./money.js"

const TEXTS = {
  en: {
    // of form errors, with their params
    required: "Fill this in.",
    "too-short": "Fill this in.",
    "too-long": "At most {maximum} characters.",
    "too-small": "At least {minimum}.",
    "too-large": "At most {maximum}.",
    "too-few": "Choose at least {minimum}.",
    "not-an-integer": "Give a whole number.",
    "not-an-id": "Letters A to Z, digits, dots, hyphens and underscores only.",
    // of problems, with their members
    "invalid-request": "Please look at the marked fields.",
    "stale-version": "The order has changed meanwhile. Look at it, then save again.",
    "order-not-pending": "This order can no longer be changed.",
    "order-not-cancellable": "This order can no longer be cancelled.",
    "order-total-too-large": "{total} is more than an order may cost.",
    "payment-amount-mismatch": "The order costs {expected} now, not {given}.",
    "projection-lagging": "Accepted. The list is a little behind, and will show it.",
    "outcome-unknown": "Not answered yet. Trying again …",
    unreachable: "Not answered yet. Trying again …",
    "token-missing": "Give a bearer token.",
    "token-refused": "The bearer token is not accepted.",
    forbidden: "You may not do this.",
  },
  de: {
    required: "Bitte ausfüllen.",
    "too-short": "Bitte ausfüllen.",
    "too-long": "Höchstens {maximum} Zeichen.",
    "too-small": "Mindestens {minimum}.",
    "too-large": "Höchstens {maximum}.",
    "too-few": "Mindestens {minimum} auswählen.",
    "not-an-integer": "Bitte eine ganze Zahl.",
    "not-an-id": "Nur Buchstaben A bis Z, Ziffern, Punkte, Binde- und Unterstriche.",
    "invalid-request": "Bitte die markierten Felder ansehen.",
    "stale-version": "Die Bestellung wurde inzwischen geändert. Ansehen, dann noch einmal speichern.",
    "order-not-pending": "Diese Bestellung lässt sich nicht mehr ändern.",
    "order-not-cancellable": "Diese Bestellung lässt sich nicht mehr stornieren.",
    "order-total-too-large": "{total} ist mehr, als eine Bestellung kosten darf.",
    "payment-amount-mismatch": "Die Bestellung kostet jetzt {expected}, nicht {given}.",
    "projection-lagging": "Angenommen. Die Liste hinkt etwas nach und wird es zeigen.",
    "outcome-unknown": "Noch keine Antwort. Neuer Versuch …",
    unreachable: "Noch keine Antwort. Neuer Versuch …",
    "token-missing": "Bitte ein Bearer-Token angeben.",
    "token-refused": "Das Bearer-Token wird nicht angenommen.",
    forbidden: "Das ist Ihnen nicht erlaubt.",
  },
}
const AMOUNTS = ["total", "expected", "given"]

export const LANGUAGE = navigator.language.startsWith("de") ? "de" : "en"

/** A sentence for a problem document, or for one of its form errors. */
export function explain({ code, detail, params, ...members }) {
  const values = { ...members, ...params }
  const text = TEXTS[LANGUAGE][code] ?? detail
  const shown = (name) => {
    if (AMOUNTS.includes(name)) return money(values[name], values.currency, values.currency_exponent)
    return typeof values[name] === "number" ? values[name].toLocaleString(LANGUAGE) : values[name]
  }
  const names = [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
  return names.every((name) => name in values) ? text.replace(/\{(\w+)\}/g, (_, name) => shown(name)) : detail
}
