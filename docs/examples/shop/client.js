// A client of both services: consistency tokens, idempotency keys, retries, problems.

const PATIENCE = 30_000 // milliseconds for which a request is repeated
const FIRST_PAUSE = 250 // doubled after every attempt
const LAST_PAUSE = 5_000
const LONGEST_ATTEMPT = 40_000 // longer than the longest `Prefer: wait`
const OTHER_LOG = ["unknown-log", "token-beyond-log"]

/** What a service refused; with code `unreachable`, that none answered. */
export class Problem extends Error {
  outcomeUnknown = false // of a command: it may have been carried out; repeat it with its key

  constructor(document, retryAfter = 0) {
    super(document.detail)
    this.document = document // RFC 9457, with the members of its code
    this.retryAfter = retryAfter // seconds
  }

  static async of(answer) {
    const retryAfter = Number(answer.headers.get("Retry-After") ?? 0)
    const text = await answer.text() // also where it is of no use: the connection is free then
    const isProblem = answer.headers.get("Content-Type")?.startsWith("application/problem+json")
    return isProblem ? new Problem(JSON.parse(text), retryAfter) : Problem.unreachable(answer.status, retryAfter)
  }

  /** Of a proxy's answer with this status; 0: there is no answer. */
  static unreachable(status, retryAfter = 0) {
    return new Problem({ code: "unreachable", status, detail: "The service cannot be reached." }, retryAfter)
  }

  get code() {
    return this.document.code
  }

  /** Whether a later attempt may succeed. */
  get mayPass() {
    return this.code === "version-conflict" || [0, 408, 429, 502, 503, 504].includes(this.document.status)
  }

  /** Whether the attempt may have been carried out. */
  get saysNothing() {
    return this.code === "unreachable" || this.code === "outcome-unknown"
  }
}

export class Client {
  #commands
  #queries
  #bearer
  #positions = new Map() // of the newest token of each log

  /** The addresses of both services; `bearer` returns the token of the caller, or nothing. */
  constructor({ commands, queries, bearer = () => undefined }) {
    this.#commands = commands
    this.#queries = queries
    this.#bearer = bearer
  }

  /**
   * Sends a command until it is acknowledged or refused, each time with the same key. Returns the acknowledgement.
   * Raises `Problem`. `etag` is what the command was decided on; `onWait` gets the problem before each repetition.
   */
  async command(method, path, body, { key = crypto.randomUUID(), etag, ...how } = {}) {
    const headers = { "Idempotency-Key": key }
    if (body !== undefined) headers["Content-Type"] = "application/json"
    if (etag !== undefined) headers["If-Match"] = etag
    const answer = await this.#send(this.#commands + path, { method, headers, body: JSON.stringify(body) }, how)
    const acknowledgement = await answer.json()
    this.remember(acknowledgement.consistency_token)
    return acknowledgement
  }

  /**
   * Reads what shows every write that this client has seen acknowledged: `{ document, etag, token, next }`, where `next`
   * is the address of the next page. `path` is a path of the query service, or `next`. Waits for the read side `wait`
   * seconds at a time. Raises `Problem`.
   */
  async query(path, how) {
    try {
      return await this.#read(path, how)
    } catch (problem) {
      if (!OTHER_LOG.includes(problem.code)) throw problem
      this.#positions.clear() // the log was restored: the tokens are of another past
      return await this.#read(path, how)
    }
  }

  /** Keeps the newest token of each log: the one with the largest number behind its last `-`. */
  remember(token) {
    const [, log, position] = /^(.*)-(\d+)$/.exec(token)
    this.#positions.set(log, Math.max(Number(position), this.#positions.get(log) ?? 0))
  }

  /** The headers that name the caller. */
  async authorization() {
    const bearer = await this.#bearer()
    return bearer ? { Authorization: `Bearer ${bearer}` } : {}
  }

  async #read(path, { wait, ...how } = {}) {
    const headers = {}
    if (wait !== undefined) headers.Prefer = `wait=${wait}` // seconds; else 2
    const tokens = [...this.#positions].map(([log, position]) => `${log}-${position}`)
    if (tokens.length) headers["Consistency-Token"] = tokens.join(", ")
    const answer = await this.#send(path.startsWith("/") ? this.#queries + path : path, { headers }, how)
    const token = answer.headers.get("Consistency-Token")
    this.remember(token)
    const next = /<([^>]*)>; rel="next"/.exec(answer.headers.get("Link"))?.[1]
    return {
      document: await answer.json(),
      etag: answer.headers.get("ETag"),
      token,
      next: next && new URL(next, answer.url).href,
    }
  }

  async #send(url, request, { signal, onWait = () => {} } = {}) {
    const until = Date.now() + PATIENCE
    let outcomeUnknown = false
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LAST_PAUSE)) {
      const { answer, problem } = await this.#attempt(url, request, signal)
      if (answer) return answer
      outcomeUnknown ||= problem.saysNothing
      problem.outcomeUnknown = outcomeUnknown && problem.mayPass // any other refusal settles it, thanks to the key
      const wait = Math.max(pause, 1_000 * problem.retryAfter) * (1 + Math.random() / 2)
      if (!problem.mayPass || Date.now() + wait > until) throw problem
      onWait(problem)
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }

  async #attempt(url, request, signal) {
    const headers = { ...request.headers, ...(await this.authorization()) }
    const signals = [AbortSignal.timeout(LONGEST_ATTEMPT), ...(signal ? [signal] : [])]
    try {
      const answer = await fetch(url, { ...request, headers, cache: "no-store", signal: AbortSignal.any(signals) })
      return answer.ok ? { answer } : { problem: await Problem.of(answer) }
    } catch (error) {
      if (signal?.aborted) throw error
      return { problem: Problem.unreachable(0) }
    }
  }
}
