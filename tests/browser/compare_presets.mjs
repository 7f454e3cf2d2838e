/**
 * The command "Compare presets" in the demo with Performance Mode: what its dialog shows, that it
 * can be canceled, and that the workflow stays as it was. Prints what was seen as JSON.
 */

import { Front } from "./page.mjs";
import { placePerformanceMode, removeBaseline } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, steps, seed, workflow } = JSON.parse(json);
const COMMAND = "ditAcceleration.comparePresets";

const front = await Front.open({ url, viewport: { width: 1300, height: 1000 } });
const { page } = front;
const seen = { errors: front.errors };

/**
 * The workflow as it would be saved, but for how high nodes are: their panels make them grow. And
 * but for lists of no values: front end 1.58 writes them for a node that has only a panel.
 */
const saved = () =>
  page.evaluate(() => {
    const { nodes, links } = window.app.graph.serialize();
    const said = ([key, value]) =>
      key !== "size" && (!key.startsWith("widgets_values") || Object.keys(value).length);
    const kept = nodes.map((node) => Object.entries(node).filter(said));
    return JSON.stringify([kept, links]);
  });

/** Wait until so many prompts run or wait. */
async function queued(count) {
  for (let tries = 0; tries < 600; tries++) {
    const { queue_running, queue_pending } = await (await fetch(`${url}/api/queue`)).json();
    if (queue_running.length + queue_pending.length === count) return;
    await page.waitForTimeout(200);
  }
  throw new Error(`there are not ${count} prompts in the queue`);
}

async function setUp(steps) {
  await page.evaluate(
    ([steps, seed]) => {
      const [sampler] = window.app.canvas.graph.findNodesByType("KSampler");
      for (const widget of sampler.widgets) {
        if (widget.name === "seed") widget.value = seed;
        if (widget.name === "steps") widget.value = steps;
      }
    },
    [steps, seed],
  );
}

await front.configure({ theme, vue });
await front.load();
await front.show(workflow);
await page.waitForFunction(
  () => window.app.canvas.graph?.findNodesByType("AccelApplyCacheDiT").length,
);
await page.evaluate(removeBaseline);
const node = await page.evaluate(placePerformanceMode);
await front.focus(node, 1);
await setUp(steps);
const before = await saved();
await front.command(COMMAND);
await page.waitForSelector(".dit-presets-bar", { timeout: 120_000 });
await page.waitForFunction(
  () => document.querySelector(".dit-presets-line")?.textContent.includes("Run 3 of"),
  undefined,
  { timeout: 240_000 },
);
seen.running = await page.locator(".dit-presets-line").textContent();
await page.screenshot({ path: `${folder}/presets_running_${vue ? "nodes2" : "canvas"}_${theme}.png` });
await page.waitForSelector(".dit-presets-table", { timeout: 120_000 });
await page.waitForFunction(() =>
  [...document.querySelectorAll(".dit-slider-frame img")].every((image) => image.naturalWidth),
);
seen.rows = await page.$$eval(".dit-presets-table tr", (rows) =>
  rows.map((row) => [...row.cells].map((cell) => cell.textContent)),
);
await page.locator(".dit-presets-table tr").last().click();
seen.chosen = await page.locator(".dit-slider-right").textContent();
await page.locator(".dit-slider-frame").hover({ position: { x: 150, y: 80 } });
seen.clip = await page.$eval(
  ".dit-slider-medium + .dit-slider-medium",
  (image) => image.style.clipPath,
);
await page.screenshot({ path: `${folder}/presets_table_${vue ? "nodes2" : "canvas"}_${theme}.png` });
await page.getByText("Close", { exact: true }).last().click();
seen.closed = await page.locator(".dit-presets-dialog").count();
seen.unchanged = (await saved()) === before;

await setUp(3000);
const long = await saved();
await front.command(COMMAND);
await queued(1);
await page.locator(".dit-presets-buttons").getByText("Cancel").click();
await queued(0);
seen.unchangedAfterCancel = (await saved()) === long;

await page.evaluate(() => {
  const { graph } = window.app.canvas;
  graph.remove(graph.findNodesByType("AccelPerformanceMode")[0]);
});
await front.command(COMMAND);
await page.waitForFunction(() =>
  document.querySelector(".dit-presets-line")?.textContent.includes("Performance Mode"),
);
seen.refused = await page.locator(".dit-presets-line").textContent();
await front.close();
console.log(JSON.stringify(seen));
