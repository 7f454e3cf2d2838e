/**
 * What a scenario asks of the page about a node and its panel. Each function runs in the page, so it
 * holds all that it needs.
 */

/** What the panel of a node shows, or the only one, and whether it can be read. */
export function readPanel(node) {
  // Name of the widget in which the front end shows a node's progress text.
  const hostText = "$$node-text-preview";
  const own = window.app.canvas.graph.getNodeById(node)?.widgets ?? [];
  const framed = own.find((widget) => widget.element?.classList.contains("dit-live-frame"));
  const content = (framed?.element ?? document).querySelector(".dit-live-content");
  if (!content) return null;
  const numbers = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const scale = (color) => (color.startsWith("color(") ? 255 : 1);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((value) => {
      const part = (value * scale(color)) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = getComputedStyle(content).backgroundColor;
  const cells = {};
  for (const path of content.querySelectorAll(".dit-live-row:first-of-type path, svg path")) {
    const kind = path.getAttribute("class").replace("dit-live-", "");
    const count = path.getAttribute("d").split("M").length - 1;
    if (count) cells[kind] = { count, contrast: contrast(getComputedStyle(path).fill, ground) };
  }
  const frame = content.parentElement.getBoundingClientRect();
  const box = content.getBoundingClientRect();
  const graphNode = window.app.canvas.graph.getNodeById(node);
  return {
    text: content.innerText,
    sentence: content.querySelector(".dit-live-sentence")?.textContent ?? "",
    textContrast: contrast(getComputedStyle(content).color, ground),
    cells,
    // How many pixels of the panel its frame hides.
    hidden: Math.max(0, Math.round(box.bottom - frame.bottom)),
    hostTexts: (graphNode.widgets ?? []).filter((widget) => widget.name === hostText).length,
    rows: content.querySelectorAll(".dit-live-row").length,
  };
}

/** What the server would send of a run. The panel of the last one drawn is read. */
export function pretendRun([node, more]) {
  const marks = "cccccffcfffcfffcffcc";
  const steps = [...marks].map((_, step) => step);
  window.app.api.dispatchCustomEvent("dit_acceleration.progress", {
    node: String(node),
    prompt_id: "pretended",
    workflow: window.app.rootGraph.id,
    run: 1,
    technique: "Cache-DiT",
    sampler: "euler",
    steps: 20,
    step: 19,
    computed: 10,
    skipped: 10,
    seconds: 13,
    seconds_saved: 9.5,
    residual_bytes: 3 * 2 ** 20,
    residual_placement: "cpu",
    rows: [{ name: "cond", marks, steps, reasons: steps.map(() => 0) }],
    reasons: ["below threshold"],
    outcome: "finished",
    sentence: "Cache-DiT: skipped 10 of 20 evaluations, about 9.5 s of 23 s saved.",
    ...more,
  });
}

/** Where the node is on the page, with a little around it. */
export function whereNode(node) {
  const margin = 14;
  const drawn = document.querySelector(`[data-node-id="${node}"]`);
  const { canvas } = window.app;
  const { pos, size } = canvas.graph.getNodeById(node);
  const { scale, offset } = canvas.ds;
  const area = canvas.canvas.getBoundingClientRect();
  const title = window.LiteGraph.NODE_TITLE_HEIGHT;
  const box = drawn?.getBoundingClientRect() ?? {
    x: area.x + (pos[0] + offset[0]) * scale,
    y: area.y + (pos[1] + offset[1] - title) * scale,
    width: size[0] * scale,
    height: (size[1] + title) * scale,
  };
  return {
    x: box.x - margin,
    y: box.y - margin,
    width: box.width + 2 * margin,
    height: box.height + 2 * margin,
  };
}

/** Put Performance Mode into the demo in the place of its caching node; the new node's id. */
export function placePerformanceMode() {
  const { graph } = window.app.canvas;
  const [caching] = graph.findNodesByType("AccelApplyCacheDiT");
  const node = window.LiteGraph.createNode("AccelPerformanceMode");
  node.pos = [...caching.pos];
  node.size = [320, node.size[1]];
  graph.add(node);
  const fed = caching.outputs[0].links.map((id) => graph.links.get(id));
  for (const { target_id, target_slot } of fed) {
    node.connect(0, graph.getNodeById(target_id), target_slot);
  }
  graph.findNodesByType("UNETLoader")[0].connect(0, node, 0);
  graph.remove(caching);
  window.ended = 0;
  window.app.api.addEventListener("execution_success", () => (window.ended += 1));
  return node.id;
}

/** Take the demo's branch without acceleration out. */
export function removeBaseline() {
  const { graph } = window.app.canvas;
  const fedBy = (node) => node.outputs?.flatMap((_, slot) => node.getOutputNodes(slot) ?? []) ?? [];
  const remove = (node) => {
    fedBy(node).forEach(remove);
    if (graph.getNodeById(node.id)) graph.remove(node);
  };
  remove(graph._nodes.find((node) => node.title === "Baseline: stopwatch"));
}
