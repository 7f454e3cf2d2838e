// @ts-check
/**
 * What the badge of a node says.
 */

/** @typedef {import("./types").Progress} Progress */

const MUTED = 2;
const BYPASSED = 4;
const MODE = "AccelPerformanceMode";
const CACHING = ["AccelApplyCacheDiT", "AccelApplyTeaCache", MODE];

/**
 * Whether a node of this type is one that skips evaluations.
 * @param {string} type
 */
export function skips(type) {
  return CACHING.includes(type);
}

/**
 * Whether a later node on a MODEL takes the place of an earlier one. Performance Mode leaves what
 * is set before it, and takes the place of another Performance Mode only.
 * @param {string} earlier Types of both.
 * @param {string} later
 * @param {number} mode Of the later one: a bypassed one does nothing.
 */
export function replaces(earlier, later, mode) {
  if (mode === MUTED || mode === BYPASSED) return false;
  if (!skips(earlier) || !skips(later)) return false;
  return later !== MODE || earlier === MODE;
}

/**
 * @param {Progress | undefined} run The last one of the node.
 * @param {number} mode Of the node.
 * @param {() => boolean} isReplaced
 * @returns {string} Empty for no badge.
 */
export function badgeText(run, mode, isReplaced) {
  if (!run || run.outcome === "running") return "";
  if (mode === MUTED || mode === BYPASSED) return "off";
  if (run.outcome === "replaced" || isReplaced()) return "replaced";
  if (!run.skipped) return "off";
  const { seconds, seconds_saved: saved } = run;
  return saved !== null && saved > 0 && seconds > 0
    ? `${((seconds + saved) / seconds).toFixed(1)}×`
    : "";
}
