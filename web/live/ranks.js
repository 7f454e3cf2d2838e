// @ts-check
/**
 * The GPUs that share a model, one a row: what each sent and how long it waited; below, what it holds.
 */

import { tableOf } from "./frame.js";
import { bytes, duration, translated, word } from "./words.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").Rank} Rank */

const NONE = "–";

/**
 * @param {Rank} rank
 * @returns {string[]}
 */
export function cells({ rank, device, computer, sent, exchanges, waited }) {
  const model = device.replace(/^NVIDIA (GeForce )?/, "");
  return [
    [rank, model, computer].filter((text) => text !== "").join(" · "),
    sent ? bytes(sent) : NONE,
    exchanges ? duration(waited) : NONE,
  ];
}

/** @param {Progress} progress */
export function rankTable({ ranks = [] }) {
  if (!ranks.length) return [];
  const head = ["GPU", word("sent"), word("in exchanges")];
  const table = tableOf(head, ranks.map(cells));
  table.classList.add("dit-live-ranks");
  // Below its own row, as it is longer than a column is wide.
  [...table.tBodies[0].rows].forEach((row, at) => {
    const held = document.createElement("td");
    held.colSpan = head.length;
    held.textContent = translated(ranks[at].held);
    const line = document.createElement("tr");
    line.className = "dit-live-place";
    line.append(held);
    row.after(line);
  });
  return [table];
}
