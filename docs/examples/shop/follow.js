// Follows an event stream, and comes back after whatever has ended it: a lost connection, a restart, a proxy's 502.
//
// It reads with fetch. An EventSource cannot send a bearer token, gives up for good at any status but 200, and does not
// notice a connection on which nothing arrives any more.
//
//   const stop = follow("https://queries.example/customers/17850/orders/events", show, { after: 1234 })

const FIRST_PAUSE = 1_000 // milliseconds; doubled after every failure, or as long as the service says
const LAST_PAUSE = 30_000
const LONGEST_SILENCE = 45_000 // three heartbeats

/**
 * Calls `onEvent` with every event after the position `after` (default: from now on), each once, in order. Returns a
 * function that stops.
 *
 * `headers` returns the headers of an attempt, such as Authorization. `onState` gets "live", "waiting" and "ended",
 * `onProblem` the problem document of a refusal. After "ended" no later attempt can succeed.
 */
export function follow(url, onEvent, { after, headers = () => ({}), onState = () => {}, onProblem = () => {} } = {}) {
  let stopped = false
  let request // of the current attempt
  let last = after // position of the last event or heartbeat
  let pause = FIRST_PAUSE

  async function attempt() {
    const { signal } = (request = new AbortController())
    const end = () => request.abort()
    let alarm = setTimeout(end, LONGEST_SILENCE)
    try {
      const address = new URL(url, globalThis.location?.href)
      if (last !== undefined) address.searchParams.set("after", last)
      const answer = await fetch(address, {
        headers: { Accept: "text/event-stream", ...(await headers()) },
        cache: "no-store",
        signal,
      })
      if (!answer.ok) return await refused(answer)
      onState("live")
      for await (const { id, retry, event, data } of blocks(answer.body, signal)) {
        clearTimeout(alarm)
        alarm = setTimeout(end, LONGEST_SILENCE)
        last = id ?? last
        pause = Number(retry ?? pause)
        if (event === "problem") onProblem(JSON.parse(data))
        else if (data) queueMicrotask(() => stopped || onEvent(JSON.parse(data))) // may raise
      }
    } catch (error) {
      if (stopped || !(error instanceof TypeError || error.name === "AbortError")) throw error
      pause = Math.min(2 * pause, LAST_PAUSE) // the connection is lost, or silent
    } finally {
      clearTimeout(alarm)
    }
    return true
  }

  /** Whether to come back. */
  async function refused(answer) {
    pause = Math.max(1_000 * Number(answer.headers.get("Retry-After") ?? 0), Math.min(2 * pause, LAST_PAUSE))
    const text = await answer.text() // also where it is of no use: the connection is free then
    if (!answer.headers.get("Content-Type")?.startsWith("application/problem+json")) return true // of a proxy
    const problem = JSON.parse(text)
    onProblem(problem)
    return problem.status >= 500 || problem.status === 429 || problem.status === 408
  }

  async function run() {
    while (await attempt()) {
      onState("waiting")
      await new Promise((resolve) => setTimeout(resolve, pause * (1 + Math.random() / 2)))
      if (stopped) return
    }
    onState("ended")
  }

  run().catch((error) => {
    if (!stopped) throw error
  })
  return () => {
    stopped = true
    request.abort()
  }
}

/** The blocks of an event stream: their fields by name. */
async function* blocks(body, signal) {
  const [reader, decoder] = [body.getReader(), new TextDecoder()]
  signal.addEventListener("abort", () => reader.cancel().catch(() => {})) // Node.js may not end a read by itself
  for (let text = ""; ; ) {
    const { done, value } = await reader.read()
    if (done) return
    const whole = (text + decoder.decode(value, { stream: true })).split("\n\n")
    text = whole.pop() // not whole yet
    for (const block of whole) {
      yield Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s, 2)))
    }
  }
}
