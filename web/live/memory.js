// @ts-check
/**
 * The last run of each node, kept in this browser, so that a reloaded page shows it again.
 */

/** @typedef {import("./types").Progress} Progress */

/** Whatever this pack keeps in the browser. */
const ALL = "ditAcceleration.";
const PREFIX = `${ALL}live/`;
const SAVED = `${ALL}saved`;
const MOST_ENTRIES = 60;
const LEAST_MILLISECONDS = 1000;

/** @type {Map<string, number>} */
const written = new Map();

/**
 * Keep a run's state; while it goes on, not at every event.
 * @param {string} workflow
 * @param {Progress} progress
 */
export function remember(workflow, progress) {
  const key = `${PREFIX}${workflow}/${progress.node}`;
  const now = Date.now();
  const running = progress.outcome === "running";
  if (running && now - (written.get(key) ?? 0) < LEAST_MILLISECONDS) return;
  written.set(key, now);
  try {
    if (progress.outcome === "finished") addUp(progress);
    localStorage.setItem(key, JSON.stringify({ time: now, progress }));
    forgetOldest();
  } catch {
    // No room, or storage is switched off: the panel is then gone after a reload.
  }
}

/**
 * What is kept of a workflow's nodes.
 * @param {string} workflow
 * @returns {Progress[]}
 */
export function recall(workflow) {
  const found = [];
  for (const key of keys()) {
    if (!key.startsWith(`${PREFIX}${workflow}/`)) continue;
    const progress = read(key)?.progress;
    if (progress) found.push(progress);
  }
  return found;
}

/** @param {Progress} progress */
function addUp(progress) {
  if (!progress.seconds_saved || progress.seconds_saved < 0) return;
  const { seconds, runs } = saved();
  const sum = { seconds: seconds + progress.seconds_saved, runs: runs + 1 };
  localStorage.setItem(SAVED, JSON.stringify(sum));
}

/**
 * The time that all runs have saved that this browser was told of.
 * @returns {{seconds: number, runs: number}}
 */
export function saved() {
  try {
    return JSON.parse(localStorage.getItem(SAVED) ?? "null") ?? { seconds: 0, runs: 0 };
  } catch {
    return { seconds: 0, runs: 0 };
  }
}

/** Forget every run, and what was saved. */
export function forget() {
  try {
    const ours = Object.keys(localStorage).filter((key) => key.startsWith(ALL));
    for (const key of ours) localStorage.removeItem(key);
  } catch {
    // Storage is switched off: there is nothing to forget.
  }
}

/** @returns {string[]} */
function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
}

/**
 * @param {string} key
 * @returns {{time: number, progress: Progress} | undefined}
 */
function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

function forgetOldest() {
  const all = keys();
  if (all.length <= MOST_ENTRIES) return;
  const byAge = all.sort((a, b) => (read(a)?.time ?? 0) - (read(b)?.time ?? 0));
  for (const key of byAge.slice(0, all.length - MOST_ENTRIES)) localStorage.removeItem(key);
}
