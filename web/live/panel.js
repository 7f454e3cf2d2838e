// @ts-check
/**
 * The panel on a node: counts, the strip, and the sentence.
 */

import { Frame, part } from "./frame.js";
import { rankTable } from "./ranks.js";
import { drawRow } from "./strip.js";
import { bytes, capital, duration, sentence, translated, word } from "./words.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").GraphNode} GraphNode */

const MOST_ROWS = 4;
/** Pixels that the heading needs; new subgraph nodes are narrower. */
const LEAST_WIDTH = 225;
/** Pixels that stay free between the node and what lies below it. */
const CLEARANCE = 6;

/** Mark of an evaluation, its CSS class and its name. */
const KINDS = /** @type {const} */ ([
  ["c", "computed"],
  ["r", "reused"],
  ["f", "forecast"],
]);

/** How much of it is shown, most first; each hides what styles of its name hide. */
const LEVELS = /** @type {const} */ (["full", "brief", "line"]);

/** Modes of a node in the front end in which it does not run. */
const RESTING = /** @type {Record<number, string>} */ ({ 2: "muted", 4: "bypassed" });

export class Panel extends Frame {
  /**
   * @param {GraphNode[]} chain The node that runs, behind the subgraph nodes that it is in.
   * @param {GraphNode} node The one of them that shows the run.
   * @param {string} name Of the widget.
   * @param {(event: WheelEvent) => void} zoom Takes the wheel, which zooms the canvas.
   */
  constructor(chain, node, name, zoom) {
    super(node, name, zoom, LEAST_WIDTH);
    this.chain = chain;
    /** Whether a person asked to see all of it, whatever lies below. */
    this.opened = false;
    this.content.addEventListener("click", () => this.open());
  }

  /** @param {Progress} progress */
  show(progress) {
    this.progress = progress;
    // A run in which the node had nothing to skip is told without its evaluations.
    const strip = progress.rows.length
      ? [...rows(progress), legend(progress), ...stages(progress), gains(progress)]
      : [];
    const said = progress.sentence ? sentence(progress) : "";
    this.content.replaceChildren(
      this.heading(progress),
      ...strip,
      ...bars(progress),
      ...rankTable(progress),
      ...(said ? [part("sentence", said)] : []),
    );
    this.content.title = said;
    this.mark();
    this.fit();
  }

  /** @param {Progress} progress */
  heading(progress) {
    const line = part("heading");
    const { technique, run } = progress;
    const title = run > 1 ? word("{0}, run {1}", technique, run) : technique;
    this.place = part("place");
    line.append(part("title", title), this.place);
    return line;
  }

  /** Nodes 2.0 draws of a subgraph node only what it promotes: there the panel goes in by itself. */
  hang() {
    if (!this.node.subgraph || this.element.isConnected) return;
    document.querySelector(`[data-testid="node-body-${this.node.id}"]`)?.append(this.element);
    this.fit();
  }

  /** Say whether the run that is shown is what the node does now. */
  mark() {
    this.hang();
    const { progress, place } = this;
    if (!progress || !place) return;
    const resting = this.chain.map((node) => RESTING[node.mode ?? 0]).find(Boolean);
    const old = resting ?? (progress.outcome === "replaced" ? "replaced" : undefined);
    this.content.classList.toggle("dit-live-old", old !== undefined);
    const text = resting ? word("{0}, last run", word(resting)) : reached(progress);
    if (place.textContent !== text) place.textContent = text;
  }

  open() {
    this.opened = !this.opened;
    this.fit();
  }

  /** Show as much as there is room for above what lies below, and take that height. */
  fit() {
    const limit = this.opened ? Infinity : this.limit();
    for (const level of LEVELS) {
      this.content.dataset.level = level;
      if (this.bottom() <= limit) break;
    }
    this.take();
  }

  /** How far down the node reaches with what is in it now, in pixels of the graph. */
  bottom() {
    const { node } = this;
    // Nodes 2.0 has laid it out: it has room inside where it hides inputs, and more than is known
    // of here around what it shows.
    const drawn = window.LiteGraph.vueNodesMode
      ? document.querySelector(`[data-node-id="${node.id}"]`)
      : null;
    return drawn instanceof HTMLElement
      ? node.pos[1] - window.LiteGraph.NODE_TITLE_HEIGHT + drawn.offsetHeight
      : this.plainBottom() + this.needed();
  }

