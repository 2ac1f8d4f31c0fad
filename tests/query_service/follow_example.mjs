// Runs docs/examples/follow.js with an EventSource that behaves as a browser's. Arguments: the module, the URL, how many
// events to wait for. Prints each event and each problem.
const [module, url, count] = process.argv.slice(2)

globalThis.EventSource = class {
  static CLOSED = 2
  readyState = 0
  #listeners = { error: () => this.onerror(), message: (event) => this.onmessage(event) }
  #lastId = ""
  #retry = 1_000
  #closing = new AbortController()

  constructor(address) {
    this.#connect(address)
  }

  addEventListener(name, listener) {
    this.#listeners[name] = listener
  }

  close() {
    this.readyState = EventSource.CLOSED
    this.#closing.abort()
  }

  async #connect(address) {
    const headers = { Accept: "text/event-stream" }
    if (this.#lastId) headers["Last-Event-ID"] = this.#lastId
    try {
      const answer = await fetch(address, { headers, signal: this.#closing.signal })
      if (answer.status !== 200) this.readyState = EventSource.CLOSED
      else await this.#read(answer)
    } catch {
      // the connection is lost
    }
    if (this.#closing.signal.aborted) return
    this.#listeners.error()
    if (this.readyState !== EventSource.CLOSED) setTimeout(() => this.#connect(address), this.#retry)
  }

  async #read(answer) {
    for (const block of (await answer.text()).split("\n\n")) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)))
      this.#lastId = fields.id ?? this.#lastId
      this.#retry = Number(fields.retry ?? this.#retry)
      if (fields.data) this.#listeners[fields.event ?? "message"]?.({ data: fields.data, lastEventId: this.#lastId })
    }
  }
}

const { follow } = await import(module)
let seen = 0
const print = (kind, data) => console.log(JSON.stringify([kind, data]))
const stop = follow(
  url,
  (event) => {
    print("event", event)
    seen += 1
    if (seen === Number(count)) stop()
  },
  { onProblem: (problem) => print("problem", problem) },
)
