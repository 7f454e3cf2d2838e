// @ts-check
/**
 * A place for HTML on a node, below its inputs, as high as what is in it.
 */

/** @typedef {import("./types").GraphNode} GraphNode */

/** Pixels that the front end leaves around a DOM widget on a canvas node. */
const MARGIN = 10;
/** Pixels that the front end leaves between two widgets. */
const GAP = 4;
/** Pixels that a frame needs around what is in it. */
const AROUND = 2 * MARGIN + GAP;

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
 * @param {string[]} head
 * @param {string[][]} rows
 * @returns {HTMLTableElement}
 */
export function tableOf(head, rows) {
  const table = document.createElement("table");
  table.className = "dit-live-table";
  const line = table.createTHead().insertRow();
  for (const name of head) {
    const cell = document.createElement("th");
    cell.textContent = name;
    line.append(cell);
  }
  const body = table.createTBody();
  for (const texts of rows) {
    const row = body.insertRow();
    for (const text of texts) row.insertCell().textContent = text;
  }
  return table;
}

/**
 * Make a subgraph node show a widget of its own: it computes its list of those that it promotes.
 * @param {GraphNode} node
 * @param {import("./types").Widget} widget
 */
function admit(node, widget) {
  const known = Object.getOwnPropertyDescriptor(node, "widgets");
  const computed = known?.get;
  if (!node.subgraph || !computed || node.widgets?.includes(widget)) return;
  const get = () => {
    const others = computed.call(node) ?? [];
    return others.includes(widget) ? others : [...others, widget];
  };
  Object.defineProperty(node, "widgets", { ...known, get });
}

export class Frame {
  /**
   * @param {GraphNode} node
   * @param {string} name Of the widget.
   * @param {(event: WheelEvent) => void} zoom Takes the wheel, which zooms the canvas.
   * @param {number} leastWidth That the node has with it.
   */
  constructor(node, name, zoom, leastWidth = 0) {
    this.node = node;
    /** What to fill. */
    this.content = part("content");
    /** How much of the node's height it was given. */
    this.taken = 0;
    this.element = part("frame");
    this.element.append(this.content);
    this.element.addEventListener("wheel", zoom, { passive: true });
    // No more than it has taken, or the front end would make room for it by itself.
    const height = () => Math.max(this.taken - GAP, 0);
    const [width, before] = node.size;
    this.widget = node.addDOMWidget(name, "DIT_LIVE", this.element, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN,
      getMinHeight: height,
      getMaxHeight: height,
    });
    // Not in the workflow either: a saved graph must not depend on what is shown.
    this.widget.serialize = false;
    admit(node, this.widget);
    this.widened = Math.max(leastWidth - width, 0);
    /** How high the node was without it. */
    this.plain = before;
    // The front end may have made room for it; how much is ours to say.
    node.setSize([width + this.widened, before]);
    const serialized = node.onSerialize;
    node.onSerialize = (data) => {
      serialized?.call(node, data);
      // A copy, or the node in another browser, has nothing to fill the place.
      if (data.size) data.size = [data.size[0] - this.widened, data.size[1] - this.grown()];
    };
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.content);
  }

  /** Height that it needs on a canvas node; nothing, where panels are hidden. */
  needed() {
    const height = this.content.offsetHeight;
    return height ? height + AROUND : 0;
  }

  /** How much higher the node is because of it. */
  grown() {
    if (!window.LiteGraph.vueNodesMode) return this.taken;
    return Math.min(Math.max(this.node.size[1] - this.plain, 0), this.needed());
  }

  /** What is in it, or around the node, has changed. */
  fit() {
    this.take();
  }

  /**
   * Make the node as high as what is in it needs. Nodes 2.0 does so by itself, and often need not:
   * where advanced inputs are hidden there is room.
   */
  take() {
    this.resize(window.LiteGraph.vueNodesMode ? 0 : this.needed());
  }

  /** Take it off the node again. */
  remove() {
    this.observer.disconnect();
    this.node.removeWidget?.(this.widget);
    this.resize(0);
  }

  /** @param {number} height That it takes of the node, in pixels of the graph. */
  resize(height) {
    const { node, taken } = this;
    if (height !== taken) {
      const [width, before] = node.size;
      // First, as the node asks for it while its size is set.
      this.taken = height;
      node.setSize([width, before + height - taken]);
    }
    node.setDirtyCanvas(true, true);
  }
}