  plainBottom() {
    return this.node.pos[1] + this.node.size[1] - this.grown();
  }

  /** How far down it may reach until it meets another one. */
  limit() {
    const { node } = this;
    const [x] = node.pos;
    const [width] = node.size;
    const tops = (node.graph?._nodes ?? [])
      .filter((other) => other !== node)
      .filter((other) => other.pos[0] < x + width && other.pos[0] + other.size[0] > x)
      .map((other) => other.pos[1] - window.LiteGraph.NODE_TITLE_HEIGHT)
      .filter((top) => top >= this.plainBottom());
    return Math.min(...tops) - CLEARANCE;
  }
}

/** @param {Progress} progress */
function reached(progress) {
  const { outcome, step, steps } = progress;
  if (outcome === "replaced" || outcome === "switched off" || outcome === "refused") {
    return word(outcome);
  }
  if (!progress.rows.length) {
    return outcome === "interrupted" ? word("stopped") : word("{0} steps", steps);
  }
  const place = word("step {0} of {1}", step + 1, steps);
  return outcome === "interrupted" ? word("stopped in {0}", place) : place;
}

/** @param {Progress} progress */
function rows(progress) {
  const shown = progress.rows.slice(0, MOST_ROWS);
  const drawn = shown.map((row) => {
    const line = part("row");
    if (progress.rows.length > 1) line.append(part("branch", row.name));
    line.append(drawRow(row, progress));
    return line;
  });
  const table = part("rows");
  table.append(...drawn);
  const rest = progress.rows.length - shown.length;
  return rest > 0 ? [table, part("more", word("and {0} more branches", rest))] : [table];
}

/** @param {Progress} progress */
function legend(progress) {
  const line = part("legend");
  const marks = progress.rows.map((row) => row.marks).join("");
  for (const [mark, kind] of KINDS) {
    const count = marks.split(mark).length - 1;
    if (!count && mark !== "c") continue;
    const entry = part("entry", word(`{0} ${kind}`, count));
    entry.prepend(part(`key dit-live-${kind}`));
    line.append(entry);
  }
  return line;
}

/**
 * Evaluations and seconds at each size, with the cell that stands for it, and why sizes change.
 * @param {Progress} progress
 */
function stages({ stages = [], switch: why }) {
  const lines = stages.map(({ size, full, evaluations, seconds }) => {
    const at = size || word("full size");
    const text = seconds
      ? word("{0} at {1}: {2}", evaluations, at, duration(seconds))
      : word("{0} at {1}", evaluations, at);
    const line = part("entry", text);
    line.prepend(part(`key dit-live-computed${full ? "" : " dit-live-small"}`));
    return line;
  });
  if (!stages.length) return [];
  const table = part("legend");
  table.append(...lines);
  return why ? [table, part("why", capital(translated(why)))] : [table];
}

/**
 * A bar for each of what was counted, the longest for the most.
 * @param {Progress} progress
 */
function bars({ counts = {} }) {
  const most = Math.max(...Object.values(counts));
  return Object.entries(counts).map(([name, count]) => {
    const line = part("count");
    const bar = part("bar dit-live-computed");
    bar.style.width = `${(100 * count) / most}%`;
    line.append(part("branch", name), bar, part("place", String(count)));
    return line;
  });
}

/** @param {Progress} progress */
function gains(progress) {
  const found = [];
  const { seconds, seconds_saved: saved, residual_bytes: held } = progress;
  const planned = progress.promised ?? 0;
  if (saved !== null && saved > 0) {
    const times = ((seconds + saved) / seconds).toFixed(2);
    found.push(word("{0} saved", duration(saved)));
    found.push(
      planned > 1
        ? word("{0}× as fast, planned {1}×", times, planned.toFixed(2))
        : word("{0}× as fast", times),
    );
  }
  if (held) found.push(word("{0} on {1}", bytes(held), progress.residual_placement));
  return part("gains", found.join(" · "));
}
