// @ts-check
/**
 * What is planned for presets and what was measured of them, as rows of words.
 */

import { duration, word } from "./words.js";

/** @typedef {import("./types").Outlook} Outlook */
/** @typedef {import("./types").Planned} Planned */

/**
 * Add what a run tells to what earlier runs have measured.
 * @param {Outlook | undefined} earlier
 * @param {Outlook} run
 * @returns {Outlook}
 */
export function together(earlier, run) {
  const same = earlier?.steps === run.steps ? earlier.measured : {};
  const own = run.approximation && run.seconds ? { [run.approximation]: run.seconds } : {};
  return { ...run, measured: { ...same, ...own } };
}

/**
 * Words of a row: preset, evaluations, planned speed, last measured time.
 * @param {Planned} row
 * @param {Record<string, number>} measured Seconds by preset.
 */
export function cells(row, measured) {
  const { preset, computed, steps, speedup } = row;
  const all = computed > steps - 0.05;
  const seconds = measured[preset];
  const full = measured.off;
  const gained = seconds && full && preset !== "off" ? ` (${(full / seconds).toFixed(2)}×)` : "";
  return [
    preset,
    all ? word("all {0}", steps) : word("{0} of {1}", computed.toFixed(0), steps),
    all ? "1×" : `${speedup.toFixed(2)}×`,
    seconds ? duration(seconds) + gained : "–",
  ];
}
