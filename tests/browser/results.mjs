/**
 * Output nodes of ours in the demo: what each shows on itself when it has run. Prints it as JSON.
 */

import { Front } from "./page.mjs";
import { whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, seed, workflow } = JSON.parse(json);

/** Add Compare Quality and Save Acceleration Config; ids by type, with those of the demo's own. */
function place() {
  const { graph } = window.app.canvas;
  const saves = graph.findNodesByType("SaveImage");
  const [caching] = graph.findNodesByType("AccelApplyCacheDiT");
  const right = Math.max(...graph._nodes.map((node) => node.pos[0] + node.size[0])) + 80;
  const add = (type, y) => {
    const node = window.LiteGraph.createNode(type);
    node.pos = [right, y];
    graph.add(node);
    return node;
  };
  const compare = add("AccelCompareQuality", 0);
  const behind = (node) => (node === caching ? true : upstream(node).some(behind));
  const upstream = (node) =>
    (node.inputs ?? []).map((_, slot) => node.getInputNode(slot)).filter(Boolean);
  for (const save of saves) {
    const slot = behind(save) ? "accelerated" : "baseline";
    const link = graph.links.get(save.inputs[0].link);
    graph.getNodeById(link.origin_id).connect(link.origin_slot, compare, slot);
  }
  caching.connect(0, add("AccelSaveConfig", 1000), 0);
  const attention = add("AccelAttentionBackend", 1400);
  const calibrate = add("AccelCalibrateTeaCache", 1900);
  const [loader] = graph.findNodesByType("UNETLoader");
  loader.connect(0, calibrate, "model");
  loader.connect(0, attention, 0);
  attention.connect(0, caching, 0);
  const [sampler] = graph.findNodesByType("KSampler");
  for (const name of ["positive", "negative", "latent_image"]) {
    const { link } = sampler.inputs.find((input) => input.name === name);
    const { origin_id, origin_slot } = graph.links.get(link);
    graph.getNodeById(origin_id).connect(origin_slot, calibrate, name);
  }
  attention.widgets.find((widget) => widget.name === "backend").value = "sdpa_math";
  calibrate.widgets.find((widget) => widget.name === "steps").value = 20;
  for (const sampler of graph.findNodesByType("KSampler")) {
    for (const widget of sampler.widgets) if (widget.name === "steps") widget.value = 12;
  }
  const shown = [
    "AccelCompareQuality",
    "AccelSaveConfig",
    "AccelReport",
    "AccelCalibrateTeaCache",
    "AccelAttentionBackend",
  ];
  return Object.fromEntries(shown.map((type) => [type, graph.findNodesByType(type)[0].id]));
}

/** What a node shows: words, the slider's pictures, and pictures of the front end. */
function read(id) {
  const node = window.app.canvas.graph.getNodeById(id);
  const names = ["dit_acceleration_result", "dit_acceleration_live"];
  const widget = node.widgets?.find((one) => names.includes(one.name));
  const content = widget?.element?.querySelector(".dit-live-content");
  return {
    first: content?.querySelector(".dit-live-result")?.textContent ?? null,
    text: content?.innerText ?? null,
    slider: [...(content?.querySelectorAll(".dit-slider-medium") ?? [])].map(
      (image) => image.naturalWidth,
    ),
    bars: [...(content?.querySelectorAll(".dit-live-count") ?? [])].map((bar) => bar.innerText),
    values: node.serialize().widgets_values,
    drawings: [...(content?.querySelectorAll(".dit-live-drawing") ?? [])].map(
      (image) => image.naturalWidth,
    ),
    // How far the panel ends below the node, on the page.
    below: content
      ? Math.max(
          0,
          Math.round(content.getBoundingClientRect().bottom - window.nodeBottom(node)),
        )
      : null,
    hidden: content
      ? Math.max(
          0,
          Math.round(
            content.getBoundingClientRect().bottom -
              content.parentElement.getBoundingClientRect().bottom,
          ),
        )
      : null,
  };
}

const front = await Front.open({ url, viewport: { width: 1100, height: 1400 } });
const { page } = front;
const seen = { errors: front.errors, nodes: {} };
await front.configure({ theme, vue });
await front.load();
await front.show(workflow);
await page.waitForFunction(
  () => window.app.canvas.graph?.findNodesByType("AccelApplyCacheDiT").length,
);
const ids = await page.evaluate(place);
await page.evaluate((seed) => {
  for (const sampler of window.app.canvas.graph.findNodesByType("KSampler")) {
    for (const widget of sampler.widgets) if (widget.name === "seed") widget.value = seed;
  }
  window.nodeBottom = (node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    if (drawn) return drawn.getBoundingClientRect().bottom;
    const { canvas } = window.app;
    const top = canvas.canvas.getBoundingClientRect().y;
    return top + (node.pos[1] + node.size[1] + canvas.ds.offset[1]) * canvas.ds.scale;
  };
  window.ended = 0;
  window.app.api.addEventListener("execution_success", () => (window.ended += 1));
}, seed);
await page.waitForTimeout(700); // Nodes 2.0 gives new nodes their size when it draws them.
const savedSizes = () =>
  page.evaluate(
    (ids) => ids.map((id) => [...window.app.canvas.graph.getNodeById(id).serialize().size]),
    Object.values(ids),
  );
seen.savedBefore = await savedSizes();
seen.prompt = await page.evaluate(async () => (await window.app.graphToPrompt()).output);
await front.command("Comfy.QueuePrompt");
await page.waitForFunction(() => window.ended === 1, undefined, { timeout: 120_000 });
seen.promptAfter = await page.evaluate(async () => (await window.app.graphToPrompt()).output);
await page.waitForTimeout(1500); // Pictures load, and nodes grow in the next drawn frames.
for (const [type, id] of Object.entries(ids)) {
  await front.focus(id, 1);
  await page.waitForTimeout(700);
  seen.nodes[type] = await page.evaluate(read, id);
  await page.screenshot({
    path: `${folder}/result_${type}_${vue ? "nodes2" : "canvas"}_${theme}.png`,
    clip: await page.evaluate(whereNode, id),
  });
}
seen.savedAfter = await savedSizes();
await front.close();
console.log(JSON.stringify(seen));
