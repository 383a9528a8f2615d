// Validates the dashboards named on the command line against dashboard.ts; exit status 1 if one is wrong.
import { readFileSync } from 'node:fs';
import { Ajv } from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const schema = createGenerator({
  path: new URL('dashboard.ts', import.meta.url).pathname,
  type: 'OurDashboard',
  additionalProperties: false,
  expose: 'none',
  skipTypeCheck: true,
  topRef: false,
}).createSchema('OurDashboard');
const ajv = new Ajv({ allErrors: true, strict: false });
const dashboard = ajv.compile(schema);
// By kind: otherwise a wrong panel would be reported once for every kind.
const kinds = new Map(
  schema.properties.panels.items.anyOf.map((panel) => [panel.properties.type.const, ajv.compile(panel)]),
);

// Each override as if it were a default of its panel: its properties have the same types.
function* overridden(panel) {
  yield panel;
  for (const { properties } of panel.fieldConfig?.overrides ?? []) {
    const copy = structuredClone(panel);
    for (const { id, value } of properties) {
      const path = id.split('.');
      const last = path.pop();
      path.reduce((node, key) => (node[key] ??= {}), copy.fieldConfig.defaults)[last] = value;
    }
    yield copy;
  }
}

function problems(validate, value, where) {
  if (!validate) {
    return [`${where}: a kind of panel that dashboard.ts does not list`];
  }
  validate(value);
  return (validate.errors ?? []).map((one) => `${where}${one.instancePath}: ${one.message} ${JSON.stringify(one.params)}`);
}

function problemsOf(content, file) {
  const panels = content.panels.flatMap((panel) =>
    [...overridden(panel)].flatMap((each) => problems(kinds.get(panel.type), each, `${file}: ${panel.title}`)),
  );
  return [...new Set([...problems(dashboard, { ...content, panels: [] }, file), ...panels])];
}

const files = process.argv.slice(2).map((file) => [file, JSON.parse(readFileSync(file, 'utf8'))]);
const found = files.flatMap(([file, content]) => problemsOf(content, file));

// Mistakes that must be found, or this script finds nothing.
const mistakes = {
  'a wrong word': (panel) => (panel.fieldConfig.defaults.custom.drawStyle = 'lines'),
  'an unknown option': (panel) => (panel.options.legned = {}),
  'a missing option': (panel) => delete panel.options.legend.placement,
  'a wrong type': (panel) => (panel.gridPos.w = '12'),
  'a wrong kind': (panel) => (panel.type = 'graph'),
  'a wrong override': (panel) =>
    panel.fieldConfig.overrides.push({
      matcher: { id: 'byName', options: 'x' },
      properties: [{ id: 'custom.lineStyle', value: { fill: 'dashed' } }],
    }),
  'a query without a name': (panel) => delete panel.targets[0].refId,
};
for (const [name, mistake] of Object.entries(mistakes)) {
  const content = structuredClone(files[0][1]);
  mistake(content.panels.find((panel) => panel.type === 'timeseries'));
  if (problemsOf(content, name).length <= problemsOf(files[0][1], name).length) {
    found.push(`check.mjs does not find ${name}`);
  }
}

console.log(found.join('\n') || `dashboards: ${files.length} valid for @grafana/schema`);
process.exit(found.length > 0 ? 1 : 0);
