// Follows an event stream in a browser, and comes back after whatever has ended it.
//
// A browser reconnects by itself after a lost connection, and after a refusal of the query service, which is a stream
// that says when to come back. It gives up for good at any status but 200, such as a proxy's 502: then this opens the
// stream again, after the last event that the page has seen.
//
//   const stop = follow("https://queries.example/orders/536365/events", show)
//   const stop = follow(url, show, { after: 1234, onProblem: ({ code }) => tell(code) })

const FIRST_PAUSE = 1_000 // milliseconds; doubled after every failure
const LAST_PAUSE = 30_000

/** Calls `onEvent` with every event. Returns a function that stops. */
export function follow(url, onEvent, { after, onProblem = () => {} } = {}) {
  let last = after // position of the last event
  let pause = FIRST_PAUSE
  let source
  let timer
  let stopped = false

  function open() {
    const address = new URL(url, globalThis.location?.href)
    if (last !== undefined) address.searchParams.set("after", last)
    source = new EventSource(address)
    source.onmessage = ({ data, lastEventId }) => {
      last = lastEventId
      pause = FIRST_PAUSE
      onEvent(JSON.parse(data))
    }
    source.addEventListener("problem", ({ data }) => onProblem(JSON.parse(data)))
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) reopen(address)
    }
  }

  async function reopen(address) {
    const problem = await problemAt(address)
    if (stopped) return
    if (problem) onProblem(problem)
    if (problem && problem.status < 500 && problem.status !== 429) return // no later attempt can mend it
    timer = setTimeout(open, pause * (1 + Math.random() / 2))
    pause = Math.min(2 * pause, LAST_PAUSE)
  }

  open()
  return () => {
    stopped = true
    clearTimeout(timer)
    source.close()
  }
}

/** The problem document of a refusal: an EventSource does not tell the status. Null where there is none. */
async function problemAt(address) {
  const request = new AbortController()
  try {
    const answer = await fetch(address, { signal: request.signal })
    return answer.headers.get("content-type")?.startsWith("application/problem+json") ? await answer.json() : null
  } catch {
    return null // the network; the next attempt tells
  } finally {
    request.abort() // where it is a stream
  }
}
