/**
 * A page of the real front end in an installed Chromium.
 *
 * The environment names what tests/browser_environment.py found or installed:
 * DIT_ACCEL_BROWSER is a folder with node_modules, DIT_ACCEL_CHROMIUM the browser.
 */

import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.DIT_ACCEL_BROWSER, "package.json"));
const { chromium } = require("playwright-core");

const READY_MILLISECONDS = 120_000;

// What the front end logs by itself, also with no custom node: optional files of a fresh user,
// and hosts outside, such as the one of a missing model, which are not asked here.
const EXPECTED = [
  /404 \(Not Found\).*\/(user\.css|userdata|users|i18n|settings|internal)/,
  // Help is asked for in the page's language first, and then without one, which is English.
  /404 \(Not Found\).*\/docs\/\w+\/en\.md$/,
  /^ComfyApp graph accessed before initialization .*\/assets\//,
  /ERR_BLOCKED_BY_CLIENT/,
  /Content Security Policy/,
  // Front end 1.58 may draw a node that it has just replaced once more; only its own code is in the
  // stack.
  /^NullGraphError: [^\n]*(\n +at LGraph[^\n]*\/assets\/litegraph-[^\n]*)+$/,
];

export class Front {
  /** @param {{url: string, viewport?: {width: number, height: number}, scale?: number}} options */
  static async open({ url, viewport = { width: 1280, height: 900 }, scale = 1 }) {
    const browser = await chromium.launch({
      executablePath: process.env.DIT_ACCEL_CHROMIUM,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--disable-sync",
        "--disable-component-update",
      ],
    });
    const context = await browser.newContext({ viewport, deviceScaleFactor: scale });
    // Nothing outside this machine is asked for.
    await context.route(
      (address) => address.hostname !== "127.0.0.1",
      (route) => route.abort("blockedbyclient"),
    );
    const page = await context.newPage();
    // The driver's 30 s are short on two cores that draw every template's picture in software.
    page.setDefaultTimeout(READY_MILLISECONDS);
    const front = new Front(browser, page, url);
    page.on("console", (message) => {
      if (message.type() === "error") front.note(`${message.text()} ${message.location().url}`);
    });
    page.on("pageerror", (error) => front.note(String(error.stack ?? error)));
    return front;
  }

  constructor(browser, page, url) {
    this.browser = browser;
    this.page = page;
    this.url = url;
    /** @type {string[]} Errors that the front end does not log by itself. */
    this.errors = [];
    this.leaving = false;
  }

  note(text) {
    // A page that is left cuts off what it was just fetching.
    if (this.leaving && text.includes("Failed to fetch")) return;
    if (!EXPECTED.some((known) => known.test(text))) this.errors.push(text);
  }

  async setting(id, value) {
    const answer = await fetch(`${this.url}/api/settings/${encodeURIComponent(id)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(value),
    });
    if (!answer.ok) throw new Error(`setting ${id}: HTTP ${answer.status}`);
  }

  /** @param {{theme?: "dark" | "light", vue?: boolean}} look */
  async configure({ theme = "dark", vue = false }) {
    await this.setting("Comfy.ColorPalette", theme);
    await this.setting("Comfy.VueNodes.Enabled", vue);
    await this.setting("Comfy.TutorialCompleted", true);
    await this.setting("Comfy.Notification.ShowVersionUpdates", false);
  }

  async load() {
    await this.page.goto(this.url, { waitUntil: "domcontentloaded" });
    await this.ready();
  }

  async reload() {
    this.leaving = true;
    await this.page.reload({ waitUntil: "domcontentloaded" });
    this.leaving = false;
    await this.ready();
  }

  async ready() {
    await this.page.waitForFunction(
      () => window.app?.extensionManager?.workflow?.activeWorkflow,
      undefined,
      { timeout: READY_MILLISECONDS },
    );
  }

  /** Open a workflow, as a file that is dropped on the page. */
  async show(workflow) {
    await this.page.evaluate((data) => window.app.loadGraphData(data, true, true), workflow);
  }

  /** Open a workflow from the template browser, as a person does. */
  async openTemplate(name) {
    await this.command("Comfy.BrowseTemplates");
    // A search that is typed before the list has come is forgotten when it comes.
    await this.page.getByTestId(/^template-workflow-/).first().waitFor();
    const search = this.page.getByPlaceholder("Search").last();
    await search.fill(name);
    // Another copy of the pack may lie in the same ComfyUI.
    await this.page.getByTestId(`template-workflow-${name}`).last().click();
  }

  /** Run a command of the front end. */
  async command(id) {
    await this.page.evaluate((id) => window.app.extensionManager.command.execute(id), id);
  }

  /** Bring a node to the upper left of the view. */
  async focus(id, scale) {
    await this.page.evaluate(
      ([id, scale]) => {
        const { canvas } = window.app;
        const [x, y] = canvas.graph.getNodeById(id).pos;
        canvas.ds.scale = scale;
        canvas.ds.offset = [100 / scale - x, 140 / scale - y];
        canvas.setDirty(true, true);
      },
      [id, scale],
    );
    await this.page.waitForTimeout(800);
  }

  async close() {
    await this.browser.close();
  }
}
