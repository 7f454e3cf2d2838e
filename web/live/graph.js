// @ts-check
/**
 * Nodes of the workflow that the page shows.
 */

import { app } from "../../../scripts/app.js";

/** @typedef {import("./types").GraphNode} GraphNode */

export function shownGraph() {
  return app.rootGraph ?? app.graph;
}

/**
 * The node that an execution id such as "12:5" (node 5 inside subgraph node 12) stands for, behind
 * the subgraph nodes that it is in; empty where there is none.
 * @param {string} id
 * @returns {GraphNode[]}
 */
export function chainOf(id) {
  /** @type {import("./types").Graph | undefined} */
  let graph = shownGraph();
  const chain = [];
  for (const part of id.split(":")) {
    /** @type {GraphNode | null | undefined} */
    const node = graph?.getNodeById(/^\d+$/.test(part) ? Number(part) : part);
    if (!node) return [];
    chain.push(node);
    graph = node.subgraph;
  }
  return chain;
}

/**
 * The node itself.
 * @param {string} id
 * @returns {GraphNode | undefined}
 */
export function find(id) {
  return chainOf(id).at(-1);
}

/**
 * The class of a node that is being made, which has no type yet.
 * @param {GraphNode} node
 * @returns {string}
 */
export function kindOf(node) {
  return node.comfyClass ?? node.constructor.comfyClass ?? "";
}

/** Links that carry a model to a sampler, and what goes with it. */
const TO_A_SAMPLER = ["MODEL", "GUIDER", "SIGMAS"];
const MOST_NODES = 200;

/**
 * The number of steps of the first sampler behind a node, or of the schedule that goes into it.
 * @param {GraphNode} node
 * @returns {number | undefined}
 */
export function stepsBehind(node) {
  const ahead = [node];
  for (const each of ahead) {
    for (const [slot, output] of (each.outputs ?? []).entries()) {
      if (!TO_A_SAMPLER.includes(output.type)) continue;
      for (const next of each.getOutputNodes?.(slot) ?? []) {
        const found = stepsOf(next) ?? before(next).map(stepsOf).find(Boolean);
        if (found) return found;
        if (!ahead.includes(next) && ahead.length < MOST_NODES) ahead.push(next);
      }
    }
  }
  return undefined;
}

/** @param {GraphNode} node */
function stepsOf(node) {
  const value = node.widgets?.find((widget) => widget.name === "steps")?.value;
  return typeof value === "number" && value > 0 ? value : undefined;
}

/** @param {GraphNode} node */
function before(node) {
  const found = (node.inputs ?? []).map((_, slot) => node.getInputNode?.(slot));
  return found.filter((one) => one !== null && one !== undefined);
}
