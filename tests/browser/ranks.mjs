/**
 * The panel of Split Across GPUs, in mid-run and at its end. The run is pretended; prints what was
 * seen as JSON.
 */

import { Front } from "./page.mjs";
import { pretendRun, readPanel, whereNode } from "./panel.mjs";

const [url, json] = process.argv.slice(2);
const { vue, theme, folder, running, finished } = JSON.parse(json);

const front = await Front.open({ url, viewport: { width: 900, height: 900 }, scale: 1.5 });
const { page } = front;
const seen = { errors: front.errors };

await front.configure({ theme, vue });
await front.load();
const node = await page.evaluate(() => {
  window.app.canvas.graph.clear();
  const made = window.LiteGraph.createNode("AccelSplitAcrossGPUs");
  made.pos = [100, 100];
  window.app.canvas.graph.add(made);
  return made.id;
});
await front.focus(node, 1.2);

for (const [name, run] of Object.entries({ running, finished })) {
  await page.evaluate(pretendRun, [node, run]);
  await page.waitForTimeout(900);
  seen[name] = {
    ...(await page.evaluate(readPanel, node)),
    table: await page.evaluate(() =>
      [...document.querySelectorAll(".dit-live-ranks tr")].map((row) =>
        [...row.cells].map((cell) => cell.textContent),
      ),
    ),
  };
  const path = `${folder}/ranks_${name}_${vue ? "nodes2" : "canvas"}_${theme}.png`;
  await page.screenshot({ path, clip: await page.evaluate(whereNode, node) });
}
await front.close();
console.log(JSON.stringify(seen));
