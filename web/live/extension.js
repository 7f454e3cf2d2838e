// @ts-check
/**
 * The live report: shows on a node what its MODEL's sampling run computes and skips.
 *
 * A node gets its panel with its first run; nothing needs to know which nodes these are.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { find, shownGraph } from "./graph.js";
import { Panel } from "./panel.js";
import { recall, remember } from "./memory.js";
import { addStyle } from "./style.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").GraphNode} GraphNode */

const EVENT = "dit_acceleration.progress";
/** Name of the widget in which the front end shows a node's progress text. */
const HOST_TEXT = "$$node-text-preview";

const UNSEEN = "This page did not see the end of the run.";

/** @type {WeakMap<GraphNode, Panel>} */
const panels = new WeakMap();

/** Ids of nodes that have told of a run since the page was opened. */
const told = new Set();

/** @param {Progress} progress */
function show(progress) {
  const node = find(progress.node);
  if (!node) return;
  let panel = panels.get(node);
  if (!panel) {
    panel = new Panel(node, (event) => app.canvas?.processMouseWheel?.(event));
    panels.set(node, panel);
  }
  panel.show(progress);
}

/** @param {Progress} progress */
function receive(progress) {
  told.add(progress.node);
  const shown = shownGraph().id;
  const workflow = progress.workflow ?? shown;
  remember(workflow, progress);
  // The page may show another workflow by now, with another node of this id.
  if (workflow === shown) show(progress);
}

/**
 * Take away the text that is meant for clients without a panel, before it is ever drawn.
 * @param {string} id
 */
function dropText(id) {
  const node = told.has(id) ? find(id) : undefined;
  const text = node?.widgets?.find((widget) => widget.name === HOST_TEXT);
  if (node && text) node.removeWidget?.(text);
}

function restore() {
  for (const progress of recall(shownGraph().id)) {
    // If the run still goes on, its next event takes this away.
    const sentence = progress.outcome === "running" ? UNSEEN : progress.sentence;
    show({ ...progress, sentence });
  }
}

app.registerExtension({
  name: "ditAcceleration.liveReport",
  setup() {
    addStyle("panel.css");
    api.addEventListener(EVENT, (event) => receive(event.detail));
    api.addEventListener("progress_text", (event) => {
      // The front end's own listener must have had its turn.
      queueMicrotask(() => dropText(String(event.detail?.nodeId)));
    });
  },
  afterConfigureGraph: restore,
});
