/**
 * Opens the help of every node of ours in the docked panel, as narrow as people make it. Prints for
 * each page its heading, its language and what is wider than its place.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { looks, width, folder } = JSON.parse(json);
const HELP = ".node-help-content";
const VIEW = { width: 1000, height: 900 };

const front = await Front.open({ url, viewport: VIEW });
const { page } = front;

/** Select a new node of a type alone, and open what the page says of it. */
function open(type) {
  const { canvas } = window.app;
  canvas.graph.clear();
  const node = window.LiteGraph.createNode(type);
  node.pos = [0, 0];
  canvas.graph.add(node);
  canvas.selectItems([node]);
  const { $pinia } = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
  $pinia._s.get("rightSidePanel").openPanel("info");
}

/** Make the docked panel so wide, and say what of the help does not fit in it. */
function measure([selector, width]) {
  const help = document.querySelector(selector);
  const panel = help.closest(".p-splitterpanel, [data-panel]") ?? help.parentElement;
  for (const name of ["flexBasis", "minWidth", "maxWidth"]) panel.style[name] = `${width}px`;
  const edge = panel.getBoundingClientRect().right;
  const wide = [...help.querySelectorAll("*")].filter(
    (part) =>
      part.getBoundingClientRect().right > edge + 1 ||
      (part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).display !== "inline"),
  );
  return {
    width: panel.getBoundingClientRect().width,
    heading: help.querySelector("h1")?.textContent ?? "",
    text: help.innerText,
    pictures: [...help.querySelectorAll("img")].map((image) => image.naturalWidth),
    wide: wide.map((part) => `${part.tagName}: ${part.textContent.slice(0, 80)}`),
    height: help.scrollHeight,
  };
}

const seen = { errors: front.errors, pages: [] };
for (const { theme, locale } of looks) {
  await front.configure({ theme });
  await front.setting("Comfy.Locale", locale);
  await front.load();
  const types = await page.evaluate(() =>
    Object.keys(window.LiteGraph.registered_node_types).filter((type) => type.startsWith("Accel")),
  );
  for (const type of types) {
    await page.evaluate(open, type);
    await page.locator(`${HELP} h1`).first().waitFor();
    await page.waitForLoadState("networkidle");
    await page.waitForTimeout(150);
    const found = await page.evaluate(measure, [HELP, width]);
    seen.pages.push({ type, theme, locale, ...found });
    await page.setViewportSize({ width: VIEW.width, height: found.height + 400 });
    await page.locator(HELP).screenshot({ path: `${folder}/help_${type}_${locale}_${theme}.png` });
    await page.setViewportSize(VIEW);
  }
}
await front.setting("Comfy.Locale", "en");
await front.close();
console.log(JSON.stringify(seen));
