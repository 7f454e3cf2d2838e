// @ts-check
/**
 * A badge on the title of our nodes: what the last run gained ("1.9×"), "off", or "replaced".
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { find, kindOf, shownGraph } from "./graph.js";
import { recall } from "./memory.js";
import { badgeText, replaces } from "./badge_text.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").Progress} Progress */

const EVENT = "dit_acceleration.progress";
const OURS = "Accel";

/** @type {WeakMap<GraphNode, Progress>} The last run of a node. */
const runs = new WeakMap();

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
    const text = textOf(node);
    // The canvas asks at every drawing; a badge without text takes no place.
    if (badge.text !== text) badge = new Badge({ text, fgColor: "#fff", bgColor: "#1c7a4c" });
    return badge;
  });
}

/** @param {Progress} run */
function receive(run) {
  if ((run.workflow ?? shownGraph().id) !== shownGraph().id) return;
  const node = find(run.node);
  if (!node) return;
  runs.set(node, run);
  if (run.outcome !== "running") refresh(node);
}

/**
 * Nodes that Vue draws look at their badges again only when they are told that these changed.
 * @param {GraphNode} node
 */
function refresh(node) {
  const { badges } = node;
  if (badges) {
    node.badges = [...badges];
    node.graph?.trigger?.("node:property:changed", {
      type: "node:property:changed",
      nodeId: node.id,
      property: "badges",
      oldValue: badges,
      newValue: node.badges,
    });
  }
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "ditAcceleration.badge",
  setup() {
    api.addEventListener(EVENT, (event) => receive(event.detail));
  },
  nodeCreated(node) {
    if (kindOf(node).startsWith(OURS)) mark(node);
  },
  afterConfigureGraph() {
    for (const run of recall(shownGraph().id)) receive(run);
  },
});
