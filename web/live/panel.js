// @ts-check
/**
 * The panel on a node: counts, the strip, and the sentence.
 */

import { addFrame, part } from "./frame.js";
import { drawRow } from "./strip.js";
import { bytes, duration } from "./words.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").GraphNode} GraphNode */

const MOST_ROWS = 4;

/** Mark of an evaluation, its CSS class and its name. */
const KINDS = /** @type {const} */ ([
  ["c", "computed"],
  ["r", "reused"],
  ["f", "forecast"],
]);

export class Panel {
  /**
   * @param {GraphNode} node
   * @param {(event: WheelEvent) => void} zoom Takes the wheel, which zooms the canvas.
   */
  constructor(node, zoom) {
    this.content = addFrame(node, "dit_acceleration_live", zoom);
  }

  /** @param {Progress} progress */
  show(progress) {
    // A run in which the node had nothing to skip is told without its evaluations.
    const strip = progress.rows.length
      ? [...rows(progress), legend(progress), gains(progress)]
      : [];
    this.content.replaceChildren(
      heading(progress),
      ...strip,
      ...(progress.sentence ? [part("sentence", sentence(progress))] : []),
    );
  }
}

/** @param {Progress} progress */
function heading(progress) {
  const line = part("heading");
  const title = progress.run > 1 ? `${progress.technique}, run ${progress.run}` : progress.technique;
  line.append(part("title", title), part("place", place(progress)));
  return line;
}

/** @param {Progress} progress */
function place(progress) {
  const { outcome, step, steps } = progress;
  if (!progress.rows.length) return outcome === "interrupted" ? "stopped" : `${steps} steps`;
  const reached = `step ${step + 1} of ${steps}`;
  return outcome === "interrupted" ? `stopped in ${reached}` : reached;
}

/**
 * The sentence without its beginning, which the heading says.
 * @param {Progress} progress
 */
function sentence(progress) {
  const text = progress.sentence.replace(`${progress.technique}: `, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
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
  return rest > 0 ? [table, part("more", `and ${rest} more branches`)] : [table];
}

/** @param {Progress} progress */
function legend(progress) {
  const line = part("legend");
  const marks = progress.rows.map((row) => row.marks).join("");
  for (const [mark, kind] of KINDS) {
    const count = marks.split(mark).length - 1;
    if (!count && mark !== "c") continue;
    const entry = part("entry", `${count} ${kind}`);
    entry.prepend(part(`key dit-live-${kind}`));
    line.append(entry);
  }
  return line;
}

/** @param {Progress} progress */
function gains(progress) {
  const found = [];
  const { seconds, seconds_saved: saved, residual_bytes: held } = progress;
  if (saved !== null && saved > 0) {
    found.push(`${duration(saved)} saved`, `${((seconds + saved) / seconds).toFixed(2)}× as fast`);
  }
  if (held) found.push(`${bytes(held)} on ${progress.residual_placement}`);
  return part("gains", found.join(" · "));
}
