/**
 * Badge, presets table, toggle command and settings of the pack, in the demo with Performance Mode.
 * Prints what was seen as JSON.
 */

import { Front } from "./page.mjs";
import { placePerformanceMode, removeBaseline, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, seed, steps, workflow } = JSON.parse(json);
const name = (text) => `${folder}/${text}_${vue ? "nodes2" : "canvas"}_${theme}.png`;

const front = await Front.open({ url, viewport: { width: 1200, height: 1000 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors };

/** The badges' texts of a node; ours stands in the header in Nodes 2.0. */
function badges(id) {
  const node = window.app.canvas.graph.getNodeById(id);
  if (window.LiteGraph.vueNodesMode) {
    const shown = document.querySelectorAll(`[data-testid="node-header-${id}"] .dit-live-gained`);
    return [...shown].map((badge) => badge.textContent);
  }
  return node.badges.map((badge) => (badge.call ? badge() : badge).text).filter(Boolean);
}

function presets() {
  return [...document.querySelectorAll(".dit-live-table tr")].map((row) =>
    [...row.cells].map((cell) => cell.textContent),
  );
}

async function run(approximation, seed) {
  await page.evaluate(
    ([node, approximation, seed, steps]) => {
      const { graph } = window.app.canvas;
      const set = (node, name, value) => {
        node.widgets.find((widget) => widget.name === name).value = value;
      };
      set(graph.getNodeById(node), "approximation", approximation);
      const [sampler] = graph.findNodesByType("KSampler");
      set(sampler, "seed", seed);
      set(sampler, "steps", steps);
      window.ended = 0;
    },
    [node, approximation, seed, steps],
  );
  await front.command("Comfy.QueuePrompt");
  await page.waitForFunction(() => window.ended === 1, undefined, { timeout: 240_000 });
  await page.waitForTimeout(900);
}

async function readBadges() {
  await page.waitForTimeout(700); // The header is looked at twice a second.
  return page.evaluate(badges, node);
}

const press = () =>
  page.evaluate((node) => {
    const { widgets } = window.app.canvas.graph.getNodeById(node);
    widgets.find((widget) => widget.type === "button").callback();
  }, node);
const modes = () =>
  page.evaluate(() =>
    window.app.canvas.graph._nodes
      .filter((node) => node.type.startsWith("Accel"))
      .map((node) => [node.type, node.mode]),
  );
const picture = async (text) =>
  page.screenshot({ path: name(text), clip: await page.evaluate(whereNode, node) });

await front.configure({ theme, vue });
await front.setting("DiTAcceleration.Preset", "fast");
await front.load();
await front.show(workflow);
await page.waitForFunction(
  () => window.app.canvas.graph?.findNodesByType("AccelApplyCacheDiT").length,
);
await page.evaluate(removeBaseline);
const node = await page.evaluate(placePerformanceMode);
seen.ofNew = await page.evaluate(
  (node) =>
    window.app.canvas.graph.getNodeById(node).widgets.find((w) => w.name === "approximation").value,
  node,
);
await front.focus(node, 1.2);
seen.badgeBefore = await readBadges();
seen.values = await page.evaluate(
  (node) => window.app.canvas.graph.getNodeById(node).serialize().widgets_values,
  node,
);

await press();
await page.waitForSelector(".dit-live-table");
seen.planned = await page.evaluate(presets);
seen.plannedFor = await page.locator(".dit-live-table + .dit-live-sentence").textContent();
await page.waitForTimeout(1500); // The node grows in the next drawn frames.
await picture("outlook_before");
await run("off", seed);
seen.badgeOff = await readBadges();
await run("fast", seed);
seen.badge = await readBadges();
seen.measured = await page.evaluate(presets);
seen.gains = await page.locator(".dit-live-gains").first().textContent();
seen.measuredFor = await page.locator(".dit-live-table + .dit-live-sentence").textContent();
await picture("outlook_after");
seen.titleShown = await page.evaluate(
  (node) => document.querySelector(`[data-node-id="${node}"]`)?.innerText ?? null,
  node,
);

await front.reload();
await page.waitForSelector(".dit-live-sentence", { timeout: 240_000 });
await front.focus(node, 1.2);
seen.badgeReloaded = await readBadges();
await press();
await page.waitForSelector(".dit-live-table");
seen.reloaded = await page.evaluate(presets);
await press();
seen.closed = await page.locator(".dit-live-table").count();

await front.command("ditAcceleration.toggle");
seen.toggled = await modes();
seen.badgeBypassed = await readBadges();
await front.command("ditAcceleration.toggle");
seen.toggledBack = await modes();

await page.evaluate(
  ([node]) => {
    const { graph } = window.app.canvas;
    const mode = graph.getNodeById(node);
    const other = window.LiteGraph.createNode("AccelApplyTeaCache");
    other.pos = [mode.pos[0], mode.pos[1] + 600];
    graph.add(other);
    mode.connect(0, other, 0);
  },
  [node],
);
seen.replaced = await readBadges();

await page.evaluate(() => window.app.extensionManager.setting.set("DiTAcceleration.Panels", false));
await page.waitForTimeout(500);
seen.panelsHidden = await page.$$eval(".dit-live-frame", (frames) =>
  frames.map((frame) => frame.offsetHeight),
);
await page.evaluate(() => window.app.extensionManager.setting.set("DiTAcceleration.Panels", true));
seen.command = await page.evaluate(
  () => window.app.extensionManager.command.commands.find((c) => c.id === "ditAcceleration.toggle")?.label,
);
await front.command("Comfy.ShowSettingsDialog");
await page.locator("[role=dialog]").getByText("DiT Acceleration", { exact: true }).first().click();
await page.waitForSelector(".dit-settings-history");
seen.history = await page.locator(".dit-settings-history span").textContent();
await page.screenshot({ path: name("settings") });
await page.locator(".dit-settings-clear").click();
seen.cleared = await page.locator(".dit-settings-history span").textContent();
seen.kept = await page.evaluate(
  () => Object.keys(localStorage).filter((key) => key.startsWith("ditAcceleration.")).length,
);
await front.setting("DiTAcceleration.Preset", "quality");
await front.close();
console.log(JSON.stringify(seen));
