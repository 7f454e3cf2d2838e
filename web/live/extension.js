// @ts-check
/**
 * The live report: shows on a node what its MODEL's sampling run computes and skips.
 *
 * A node gets its panel with its first run.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { chainOf, find, shownGraph } from "./graph.js";
import { Panel } from "./panel.js";
import { recall, remember } from "./memory.js";
import { addStyle } from "./style.js";
import { speak } from "./words.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").GraphNode} GraphNode */

const EVENT = "dit_acceleration.progress";
/** Name of the widget in which the front end shows a node's progress text. */
const HOST_TEXT = "$$node-text-preview";

/** How the ids of our nodes begin. */
const OURS = "Accel";

const LANGUAGES = ["zh", "ja"];

/** Nodes whose runs have a panel, which says what the host's text of the node says. */
const SHOWN = [
  "AccelApplyCacheDiT",
  "AccelApplyTeaCache",
  "AccelAttentionBackend",
  "AccelPerformanceMode",
  "AccelProgressiveResolution",
  "AccelSplitAcrossGPUs",
];

const WIDGET = "dit_acceleration_live";

const UNSEEN = "This page did not see the end of the run.";

/** How often a panel looks whether its node still runs; nothing tells of it in both renderers. */
const LOOK_MILLISECONDS = 300;

/** By the node that shows a run, then by the execution id of the node that has it. */
/** @type {Map<GraphNode, Map<string, Panel>>} */
const panels = new Map();

/**
 * Show a run on its node, and on every subgraph node around it, which is what people look at.
 * @param {Progress} progress
 */
function show(progress) {
  const chain = chainOf(progress.node);
  for (const node of chain) {
    const own = panels.get(node) ?? new Map();
    panels.set(node, own);
    let panel = own.get(progress.node);
    if (!panel) {
      const name = own.size ? `${WIDGET}_${own.size}` : WIDGET;
      panel = new Panel(chain, node, name, (event) => app.canvas?.processMouseWheel?.(event));
      own.set(progress.node, panel);
    }
    panel.show(progress);
  }
}

/** Nodes are muted, bypassed, moved and removed while nothing runs. */
function look() {
  for (const [node, own] of panels) {
    if (!node.graph) panels.delete(node);
    else for (const panel of own.values()) panel.mark();
  }
}

/** @param {Progress} progress */
function receive(progress) {
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
  const node = find(id);
  if (!node || !SHOWN.includes(node.type)) return;
  const text = node.widgets?.find((widget) => widget.name === HOST_TEXT);
  if (text) node.removeWidget?.(text);
}

function restore() {
  for (const progress of recall(shownGraph().id)) {
    // If the run still goes on, its next event takes this away.
    const sentence = progress.outcome === "running" ? UNSEEN : progress.sentence;
    show({ ...progress, sentence });
  }
}

/** Speak the page's language, where we have it. */
async function learnLanguage() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  if (!LANGUAGES.includes(language)) return;
  try {
    const answer = await fetch(new URL(`./languages/${language}.json`, import.meta.url));
    if (answer.ok) speak(await answer.json());
  } catch {
    // English is understood as well.
  }
}

app.registerExtension({
  name: "ditAcceleration.liveReport",
  async setup() {
    addStyle("panel.css");
    setInterval(look, LOOK_MILLISECONDS);
    await learnLanguage();
    api.addEventListener(EVENT, (event) => receive(event.detail));
    api.addEventListener("progress_text", (event) => {
      // The front end's own listener must have had its turn.
      queueMicrotask(() => dropText(String(event.detail?.nodeId)));
    });
  },
  nodeCreated(node) {
    // What is in brackets is for the search, which ranks by words of the name.
    if (node.comfyClass?.startsWith(OURS)) node.title = node.title?.replace(/ \(.*$/, "");
  },
  afterConfigureGraph: restore,
});
