// @ts-check
/**
 * A place for HTML on a node, below its inputs, as high as what is in it.
 */

/** @typedef {import("./types").GraphNode} GraphNode */

/** Pixels that the front end leaves around a DOM widget on a canvas node. */
const MARGIN = 10;
/** Pixels that the front end leaves between two widgets. */
const GAP = 4;

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

export class Frame {
  /**
   * @param {GraphNode} node
   * @param {string} name Of the widget.
   * @param {(event: WheelEvent) => void} zoom Takes the wheel, which zooms the canvas.
   */
  constructor(node, name, zoom) {
    this.node = node;
    /** What to fill. */
    this.content = part("content");
    /** How much of the node's height it has. */
    this.taken = 0;
    const frame = part("frame");
    frame.append(this.content);
    frame.addEventListener("wheel", zoom, { passive: true });
    const height = () => Math.max(this.taken - GAP, 0);
    const [width, before] = node.size;
    this.widget = node.addDOMWidget(name, "DIT_LIVE", frame, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN,
      getMinHeight: height,
      getMaxHeight: height,
    });
    // Not in the workflow either: a saved graph must not depend on what is shown.
    this.widget.serialize = false;
    // The front end may have made room for it; how much is ours to say.
    node.setSize([width, before]);
    const serialized = node.onSerialize;
    node.onSerialize = (data) => {
      serialized?.call(node, data);
      if (data.size) data.size = [data.size[0], data.size[1] - this.taken];
    };
    this.observer = new ResizeObserver(() => this.take());
    this.observer.observe(this.content);
  }

  /**
   * Make the node as high as what is in it needs; nothing, where panels are hidden, or where the
   * page lays nodes out by itself.
   */
  take() {
    const shown = window.LiteGraph.vueNodesMode ? 0 : this.content.offsetHeight;
    takeHeight(this, shown ? shown + 2 * MARGIN + GAP : 0);
  }

  /** Take it off the node again. */
  remove() {
    this.observer.disconnect();
    this.node.removeWidget?.(this.widget);
    takeHeight(this, 0);
  }
}

/**
 * Make a node as much higher as what stands on it takes now.
 * @param {{node: GraphNode, taken: number}} place
 * @param {number} height In pixels of the graph.
 */
export function takeHeight(place, height) {
  const { node, taken } = place;
  if (height !== taken) {
    const [width, before] = node.size;
    // First, as the node asks for it while its size is set.
    place.taken = height;
    node.setSize([width, before + height - taken]);
  }
  node.setDirtyCanvas(true, true);
}
