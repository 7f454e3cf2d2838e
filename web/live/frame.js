// @ts-check
/**
 * A place for HTML on a node, below its inputs, as high as what is in it.
 */

/** @typedef {import("./types").GraphNode} GraphNode */

/** Pixels that the front end leaves around a DOM widget on a canvas node. */
const MARGIN = 10;

/**
 * @param {string} kind Part of the class name.
 * @param {string} [text]
 * @returns {HTMLDivElement}
 */
export function part(kind, text = "") {
  const element = document.createElement("div");
  element.className = `dit-live-${kind}`;
  element.textContent = text;
  return element;
}

/**
 * @param {GraphNode} node
 * @param {string} name Of the widget.
 * @param {(event: WheelEvent) => void} zoom Takes the wheel, which zooms the canvas.
 * @returns {HTMLDivElement} What to fill.
 */
export function addFrame(node, name, zoom) {
  const frame = part("frame");
  const content = part("content");
  frame.append(content);
  frame.addEventListener("wheel", zoom, { passive: true });
  // Nothing, where the panels are hidden.
  const height = () => content.offsetHeight && content.offsetHeight + 2 * MARGIN;
  const widget = node.addDOMWidget(name, "DIT_LIVE", frame, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: height,
  });
  // Not in the workflow either: a saved graph must not depend on this panel.
  widget.serialize = false;
  new ResizeObserver(() => node.setDirtyCanvas(true, true)).observe(content);
  return content;
}
