// @ts-check
/**
 * A badge on the title of our nodes: what the last run gained ("1.9×"), "off", or "replaced".
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { find, kindOf, shownGraph } from "./graph.js";
import { recall } from "./memory.js";
import { badgeText, replaces, skips } from "./badge_text.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").Progress} Progress */

const EVENT = "dit_acceleration.progress";

const CLASS = "dit-live-gained";
const LOOK_MILLISECONDS = 500;

/** @type {Map<GraphNode, Progress>} The last run of a node. */
const runs = new Map();

/**
 * Whether a caching node comes after this one on its MODEL, which then counts.
 * @param {GraphNode} node
 */
function isReplaced(node) {
  const ahead = [node];
  for (const each of ahead) {
    for (const [slot, output] of (each.outputs ?? []).entries()) {
      if (output.type !== "MODEL") continue;
      for (const next of each.getOutputNodes?.(slot) ?? []) {
        if (replaces(node.type, next.type, next.mode ?? 0)) return true;
        if (!ahead.includes(next) && ahead.length < 100) ahead.push(next);
      }
    }
  }
  return false;
}

/** @param {GraphNode} node */
function textOf(node) {
  return badgeText(runs.get(node), node.mode ?? 0, () => isReplaced(node));
}

/** @param {GraphNode} node */
function mark(node) {
  const Badge = window.LGraphBadge;
  if (!Badge || !node.badges) return;
  let badge = new Badge({ text: "" });
  node.badges.push(() => {
    // The canvas asks at every drawing; a badge without text takes no place. Nodes 2.0 asks now and
    // then, and would show what was once true in the footer beside the one in the header.
    const text = window.LiteGraph.vueNodesMode ? "" : textOf(node);
    if (badge.text !== text) badge = new Badge({ text, fgColor: "#fff", bgColor: "#1c7a4c" });
    return badge;
  });
}

/** @param {Progress} run */
function receive(run) {
  if ((run.workflow ?? shownGraph().id) !== shownGraph().id) return;
  const node = find(run.node);
  if (!node || !skips(node.type)) return;
  runs.set(node, run);
  node.setDirtyCanvas(true, true);
}

/**
 * Nodes 2.0 looks at badges only when a node is made, so there it goes into the header by itself.
 * @param {GraphNode} node
 */
function hang(node) {
  const header = document.querySelector(`[data-testid="node-header-${node.id}"]`);
  if (!header) return;
  const text = textOf(node);
  const found = header.querySelector(`.${CLASS}`);
  if (!text) return found?.remove();
  const badge = found ?? document.createElement("span");
  badge.className = CLASS;
  if (badge.textContent !== text) badge.textContent = text;
  // In one line with what the front end says there ("Bypassed").
  if (!found) (header.firstElementChild ?? header).append(badge);
}

/** Nodes are muted, bypassed, connected and removed while nothing runs. */
function look() {
  for (const node of runs.keys()) {
    if (!node.graph) runs.delete(node);
    else hang(node);
  }
}

app.registerExtension({
  name: "ditAcceleration.badge",
  setup() {
    api.addEventListener(EVENT, (event) => receive(event.detail));
    setInterval(look, LOOK_MILLISECONDS);
  },
  nodeCreated(node) {
    if (skips(kindOf(node))) mark(node);
  },
  afterConfigureGraph() {
    for (const run of recall(shownGraph().id)) receive(run);
  },
});
