// @ts-check
/**
 * The command that switches all our nodes off and on, and the pack's page in the settings.
 */

import { app } from "../../../scripts/app.js";
import { kindOf, shownGraph } from "./graph.js";
import { forget, saved } from "./memory.js";
import { duration, word } from "./words.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").Graph} Graph */

const COMMAND = "ditAcceleration.toggle";
const LABEL = "Acceleration on or off (DiT Acceleration)";
const SETTING = "DiTAcceleration";
const PANELS = `${SETTING}.Panels`;
const PRESET = `${SETTING}.Preset`;
const PRESETS = ["off", "quality", "balanced", "fast", "ultra"];
const MODE = "AccelPerformanceMode";
const HIDDEN = "dit-live-hidden";
const ALWAYS = 0;
const BYPASSED = 4;

/**
 * Nodes of ours that a MODEL goes through, in subgraphs as well.
 * @param {Graph} graph
 * @returns {GraphNode[]}
 */
function through(graph) {
  return graph.nodes.flatMap((node) => {
    if (node.subgraph) return through(node.subgraph);
    const takes = node.inputs?.some((input) => input.type === "MODEL");
    const gives = node.outputs?.some((output) => output.type === "MODEL");
    return node.type.startsWith("Accel") && takes && gives ? [node] : [];
  });
}

/** Bypass all of them; if all are, let all work again. */
function toggle() {
  const nodes = through(shownGraph());
  const graph = app.canvas?.graph;
  graph?.beforeChange?.();
  const mode = nodes.some((node) => node.mode === ALWAYS) ? BYPASSED : ALWAYS;
  for (const node of nodes) node.mode = mode;
  graph?.afterChange?.();
  app.canvas?.setDirty?.(true, true);
  app.extensionManager?.toast?.add({
    severity: "info",
    summary: "DiT Acceleration",
    detail: sentence(nodes.length, mode),
    life: 3000,
  });
}

/**
 * @param {number} count
 * @param {number} mode
 */
function sentence(count, mode) {
  if (!count) return word("This workflow has no acceleration node.");
  return mode === BYPASSED
    ? word("Acceleration nodes bypassed: {0}.", count)
    : word("Acceleration nodes on again: {0}.", count);
}

/** What was saved so far, and a button that forgets it. */
function history() {
  const place = document.createElement("div");
  place.className = "dit-settings-history";
  const said = document.createElement("span");
  const tell = () => {
    const { seconds, runs } = saved();
    const text = runs === 1 ? "{0} in 1 run" : "{0} in {1} runs";
    said.textContent = word(runs ? text : "nothing yet", duration(seconds), runs);
  };
  tell();
  const button = document.createElement("button");
  button.className = "dit-settings-clear";
  button.textContent = word("Clear history");
  button.addEventListener("click", () => {
    forget();
    tell();
  });
  place.append(said, button);
  return place;
}

app.registerExtension({
  name: "ditAcceleration.controls",
  commands: [{ id: COMMAND, label: LABEL, icon: "pi pi-bolt", function: toggle }],
  keybindings: [{ commandId: COMMAND, combo: { key: "a", alt: true, shift: true } }],
  menuCommands: [{ path: ["Extensions", "DiT Acceleration"], commands: [COMMAND] }],
  settings: [
    {
      id: PANELS,
      name: "Show what runs do on the nodes",
      category: ["DiT Acceleration", "Nodes", "Panels"],
      type: "boolean",
      defaultValue: true,
      onChange: (shown) => document.body.classList.toggle(HIDDEN, shown === false),
    },
    {
      id: PRESET,
      name: "Preset of a new Performance Mode",
      category: ["DiT Acceleration", "Nodes", "Preset"],
      tooltip: "Nodes of a workflow keep theirs.",
      type: "combo",
      options: PRESETS,
      defaultValue: "quality",
    },
    {
      id: `${SETTING}.History`,
      name: "Time saved, as measured, and remembered runs",
      category: ["DiT Acceleration", "History", "Saved"],
      type: history,
      defaultValue: undefined,
    },
  ],
  nodeCreated(node) {
    // A workflow that is opened sets the value again, after this.
    const widget = kindOf(node) === MODE && node.widgets?.find((one) => one.name === "approximation");
    const preset = app.extensionManager?.setting?.get(PRESET);
    if (widget && preset) widget.value = preset;
  },
});
