// @ts-check
/**
 * The command "Compare presets": in the command palette, in the menu, by keyboard, and in the menu
 * of a Performance Mode.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { comparePresets } from "./preset_runs.js";
import { PresetDialog } from "./preset_dialog.js";
import { addStyle } from "./style.js";
import { word } from "./words.js";

const COMMAND = "ditAcceleration.comparePresets";
const LABEL = "Compare presets (DiT Acceleration)";
const NODE = "AccelPerformanceMode";

/** @type {PresetDialog | undefined} The one that is open; a second would race for the machine. */
let open;

/** @param {import("./types").SavedFile} file */
function address(file) {
  return api.apiURL(`/view?${new URLSearchParams({ ...file })}`);
}

/** Not waited for by whoever gives the command: it takes as long as it takes. */
function begin() {
  void compare();
}

async function compare() {
  open?.close();
  const dialog = (open = new PresetDialog(address));
  try {
    // What is queued is what the graph is now, whatever is changed meanwhile.
    const graph = await app.graphToPrompt();
    const tell = /** @type {Parameters<typeof comparePresets>[2]} */ ((run) => dialog.running(run));
    dialog.show(await comparePresets(api, graph, tell, dialog.abort.signal));
  } catch (error) {
    dialog.failed(error instanceof Error ? error.message : String(error));
  }
}

app.registerExtension({
  name: "ditAcceleration.presets",
  commands: [{ id: COMMAND, label: LABEL, icon: "pi pi-images", function: begin }],
  keybindings: [{ commandId: COMMAND, combo: { key: "c", alt: true, shift: true } }],
  menuCommands: [{ path: ["Extensions", "DiT Acceleration"], commands: [COMMAND] }],
  setup() {
    addStyle("presets.css");
  },
  getNodeMenuItems: (node) =>
    node.type === NODE ? [null, { content: word("Compare presets"), callback: begin }] : [],
});
