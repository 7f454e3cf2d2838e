/**
 * Adds the blueprint from the node search to the demo workflow, in place of its caching node.
 * Prints the widgets that it shows, the prompt that the front end would queue, and its errors.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { title: name, workflow, values } = JSON.parse(json);

/** Put the new node between the model loader and what the caching node fed. */
async function placed({ name, values }) {
  const { graph } = window.app.canvas;
  const added = graph._nodes.find((node) => node.subgraph && node.title === name);
  const [loader] = graph.findNodesByType("UNETLoader");
  const [caching] = graph.findNodesByType("AccelApplyCacheDiT");
  const fed = caching.outputs[0].links.map((id) => graph.links.get(id));
  for (const { target_id, target_slot } of fed) {
    added.connect(0, graph.getNodeById(target_id), target_slot);
  }
  loader.connect(0, added, 0);
  graph.remove(caching);
  const shown = Object.fromEntries(added.widgets.map((widget) => [widget.name, widget.value]));
  for (const widget of added.widgets) {
    if (widget.name in values) widget.value = values[widget.name];
  }
  return { shown, prompt: (await window.app.graphToPrompt()).output };
}

const front = await Front.open({ url });
await front.configure({});
await front.load();
await front.page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
await front.command("Workspace.SearchBox.Toggle");
const search = front.page.getByPlaceholder("Add a node...");
await search.fill(name);
await front.page.getByText(name).first().waitFor();
await front.page.waitForTimeout(500);
await search.press("Enter");
await front.page.waitForFunction(
  (name) => window.app.canvas.graph._nodes.some((node) => node.subgraph && node.title === name),
  name,
);
const found = await front.page.evaluate(placed, { name, values });
await front.close();
console.log(JSON.stringify({ ...found, errors: front.errors }));
