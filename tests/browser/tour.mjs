/**
 * What people do with a graph whose node shows a run: long titles, collapsing, zooming out, groups,
 * undo and redo, small windows, Cancel, a reload in mid-run, a second tab, another language. Prints
 * what was seen as JSON.
 */

import { Front } from "./page.mjs";
import { pretendRun, readPanel, removeBaseline, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, workflow, node, locale } = JSON.parse(json);
const VIEW = { width: 1000, height: 900 };

const front = await Front.open({ url, viewport: VIEW });
const { page } = front;
const seen = { errors: front.errors, fits: {} };

async function show(on = page) {
  await on.evaluate((data) => window.app.loadGraphData(data, true, true), workflow);
  await on.waitForFunction((node) => window.app.canvas.graph?.getNodeById(node), node);
  await on.evaluate(removeBaseline);
}

const read = (on = page) => on.evaluate(readPanel, node);
const textOf = async (on = page) => (await read(on))?.text ?? null;

/** Whether the panel can be seen, and how many pixels it stands out of its node. */
async function fits(name) {
  await page.waitForTimeout(700);
  const area = await page.evaluate(whereNode, node);
  seen.fits[name] = await page.evaluate(
    ([area, margin]) => {
      const content = document.querySelector(".dit-live-content");
      if (!content?.checkVisibility()) return { visible: false, out: 0, text: "" };
      const box = content.getBoundingClientRect();
      const out = Math.max(
        area.x + margin - box.left,
        box.right - (area.x + area.width - margin),
        box.bottom - (area.y + area.height - margin),
      );
      return { visible: box.width > 0, out: Math.round(out), text: content.innerText };
    },
    [area, 14],
  );
  await page.screenshot({ path: `${folder}/tour_${name}_${vue ? "nodes2" : "canvas"}.png` });
}

const change = (what, value) =>
  page.evaluate(
    ([node, what, value]) => {
      const { canvas } = window.app;
      const one = canvas.graph.getNodeById(node);
      if (what === "title") one.title = value;
      if (what === "collapse") one.collapse(true);
      if (what === "move") one.pos = [one.pos[0] + value, one.pos[1]];
      if (what === "group") {
        const group = new window.LiteGraph.LGraphGroup("all of it");
        canvas.graph.add(group);
        group.addNodes([one]);
        group.recomputeInsideNodes();
        group.move(value, value);
      }
      canvas.setDirty(true, true);
      window.app.extensionManager.workflow.activeWorkflow.changeTracker?.checkState?.();
    },
    [node, what, value],
  );

async function queue(seed, steps) {
  await page.evaluate(
    ([seed, steps]) => {
      for (const sampler of window.app.canvas.graph.findNodesByType("KSampler")) {
        for (const widget of sampler.widgets) {
          if (widget.name === "seed") widget.value = seed;
          if (widget.name === "steps") widget.value = steps;
        }
      }
    },
    [seed, steps],
  );
  await front.command("Comfy.QueuePrompt");
}

/** Wait until the node's panel says that a step between these has begun; which one. */
async function step(least, most) {
  const handle = await page.waitForFunction(
    ([least, most]) => {
      const text = document.querySelector(".dit-live-place")?.textContent ?? "";
      const found = /^step (\d+) of (\d+)$/.exec(text);
      return found && Number(found[1]) >= least && Number(found[2]) === most && Number(found[1]);
    },
    [least, most],
    { timeout: 120_000, polling: 50 },
  );
  return handle.jsonValue();
}

await front.setting("Comfy.Locale", "en");
await front.configure({ theme, vue });
await front.load();
await show();
await front.focus(node, 1);
await page.evaluate(pretendRun, [node, {}]);
await fits("as it is");
await change("title", "A title that somebody made far longer than any node is wide, and then more");
await fits("long title");
await change("collapse");
await fits("collapsed");
await change("collapse");
await fits("expanded");
await change("group", 40);
await fits("group moved");
await front.focus(node, 0.4);
await fits("zoomed out");
await front.focus(node, 1);
await page.setViewportSize({ width: 620, height: 480 });
await fits("small window");
await page.setViewportSize(VIEW);

await change("move", 60);
await front.command("Comfy.Undo");
await fits("undo");
await front.command("Comfy.Redo");
await fits("redo");

await show();
await front.focus(node, 1);
await queue(31 + vue, 900);
await step(8, 900);
await front.command("Comfy.Interrupt");
await page.waitForFunction(() =>
  /^stopped in step/.test(document.querySelector(".dit-live-place")?.textContent ?? ""),
);
await fits("cancelled");

await queue(41 + vue, 900);
seen.before = await step(8, 900);
await front.reload();
seen.after = await step(seen.before + 8, 900);
await front.command("Comfy.Interrupt");
await page.waitForFunction(() =>
  /^stopped in step/.test(document.querySelector(".dit-live-place")?.textContent ?? ""),
);

const second = await page.context().newPage();
await second.goto(url, { waitUntil: "domcontentloaded" });
await second.waitForFunction(() => window.app?.extensionManager?.workflow?.activeWorkflow);
await show(second);
await second.waitForTimeout(700);
const untouched = await textOf(second);
await page.bringToFront();
await queue(51 + vue, 13);
await step(13, 13);
await page.waitForSelector(".dit-live-sentence");
seen.tabs = { before: untouched, after: await textOf(second), first: await textOf() };
await second.close();

await front.setting("Comfy.Locale", locale);
await front.reload();
await show();
await page.evaluate(pretendRun, [node, {}]);
await page.waitForTimeout(500);
seen.spoken = await textOf();
await front.focus(node, 1);
await page.screenshot({ path: `${folder}/tour_${locale}.png` });
await front.setting("Comfy.Locale", "en");
await front.close();
console.log(JSON.stringify(seen));
