// Runs docs/examples/shop/follow.js. Arguments: the module, the URL, how many events to wait for. Prints each event,
// problem and end, and sends the number of the attempt as a bearer token.
const [module, url, count] = process.argv.slice(2)
const { follow } = await import(module)
let [seen, attempts] = [0, 0]
const print = (kind, data) => console.log(JSON.stringify([kind, data]))
const stop = follow(
  url,
  (event) => {
    print("event", event)
    seen += 1
    if (seen === Number(count)) stop()
  },
  {
    headers: async () => ({ Authorization: `Bearer ${++attempts}` }),
    onProblem: (problem) => print("problem", problem),
    onState: (state) => state === "ended" && print("ended", attempts),
  },
)
