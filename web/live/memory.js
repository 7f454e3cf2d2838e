// @ts-check
/**
 * The last run of each node, kept in this browser, so that a reloaded page shows it again.
 */

/** @typedef {import("./types").Progress} Progress */

const PREFIX = "ditAcceleration.live/";
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
