// An event stream never ends, so the page does not offer to load one: its description has a command line instead.
const streamsAreNotTriedOut = () => ({
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: (original, system) => (state, path, method) =>
          !system.specSelectors.specJson().getIn(["paths", path, method, "x-event-stream"]) &&
          original(state, path, method),
      },
    },
  },
});

const reference = document.getElementById("reference");

window.ui = SwaggerUIBundle({
  url: reference.dataset.document,
  domNode: reference,
  deepLinking: true,
  docExpansion: "list",
  displayOperationId: true,
  plugins: [streamsAreNotTriedOut],
  presets: [SwaggerUIBundle.presets.apis],
});
