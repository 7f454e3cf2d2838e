/**
 * A person's first hour with the demo: open it, run it, watch the node, reload the page, run it
 * again. Prints what was seen as JSON.
 */

import { Front } from "./page.mjs";
import { readPanel, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, node, inputs, folder, seed, workflow } = JSON.parse(json);

const front = await Front.open({ url, viewport: { width: 1100, height: 900 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors };

/** Keep every text that the panel shows. */
function watchPanel() {
  window.panelTexts = [];
  const look = () => {
    const text = document.querySelector(".dit-live-content")?.innerText;
    if (text && text !== window.panelTexts.at(-1)) window.panelTexts.push(text);
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}

async function queue(newSeed, steps) {
  await page.evaluate(
    ([inputs, seed, steps, node]) => {
      for (const one of window.app.canvas.graph._nodes) {
        const set = (name, value) => {
          const widget = one.widgets?.find((entry) => entry.name === name);
          if (widget) widget.value = value;
        };
        if (one.type === "KSampler") {
          set("seed", seed);
          set("steps", steps);
        }
        if (String(one.id) === String(node)) for (const [name, value] of Object.entries(inputs)) set(name, value);
      }
    },
    [inputs, newSeed, steps, node],
  );
  const values = await page.evaluate(
    (node) => window.app.canvas.graph.getNodeById(node).serialize().widgets_values,
    node,
  );
  await front.command("Comfy.QueuePrompt");
  return values;
}

/** Wait for the sentence of a run of so many steps. */
async function finished(steps) {
  await page.waitForFunction(
    (steps) => {
      const text = document.querySelector(".dit-live-content")?.innerText ?? "";
      const ended = document.querySelector(".dit-live-sentence");
      return ended && text.includes(`step ${steps} of ${steps}`);
    },
    steps,
    { timeout: 120_000 },
  );
  await page.waitForTimeout(700); // The node grows in the next drawn frames.
}

const read = () => page.evaluate(readPanel, node);

async function picture(name) {
  const path = `${folder}/${name}_${vue ? "nodes2" : "canvas"}_${theme}.png`;
  await page.screenshot({ path, clip: await page.evaluate(whereNode, node) });
}

/** What the server would send for a run of several branches, in this or in another workflow. */
function pretendRun([node, workflow, branches]) {
  const marks = "ccccrfcffcf";
  const steps = [...marks].map((_, step) => step);
  const rows = branches.map((name) => ({ name, marks, steps, reasons: steps.map(() => 0) }));
  window.app.api.dispatchCustomEvent("dit_acceleration.progress", {
    node: String(node),
    prompt_id: "pretended",
    workflow: workflow ?? window.app.canvas.graph.id,
    run: 2,
    technique: "Cache-DiT",
    sampler: "euler",
    steps: 20,
    step: 10,
    computed: 6 * branches.length,
    skipped: 5 * branches.length,
    seconds: 130,
    seconds_saved: 95,
    residual_bytes: 3 * 2 ** 30,
    residual_placement: "gpu",
    rows,
    reasons: ["below threshold"],
    outcome: "running",
    sentence: "",
  });
}

await front.configure({ theme, vue });
await front.load();
await front.show(workflow);
await page.waitForFunction((node) => window.app.canvas.graph?.getNodeById(node), node);
await front.focus(node, 1.3);
seen.before = await read();
await page.evaluate(watchPanel);
seen.savedBefore = await queue(seed, 28);
await page.waitForFunction(
  () => window.panelTexts.some((text) => /step \d\d of/.test(text)),
  undefined,
  { timeout: 120_000, polling: 50 },
);
await picture("running");
await finished(28);
seen.while = await page.evaluate(() => window.panelTexts);
seen.after = await read();
await picture("finished");

seen.savedAfter = await page.evaluate(
  (node) => window.app.canvas.graph.getNodeById(node).serialize().widgets_values,
  node,
);
const prompt = await page.evaluate(async () => (await window.app.graphToPrompt()).output);
seen.promptInputs = Object.keys(prompt[String(node)].inputs);

await front.reload();
await page.waitForSelector(".dit-live-sentence", { timeout: 60_000 });
await front.focus(node, 1.3);
seen.reloaded = await read();
await picture("reloaded");

await queue(seed + 1, 20);
await finished(20);
seen.again = await read();

await page.evaluate(pretendRun, [node, "another workflow", ["cond"]]);
seen.foreign = await read();
const windows = [0, 8, 16].flatMap((n) => [`cond [${n}-${n + 15}]`, `uncond [${n}-${n + 15}]`]);
await page.evaluate(pretendRun, [node, null, windows]);
await page.waitForTimeout(700);
seen.branches = await read();
await picture("branches");

const inside = await page.evaluate((node) => {
  const { graph } = window.app.canvas;
  const made = graph.convertToSubgraph(new Set([graph.getNodeById(node)]));
  window.innerNode = made.subgraph._nodes[0];
  return `${made.node.id}:${window.innerNode.id}`;
}, node);
await page.evaluate(pretendRun, [inside, null, ["cond"]]);
seen.inside = await page.evaluate(() => window.innerNode.widgets.map((widget) => widget.name));
await front.close();
console.log(JSON.stringify(seen));
