/**
 * The panel beside what people do with its node: other nodes below it, mute, bypass, copy and paste,
 * subgraphs. The runs are pretended; prints what was seen as JSON.
 */

import { Front } from "./page.mjs";
import { pretendRun, readPanel, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, folder, workflow, node, blueprint } = JSON.parse(json);

const front = await Front.open({ url, viewport: { width: 1100, height: 1000 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors };

async function run(id, more = {}) {
  await page.evaluate(pretendRun, [id, more]);
  await page.waitForTimeout(900);
}

const read = (id = node) => page.evaluate(readPanel, id);
const box = (id) =>
  page.evaluate((id) => {
    const node = window.app.canvas.graph.getNodeById(id);
    const [, height] = node.renderingSize;
    return { top: node.pos[1], bottom: node.pos[1] + height, height };
  }, id);
/** The only panel that is seen. */
const panel = page.locator(".dit-live-content:visible");
/** How much of it is shown. */
const level = () => panel.getAttribute("data-level");
const saved = (id) =>
  page.evaluate((id) => window.app.canvas.graph.getNodeById(id).serialize().size[1], id);

async function picture(name, id = node) {
  const path = `${folder}/panels_${name}_${vue ? "nodes2" : "canvas"}.png`;
  await page.screenshot({ path, clip: await page.evaluate(whereNode, id) });
}

/** A node below another one, with so much space for the eye between them before it had a panel. */
function putBelow([id, gap]) {
  const { graph } = window.app.canvas;
  const above = graph.getNodeById(id);
  const below = window.LiteGraph.createNode("PreviewAny");
  above.heightBefore ??= above.renderingSize[1];
  const bottom = above.pos[1] + above.heightBefore;
  below.pos = [above.pos[0] + 20, bottom + window.LiteGraph.NODE_TITLE_HEIGHT + gap];
  graph.add(below);
  return below.id;
}

const remove = (id) =>
  page.evaluate((id) => {
    const { graph } = window.app.canvas;
    graph.remove(graph.getNodeById(id));
  }, id);

async function rest(mode) {
  await page.evaluate(
    ([node, mode]) => (window.app.canvas.graph.getNodeById(node).mode = mode),
    [node, mode],
  );
  await page.waitForTimeout(700);
  const found = await page.evaluate(() => {
    const content = document.querySelector(".dit-live-content");
    const strip = content.querySelector(".dit-live-rows");
    return {
      place: content.querySelector(".dit-live-place").textContent,
      opacity: Number(getComputedStyle(strip).opacity),
    };
  });
  return found;
}

/** What Nodes 2.0 shows on the node of how much faster the run was, besides the panel. */
const factors = () =>
  page.evaluate(
    (node) =>
      [...document.querySelectorAll(`[data-node-id="${node}"] *`)]
        .filter((part) => !part.children.length && /^[\d.]+×$/.test(part.textContent.trim()))
        .map((part) => part.textContent.trim()),
    node,
  );

/** Texts in the header of Nodes 2.0 that our badge lies upon. */
const covered = () =>
  page.evaluate((node) => {
    const header = document.querySelector(`[data-testid="node-header-${node}"]`);
    const badge = header?.querySelector(".dit-live-gained")?.getBoundingClientRect();
    return [...(header?.querySelectorAll("*:not(.dit-live-gained)") ?? [])]
      .filter((part) => [...part.childNodes].some((each) => each.nodeType === 3 && each.data.trim()))
      .filter((part) => {
        const box = part.getBoundingClientRect();
        return box.right > badge.left && box.left < badge.right;
      })
      .map((part) => part.textContent);
  }, node);

await front.configure({ theme: "dark", vue });
await front.load();
await page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
await page.waitForFunction((node) => window.app.canvas.graph?.getNodeById(node), node);
await front.focus(node, 1.2);

// Nothing below: all of it is shown, and what is saved does not know of it.
seen.before = await box(node);
seen.savedBefore = await saved(node);
await run(node);
seen.free = { ...(await read()), ...(await box(node)) };
seen.savedAfter = await saved(node);
await page.waitForTimeout(700); // The badge is looked at every half second.
seen.factors = await factors();
await picture("free");

// A copy has no panel, and no place for one.
await page.evaluate((node) => {
  const { canvas } = window.app;
  canvas.select?.(canvas.graph.getNodeById(node));
  canvas.copyToClipboard(new Set([canvas.graph.getNodeById(node)]));
  const [x, y] = canvas.graph.getNodeById(node).pos;
  const before = new Set(canvas.graph._nodes.map((each) => each.id));
  canvas.pasteFromClipboard({ position: [x + 500, y] });
  window.pasted = canvas.graph._nodes.find((each) => !before.has(each.id)).id;
}, node);
await page.waitForTimeout(700);
const pasted = await page.evaluate(() => window.pasted);
seen.pasted = await box(pasted);
await remove(pasted);

// It is not run, or another one has its place.
seen.muted = await rest(2);
seen.bypassed = await rest(4);
seen.covered = await covered();
await picture("bypassed");
seen.runs = await rest(0);
await run(node, {
  outcome: "replaced",
  rows: [],
  sentence: "Cache-DiT: Apply TeaCache comes after it on this model and takes its place.",
});
seen.replaced = await read();
await page.waitForTimeout(700);
seen.factorsReplaced = await factors();
await picture("replaced");

// Less and less room below.
seen.room = {};
for (const gap of [110, 60]) {
  await page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
  await page.waitForTimeout(900);
  await front.focus(node, 1.2);
  await page.evaluate(() => localStorage.clear());
  await page.evaluate((workflow) => window.app.loadGraphData(workflow, true, true), workflow);
  await page.waitForTimeout(900);
  await front.focus(node, 1.2);
  const below = await page.evaluate(putBelow, [node, gap]);
  await page.waitForTimeout(500);
  await run(node);
  seen.room[gap] = {
    level: await level(),
    node: await box(node),
    below: await box(below),
    ...(await read()),
  };
  await picture(`room_${gap}`);
  await remove(below);
}

// In a subgraph the outer node shows it as well.
const ids = await page.evaluate((node) => {
  const { graph } = window.app.canvas;
  const made = graph.convertToSubgraph(new Set([graph.getNodeById(node)]));
  window.inner = made.subgraph._nodes[0];
  window.outer = made.node;
  return { outer: made.node.id, inner: window.inner.id };
}, node);
await page.waitForTimeout(700);
const outerSaved = () => page.evaluate(() => [...window.outer.serialize().size]);
const savedOuter = await outerSaved();
await front.focus(ids.outer, 1.2);
seen.roomOuter = {};
// The canvas leaves more around a panel than Nodes 2.0.
for (const [name, gap] of [["some", 150], ["little", vue ? 40 : 60]]) {
  const below = await page.evaluate(putBelow, [ids.outer, gap]);
  await run(`${ids.outer}:${ids.inner}`);
  seen.roomOuter[name] = {
    level: await level(),
    node: await box(ids.outer),
    below: await box(below),
    ...(await read(ids.outer)),
  };
  await picture(`room_outer_${name}`, ids.outer);
  if (name === "little") {
    await panel.click();
    await page.waitForTimeout(500);
    seen.opened = await level();
  }
  await remove(below);
}
seen.subgraph = {
  saved: [savedOuter, await outerSaved()],
  ...(await read(ids.outer)),
  inner: await page.evaluate(() => window.inner.widgets.map((widget) => widget.name)),
  box: await box(ids.outer),
};
await picture("subgraph", ids.outer);

// So does the blueprint, which is one.
await page.evaluate((blueprint) => window.app.loadGraphData(blueprint, true, true), blueprint);
await page.waitForTimeout(900);
const made = await page.evaluate(() => {
  window.outer = window.app.canvas.graph._nodes.find((each) => each.subgraph);
  const inner = window.outer.subgraph._nodes.find((each) => each.type === "AccelPerformanceMode");
  return { outer: window.outer.id, inner: inner.id };
});
await front.focus(made.outer, 1.2);
await run(`${made.outer}:${made.inner}`, { technique: "Performance Mode" });
seen.blueprint = {
  ...(await read(made.outer)),
  widgets: await page.evaluate(() => window.outer.widgets.map((widget) => widget.name)),
  saved: await page.evaluate(() => JSON.stringify(window.app.rootGraph.serialize())),
};
await picture("blueprint", made.outer);

await front.close();
console.log(JSON.stringify(seen));
