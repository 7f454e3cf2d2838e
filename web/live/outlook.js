// @ts-check
/**
 * "What would each preset give?" on Performance Mode: what is planned for the steps of this
 * workflow and, once it has run, for this very model and schedule, and what was measured last.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { Frame, part, tableOf } from "./frame.js";
import { find, kindOf, shownGraph, stepsBehind } from "./graph.js";
import { cells, together } from "./preset_rows.js";
import { word } from "./words.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").Outlook} Outlook */
/** @typedef {import("./types").Planned} Planned */

const NODE = "AccelPerformanceMode";
const EVENT = "dit_acceleration.presets";
const PATH = "/dit_acceleration/presets/outlook";
const LABEL = "What would each preset give?";
const PREFIX = "ditAcceleration.presets/";
const USUAL_STEPS = 28;

/** @type {WeakMap<GraphNode, Outlook>} What the last run of a node has told. */
const told = new WeakMap();
/** @type {WeakMap<GraphNode, Frame>} */
const places = new WeakMap();

/**
 * What is known for the steps that the workflow has now.
 * @param {GraphNode} node
 * @returns {Promise<{rows: Planned[], measured: Record<string, number>, sentence: string}>}
 */
async function look(node) {
  const last = told.get(node);
  const steps = stepsBehind(node) ?? last?.steps ?? USUAL_STEPS;
  if (last && last.steps === steps) {
    const sentence = word("As planned for the {0} steps and the model of the last run.", steps);
    return { rows: last.presets, measured: last.measured ?? {}, sentence };
  }
  const answer = await api.fetchApi(PATH, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      steps,
      computed_cost: last?.computed_cost,
      skipped_cost: last?.skipped_cost,
    }),
  });
  const { presets } = await answer.json();
  const sentence = last
    ? word("As planned for {0} steps of the model of the last run.", steps)
    : word("As planned for {0} steps of a usual model; run once to see this one's.", steps);
  return { rows: presets, measured: {}, sentence };
}

/** @param {GraphNode} node */
async function draw(node) {
  const place = places.get(node)?.content;
  if (!place) return;
  const { rows, measured, sentence } = await look(node);
  const chosen = node.widgets?.find((widget) => widget.name === "approximation")?.value;
  const head = ["preset", "computed", "planned", "measured"].map((name) => word(name));
  const texts = rows.map((row) => cells(row, measured));
  const table = tableOf(head, texts);
  for (const [at, { preset }] of rows.entries()) {
    table.tBodies[0].rows[at].classList.toggle("dit-live-chosen", preset === chosen);
  }
  place.replaceChildren(table, part("sentence", sentence));
}

/** @param {GraphNode} node */
function toggle(node) {
  const place = places.get(node);
  if (place) {
    place.remove();
    places.delete(node);
    return;
  }
  const wheel = /** @param {WheelEvent} event */ (event) => app.canvas?.processMouseWheel?.(event);
  places.set(node, new Frame(node, "dit_acceleration_presets", wheel));
  void draw(node);
}

/** @param {Outlook} run */
function receive(run) {
  const workflow = run.workflow ?? shownGraph().id;
  const key = `${PREFIX}${workflow}/${run.node}`;
  const known = together(recall(key), run);
  try {
    localStorage.setItem(key, JSON.stringify(known));
  } catch {
    // No room: it is then gone after a reload.
  }
  const node = workflow === shownGraph().id ? find(run.node) : undefined;
  if (!node) return;
  told.set(node, known);
  void draw(node);
}

/**
 * @param {string} key
 * @returns {Outlook | undefined}
 */
function recall(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

app.registerExtension({
  name: "ditAcceleration.outlook",
  setup() {
    api.addEventListener(EVENT, (event) => receive(event.detail));
  },
  afterConfigureGraph() {
    const begin = `${PREFIX}${shownGraph().id}/`;
    for (const key of Object.keys(localStorage).filter((name) => name.startsWith(begin))) {
      const node = find(key.slice(begin.length));
      const known = recall(key);
      if (node && known) told.set(node, known);
    }
  },
  nodeCreated(node) {
    if (kindOf(node) !== NODE) return;
    const button = node.addWidget("button", LABEL, null, () => toggle(node), { serialize: false });
    button.label = word(LABEL);
    // A place in the workflow's list of values would shift those of inputs that come later.
    button.serialize = false;
  },
});
