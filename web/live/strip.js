// @ts-check
/**
 * One row of cells, a cell an evaluation, drawn as one path per kind, so that thousands cost
 * no more than ten. Kinds differ in height as well as in colour.
 */

import { word } from "./words.js";

/** @typedef {import("./types").Progress} Progress */
/** @typedef {import("./types").Row} Row */

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 20;
/** Share of a cell that an evaluation of a smaller latent fills: it does less, and looks it. */
const SMALL = 0.42;
/** Share of a cell that is left empty, while cells are wide enough for a gap to be seen. */
const GAP = 0.18;
const MOST_CELLS_WITH_GAP = 120;

/** Mark, class and top of its cells; the last is for evaluations still to come. */
const KINDS = /** @type {const} */ ([
  ["c", "computed", 0],
  ["f", "forecast", 9],
  ["r", "reused", 13],
  [".", "pending", 18],
]);

const WORDS = /** @type {Record<string, string>} */ ({
  c: "computed",
  r: "skipped, last result reused",
  f: "skipped, result forecast",
});

/**
 * @param {Row} row
 * @param {Progress} progress
 * @returns {SVGSVGElement}
 */
export function drawRow(row, progress) {
  const marks = row.marks + ".".repeat(stillToCome(row, progress));
  const svg = document.createElementNS(NAMESPACE, "svg");
  svg.setAttribute("class", "dit-live-strip");
  svg.setAttribute("viewBox", `0 0 ${marks.length} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${row.name}: ${row.marks.length} evaluations`);
  const gap = marks.length > MOST_CELLS_WITH_GAP ? 0 : GAP;
  for (const [mark, kind, top] of KINDS) {
    const path = document.createElementNS(NAMESPACE, "path");
    path.setAttribute("class", `dit-live-${kind}`);
    path.setAttribute("d", cells(marks, mark, top, (cell) => width(row, progress, cell, gap)));
    svg.append(path);
  }
  const tip = document.createElementNS(NAMESPACE, "title");
  svg.append(tip);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const cell = Math.floor(((event.clientX - box.left) / box.width) * marks.length);
    tip.textContent = describe(row, progress, cell);
  });
  return svg;
}

/**
 * The size of an evaluation, in a run of several.
 * @param {Row} row
 * @param {Progress} progress
 * @param {number} cell
 */
function stageOf(row, progress, cell) {
  return progress.stages?.[row.stages?.[cell] ?? -1];
}

/**
 * @param {Row} row
 * @param {Progress} progress
 * @param {number} cell
 * @param {number} gap
 */
function width(row, progress, cell, gap) {
  return stageOf(row, progress, cell)?.full === false ? SMALL : 1 - gap;
}

/**
 * @param {string} marks
 * @param {string} mark
 * @param {number} top
 * @param {(cell: number) => number} width
 */
function cells(marks, mark, top, width) {
  let path = "";
  for (let i = 0; i < marks.length; i++) {
    if (marks[i] === mark) path += `M${i} ${top}h${width(i)}V${HEIGHT}h${-width(i)}z`;
  }
  return path;
}

/**
 * How many evaluations this branch will have yet if it goes on as it began: samplers such as heun
 * evaluate more than once a step.
 * @param {Row} row
 * @param {Progress} progress
 */
export function stillToCome(row, progress) {
  if (progress.outcome === "finished") return 0;
  const last = row.steps[row.steps.length - 1];
  const before = row.steps.indexOf(last);
  const perStep = last > row.steps[0] ? before / (last - row.steps[0]) : row.marks.length;
  const ofThisStep = Math.max(0, Math.round(perStep) - (row.marks.length - before));
  return ofThisStep + Math.round(perStep * (progress.steps - 1 - last));
}

/**
 * @param {Row} row
 * @param {Progress} progress
 * @param {number} cell
 */
function describe(row, progress, cell) {
  if (cell < 0 || cell >= row.marks.length) return "";
  const reason = progress.reasons[row.reasons[cell]];
  const kind = word(WORDS[row.marks[cell]]);
  const step = row.steps[cell] + 1;
  const size = stageOf(row, progress, cell)?.size;
  if (!size) return word("{0}, step {1}: {2} ({3})", row.name, step, kind, word(reason));
  return word("{0}, step {1} at {4}: {2} ({3})", row.name, step, kind, word(reason), size);
}
