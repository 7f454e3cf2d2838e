/**
 * Performance Mode in the demo, in the place of its caching node: run it, choose other
 * approximations on the node, run it again. Prints what its panel shows after each run as JSON.
 */

import { Front } from "./page.mjs";
import { placePerformanceMode, readPanel, removeBaseline, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { approximations, steps, folder, workflow } = JSON.parse(json);

/** Middle of a widget on the page. */
function whereWidget([node, name]) {
  const { canvas } = window.app;
  const { pos, size, widgets } = canvas.graph.getNodeById(node);
  const widget = widgets.find((entry) => entry.name === name);
  const { scale, offset } = canvas.ds;
  const area = canvas.canvas.getBoundingClientRect();
  return {
    x: area.x + (pos[0] + size[0] / 2 + offset[0]) * scale,
    y: area.y + (pos[1] + widget.y + window.LiteGraph.NODE_WIDGET_HEIGHT / 2 + offset[1]) * scale,
  };
}

const front = await Front.open({ url, viewport: { width: 1100, height: 900 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors, values: [], panels: [] };

async function choose(value) {
  const { x, y } = await page.evaluate(whereWidget, [node, "approximation"]);
  await page.mouse.click(x, y);
  await page.locator(".litemenu-entry").getByText(value, { exact: true }).click();
}

async function run(seed) {
  await page.evaluate(
    ([seed, steps]) => {
      const [sampler] = window.app.canvas.graph.findNodesByType("KSampler");
      for (const widget of sampler.widgets) {
        if (widget.name === "seed") widget.value = seed;
        if (widget.name === "steps") widget.value = steps;
      }
      window.ended = 0;
    },
    [seed, steps],
  );
  await front.command("Comfy.QueuePrompt");
  await page.waitForFunction(() => window.ended === 1, undefined, { timeout: 60_000 });
  await page.waitForTimeout(700); // The node grows in the next drawn frames.
}

await front.configure({ theme: "dark", vue: false });
await front.load();
await front.show(workflow);
await page.waitForFunction(
  () => window.app.canvas.graph?.findNodesByType("AccelApplyCacheDiT").length,
);
await page.evaluate(removeBaseline);
const node = await page.evaluate(placePerformanceMode);
await front.focus(node, 1.3);
for (const [index, approximation] of approximations.entries()) {
  await choose(approximation);
  await run(100 + index);
  seen.values.push(
    await page.evaluate(
      (node) =>
        window.app.canvas.graph.getNodeById(node).widgets.find((w) => w.name === "approximation")
          .value,
      node,
    ),
  );
  seen.panels.push(await page.evaluate(readPanel, node));
  await page.screenshot({
    path: `${folder}/performance_mode_${approximation}.png`,
    clip: await page.evaluate(whereNode, node),
  });
}

await front.reload();
await page.waitForSelector(".dit-live-sentence", { timeout: 60_000 });
seen.reloaded = await page.evaluate(readPanel, node);
await front.close();
console.log(JSON.stringify(seen));
