/**
 * Opens old workflows and lets the front end replace their dead nodes, as a person does. Prints,
 * by name, the prompt that the front end would queue then, and what it logged as an error.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { workflows } = JSON.parse(json);

const front = await Front.open({ url });
await front.configure({});
await front.load();
const seen = {};
for (const [name, workflow] of Object.entries(workflows)) {
  front.errors.length = 0;
  await front.page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
  await front.page.getByTestId("error-overlay-see-errors").click();
  await front.page.getByText("Replace All", { exact: true }).click();
  await front.page.waitForFunction(() =>
    window.app.canvas.graph._nodes.every(
      (node) => window.LiteGraph.registered_node_types[node.type],
    ),
  );
  const prompt = await front.page.evaluate(async () => (await window.app.graphToPrompt()).output);
  seen[name] = { prompt, errors: [...front.errors] };
}
await front.close();
console.log(JSON.stringify(seen));
