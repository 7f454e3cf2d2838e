/**
 * Opens workflows one after the other. Prints, by name, which node types are missing, how many
 * nodes were opened, and what the front end logged as an error.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { paths } = JSON.parse(json);

/** Types of nodes that the front end does not know, inside subgraphs as well. */
function missingTypes() {
  const missing = [];
  let count = 0;
  const visit = (graph) => {
    for (const node of graph._nodes) {
      count += 1;
      if (node.subgraph) visit(node.subgraph);
      else if (!window.LiteGraph.registered_node_types[node.type]) missing.push(node.type);
    }
  };
  visit(window.app.canvas.graph);
  return { missing, count };
}

const front = await Front.open({ url });
await front.configure({});
await front.load();
const seen = {};
for (const path of paths) {
  front.errors.length = 0;
  const workflow = await (await fetch(`${url}/api/workflow_templates/${path}`)).json();
  await front.page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
  await front.page.waitForTimeout(500);
  seen[path] = { ...(await front.page.evaluate(missingTypes)), errors: [...front.errors] };
}
await front.close();
console.log(JSON.stringify(seen));
