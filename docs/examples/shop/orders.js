// Orders as the page shows them: the documents that were read, and on top of them the changes that were asked for.

export class Orders {
  #documents = new Map() // by order id, as the query service answered
  #changes = [] // { orderId, apply, version }; without a version until the change is acknowledged

  /** A document that was read; a list's summary is one without items. It confirms the changes that it shows. */
  read(document) {
    const { order_id: orderId, version } = document
    const known = this.#documents.get(orderId)
    if (version < this.version(orderId)) return
    this.#documents.set(orderId, version === known?.version ? { ...known, ...document } : document)
    this.#changes = this.#changes.filter((change) => change.orderId !== orderId || !(change.version <= version))
  }

  /** Shows `apply(order)` from now on. Returns the change. */
  expect(orderId, apply) {
    const change = { orderId, apply, version: undefined }
    this.#changes.push(change)
    return change
  }

  /** Keeps showing the change until a document of that version is read. */
  acknowledge(change, version) {
    change.version = version
    if (version <= this.version(change.orderId)) this.refuse(change) // it was read already
  }

  /** Takes the change back. */
  refuse(change) {
    this.#changes = this.#changes.filter((other) => other !== change)
  }

  /** The order with its changes, `unconfirmed` where there are any; undefined where there is none. */
  get(orderId) {
    const changes = this.#changes.filter((change) => change.orderId === orderId)
    const order = changes.reduce((order, { apply }) => apply(order), this.#documents.get(orderId))
    return order && { ...order, unconfirmed: changes.length > 0 }
  }

  /** Of the document that was read; 0 where there is none. */
  version(orderId) {
    return this.#documents.get(orderId)?.version ?? 0
  }
}
