/**
 * Progressive Resolution behind Performance Mode in the demo: both panels after a run, and what the
 * page says of single cells. Prints it as JSON.
 */

import { Front } from "./page.mjs";
import { placePerformanceMode, readPanel, removeBaseline, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, steps, seed, workflow } = JSON.parse(json);

const front = await Front.open({ url, viewport: { width: 1100, height: 1100 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors };

/** Put Progressive Resolution between Performance Mode and what it feeds; the new node's id. */
function placeSizes([mode, steps, seed]) {
  const { graph } = window.app.canvas;
  const before = graph.getNodeById(mode);
  const node = window.LiteGraph.createNode("AccelProgressiveResolution");
  node.pos = [before.pos[0], before.pos[1] + before.size[1] + 420];
  graph.add(node);
  const fed = before.outputs[0].links.map((id) => graph.links.get(id));
  for (const { target_id, target_slot } of fed) {
    node.connect(0, graph.getNodeById(target_id), target_slot);
  }
  before.connect(0, node, 0);
  const set = (one, name, value) => {
    one.widgets.find((widget) => widget.name === name).value = value;
  };
  set(node, "mode", "custom");
  set(node, "switch_sigma", 0.8);
  set(before, "approximation", "balanced");
  const [sampler] = graph.findNodesByType("KSampler");
  set(sampler, "steps", steps);
  set(sampler, "seed", seed);
  window.told = [];
  window.app.api.addEventListener("dit_acceleration.progress", ({ detail }) => {
    window.told.push(detail);
  });
  return node.id;
}

/** What pointing at the first and the last cell of a node's strip says, and how wide cells are. */
async function cells(node) {
  const strip = await page.evaluateHandle((node) => {
    const { widgets } = window.app.canvas.graph.getNodeById(node);
    const own = widgets.find((widget) => widget.element?.classList.contains("dit-live-frame"));
    return own.element.querySelector(".dit-live-strip");
  }, node);
  const box = await strip.boundingBox();
  const said = [];
  for (const at of [0.01, 0.99]) {
    await strip.dispatchEvent("pointermove", { clientX: box.x + box.width * at, clientY: box.y });
    said.push(await strip.evaluate((svg) => svg.querySelector("title").textContent));
  }
  const widths = await strip.evaluate((svg) =>
    [...svg.querySelectorAll("path")]
      .flatMap((path) => [...path.getAttribute("d").matchAll(/M(\d+) \d+h([\d.]+)/g)])
      .sort((a, b) => a[1] - b[1])
      .map((found) => Number(found[2])),
  );
  return { said, widths };
}

await front.configure({ theme, vue });
await front.load();
await front.show(workflow);
await page.waitForFunction(
  () => window.app.canvas.graph?.findNodesByType("AccelApplyCacheDiT").length,
);
await page.evaluate(removeBaseline);
const mode = await page.evaluate(placePerformanceMode);
const sizes = await page.evaluate(placeSizes, [mode, steps, seed]);
await front.focus(mode, 0.9);
await front.command("Comfy.QueuePrompt");
await page.waitForFunction(() => window.ended === 1, undefined, { timeout: 120_000 });
await page.waitForTimeout(700); // The nodes grow in the next drawn frames.

seen.told = await page.evaluate(() => window.told);
seen.nodes = { mode: String(mode), sizes: String(sizes) };
for (const [name, node] of [["mode", mode], ["sizes", sizes]]) {
  await front.focus(node, 1.2);
  seen[name] = { panel: await page.evaluate(readPanel, node), ...(await cells(node)) };
  const path = `${folder}/sizes_${name}_${vue ? "nodes2" : "canvas"}_${theme}.png`;
  await page.screenshot({ path, clip: await page.evaluate(whereNode, node) });
}
await front.close();
console.log(JSON.stringify(seen));
