// @ts-check
/**
 * Queues the open workflow once for each preset, one run after the other, and asks the server what
 * they gave. Nothing of the workflow itself is touched, and no prompt but these.
 */

/** @typedef {import("./types").PresetRun} PresetRun */
/** @typedef {import("./types").PresetResult} PresetResult */

const PROMPTS = "/dit_acceleration/presets/prompts";
const RESULT = "/dit_acceleration/presets/result";
const POLL_MILLISECONDS = 500;
/** Of stopping a run, which a step of a large model may hold up. */
const MOST_TRIES = 120;

/**
 * @param {Api} api
 * @param {string} path
 * @param {unknown} [body] For a POST; none for a GET.
 * @returns {Promise<any>}
 */
async function ask(api, path, body) {
  const options = body === undefined ? undefined : { method: "POST", body: JSON.stringify(body) };
  const answer = await api.fetchApi(path, options && { ...options, headers: JSON_HEADERS });
  const text = await answer.text();
  const found = text ? JSON.parse(text) : null;
  if (answer.ok) return found;
  const error = found?.error;
  throw new Error(typeof error === "string" ? error : (error?.message ?? `HTTP ${answer.status}`));
}

const JSON_HEADERS = { "Content-Type": "application/json" };

/**
 * @param {Api} api
 * @param {{output: unknown, workflow: unknown}} graph As the front end would queue it.
 * @param {(run: {name: string, number: number, count: number}) => void} tell
 * @param {AbortSignal} signal Ends it, and takes what was queued last from the queue.
 * @returns {Promise<PresetResult>}
 */
export async function comparePresets(api, graph, tell, signal) {
  const { runs } = /** @type {{runs: PresetRun[]}} */ (
    await ask(api, PROMPTS, { prompt: graph.output })
  );
  const ended = [];
  for (const [number, run] of runs.entries()) {
    signal.throwIfAborted();
    tell({ name: run.name, number, count: runs.length });
    const body = {
      prompt: run.prompt,
      client_id: api.clientId,
      extra_data: { extra_pnginfo: { workflow: graph.workflow } },
    };
    const { prompt_id: id } = await ask(api, "/prompt", body);
    try {
      await over(api, id, signal);
    } catch (error) {
      await takeBack(api, id);
      throw error;
    }
    ended.push({ name: run.name, prompt_id: id });
  }
  // The first run only warmed up.
  return ask(api, RESULT, { runs: ended.slice(1) });
}

/**
 * Wait until a prompt has ended well.
 * @param {Api} api
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function over(api, id, signal) {
  let missed = 0;
  for (;;) {
    signal.throwIfAborted();
    const waits = await inQueue(api, id);
    const entry = (await ask(api, `/history/${id}`))[id];
    if (entry) return requireSuccess(entry);
    // Between leaving the queue and standing in the history there is a moment.
    missed = waits ? 0 : missed + 1;
    if (missed > 2) throw new Error("Somebody took the run from the queue.");
    await pause(POLL_MILLISECONDS, signal);
  }
}

/** @param {{status?: {completed?: boolean, messages?: [string, any][]}}} entry */
export function requireSuccess(entry) {
  for (const [kind, message] of entry.status?.messages ?? []) {
    if (kind === "execution_error") {
      throw new Error(`${message.node_type}: ${String(message.exception_message).trim()}`);
    }
    if (kind === "execution_interrupted") throw new Error("The run was canceled.");
  }
  if (entry.status?.completed === false) throw new Error("The run did not complete.");
}

/**
 * Take a prompt from the queue, and stop it if it is the one that runs. The host forgets an
 * interrupt that comes while a run only begins, so it is asked until the run has left the queue.
 * @param {Api} api
 * @param {string} id
 */
async function takeBack(api, id) {
  try {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      await ask(api, "/queue", { delete: [id] });
      await ask(api, "/interrupt", { prompt_id: id });
      if (!(await inQueue(api, id))) return;
      await pause(POLL_MILLISECONDS);
    }
  } catch {
    // The server is gone, and the run with it.
  }
}

/**
 * @param {Api} api
 * @param {string} id
 * @returns {Promise<boolean>}
 */
async function inQueue(api, id) {
  const queue = await ask(api, "/queue");
  return Object.values(queue).some((items) =>
    /** @type {unknown[][]} */ (items).some((item) => item[1] === id),
  );
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal] Ends the pause.
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => resolve());
  });
}
