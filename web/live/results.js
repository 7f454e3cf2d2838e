// @ts-check
/**
 * What an output node of ours found, in words, under a slider and drawn, on the node itself.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { Frame, part } from "./frame.js";
import { kindOf } from "./graph.js";
import { sliderOf } from "./slider.js";
import { addStyle } from "./style.js";
import { line, word } from "./words.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").SavedFile} SavedFile */
/**
 * @typedef {{
 *   text?: string[],
 *   lines?: string[],
 *   a_images?: SavedFile[],
 *   b_images?: SavedFile[],
 *   drawings?: SavedFile[],
 * }} Output
 */

const OURS = "Accel";
const WIDGET = "dit_acceleration_result";

/** @type {WeakMap<GraphNode, HTMLElement>} */
const places = new WeakMap();

/** @param {GraphNode} node */
function placeOn(node) {
  let place = places.get(node);
  if (!place) {
    place = new Frame(node, WIDGET, (event) => app.canvas?.processMouseWheel?.(event)).content;
    places.set(node, place);
  }
  return place;
}

/**
 * @param {string} name
 * @param {SavedFile} file
 */
function side(name, file) {
  // A file of the temp folder may be another one under the name of an earlier run.
  const query = new URLSearchParams({ ...file, rand: String(Math.random()) });
  return { name, address: api.apiURL(`/view?${query}`), file: file.filename };
}

/** @param {Output} output */
function pictures(output) {
  const { a_images: before = [], b_images: after = [] } = output;
  if (!before.length) return [];
  const frame = part("pair");
  /** @param {number} number */
  const show = (number) => {
    const left = side(word("baseline"), before[number]);
    const pair = sliderOf(left, side(word("accelerated"), after[number]));
    frame.replaceChildren(pair, ...(before.length > 1 ? [pages] : []));
    place.textContent = word("{0} of {1}", number + 1, before.length);
    shown = number;
  };
  let shown = 0;
  const pages = part("pages");
  const place = part("place");
  /**
   * @param {string} text
   * @param {number} by
   */
  const turn = (text, by) => {
    const button = document.createElement("button");
    button.className = "dit-live-turn";
    button.textContent = text;
    button.setAttribute("aria-label", word(by > 0 ? "next picture" : "picture before"));
    button.addEventListener("click", () => show((shown + by + before.length) % before.length));
    return button;
  };
  pages.append(turn("‹", -1), place, turn("›", 1));
  show(0);
  return [frame];
}

/**
 * Plots and heat maps; a click opens one in its own size.
 * @param {Output} output
 */
function drawings(output) {
  return (output.drawings ?? []).map((file) => {
    const link = document.createElement("a");
    link.href = side("", file).address;
    link.target = "_blank";
    const image = document.createElement("img");
    image.className = "dit-live-drawing";
    image.src = link.href;
    link.append(image);
    return link;
  });
}

/**
 * @param {GraphNode} node
 * @param {Output} output
 */
function show(node, output) {
  const text = output.text?.[0];
  if (!text) return;
  const [first, ...rest] = text.split("\n").map(line);
  const lines = [...rest, ...(output.lines ?? [])].join("\n").trimEnd();
  const more = lines ? [part("lines", lines)] : [];
  const shown = [part("result", first), ...pictures(output), ...more, ...drawings(output)];
  placeOn(node).replaceChildren(...shown);
}

app.registerExtension({
  name: "ditAcceleration.results",
  setup: () => addStyle("slider.css"),
  nodeCreated(node) {
    if (!kindOf(node).startsWith(OURS)) return;
    const before = node.onExecuted;
    node.onExecuted = function (output) {
      before?.call(this, output);
      show(node, output);
    };
  },
});
