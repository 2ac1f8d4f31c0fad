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

// Swagger UI parses the whole document again for each operation that is unfolded: it is given that operation alone, with
// the components that it refers to.
const operationAlone = (spec, path, method) => {
  const operation = spec.paths[path][method];
  const components = { securitySchemes: spec.components.securitySchemes };
  const addComponentsOf = (part) => {
    for (const [, kind, name] of JSON.stringify(part).matchAll(/"#\/components\/(\w+)\/([^"]+)"/g)) {
      components[kind] ??= {};
      if (!(name in components[kind])) {
        components[kind][name] = spec.components[kind][name];
        addComponentsOf(components[kind][name]);
      }
    }
  };
  addComponentsOf(operation);
  return { ...spec, paths: { [path]: { [method]: operation } }, components };
};

const operationsAreParsedAlone = ({ fn: { resolveSubtree } }) => ({
  fn: {
    resolveSubtree: (spec, at, options) =>
      resolveSubtree(at[0] === "paths" ? operationAlone(spec, at[1], at[2]) : spec, at, options),
  },
});

const reference = document.getElementById("reference");

window.ui = SwaggerUIBundle({
  url: reference.dataset.document,
  domNode: reference,
  deepLinking: true,
  docExpansion: "list",
  displayOperationId: true,
  plugins: [streamsAreNotTriedOut, operationsAreParsedAlone],
  presets: [SwaggerUIBundle.presets.apis],
});
