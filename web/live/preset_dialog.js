// @ts-check
/**
 * Shows a comparison of presets: how far it is, then a table, two pictures under a slider, and the
 * result to take along. It floats, so that the nodes can be watched meanwhile.
 */

import { sliderOf } from "./slider.js";
import { capital, translated, word } from "./words.js";

/** @typedef {import("./types").PresetResult} PresetResult */
/** @typedef {import("./types").SavedFile} SavedFile */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} kind Part of the class name.
 * @param {(Node | string)[]} content
 * @returns {HTMLElementTagNameMap[T]}
 */
function element(tag, kind, ...content) {
  const made = document.createElement(tag);
  made.className = `dit-presets-${kind}`;
  made.append(...content);
  return made;
}

/**
 * @param {string} text
 * @param {() => void} act
 */
function button(text, act) {
  const made = element("button", "button", word(text));
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

export class PresetDialog {
  /** @param {(file: SavedFile) => string} address Of a file that the server has saved. */
  constructor(address) {
    this.address = address;
    this.abort = new AbortController();
    this.body = element("div", "body");
    this.buttons = element("div", "buttons");
    this.element = element("section", "dialog");
    this.element.setAttribute("role", "dialog");
    this.element.setAttribute("aria-label", word("Compare presets"));
    const title = element("h2", "title", word("Compare presets"));
    this.element.append(title, this.body, this.buttons);
    // Keys typed here are none of the graph's.
    this.element.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") this.close();
    });
    document.body.append(this.element);
  }

  /** End what goes on, and go away. */
  close() {
    this.abort.abort(new Error("Canceled."));
    this.element.remove();
  }

  /** @param {{name: string, number: number, count: number}} run */
  running({ name, number, count }) {
    const bar = element("progress", "bar");
    bar.max = count;
    bar.value = number;
    const text = "Run {0} of {1}: {2}. The workflow stays as it is.";
    this.body.replaceChildren(element("p", "line", word(text, number + 1, count, name)), bar);
    this.buttons.replaceChildren(button("Cancel", () => this.close()));
  }

  /** @param {string} sentence */
  failed(sentence) {
    this.body.replaceChildren(element("p", "line", word(sentence)));
    this.buttons.replaceChildren(button("Close", () => this.close()));
  }

  /** @param {PresetResult} result */
  show(result) {
    const slider = element("div", "pictures");
    const [full, ...others] = result.rows;
    const table = element("table", "table");
    table.classList.add("dit-live-table");
    table.append(headOf(result.table.head));
    /** @param {number} number */
    const choose = (number) => {
      for (const [n, row] of [...table.rows].slice(1).entries()) {
        row.classList.toggle("dit-presets-chosen", n === number);
      }
      const [left, right] = [full, result.rows[number]].map(({ preset, pictures: [file] }) => {
        return { name: preset, address: this.address(file), file: file.filename };
      });
      slider.replaceChildren(sliderOf(left, right));
    };
    for (const [number, cells] of result.table.rows.entries()) {
      const row = table.insertRow();
      for (const cell of cells) row.insertCell().textContent = word(cell);
      row.addEventListener("click", () => choose(number));
    }
    const notes = result.notes.map((note) => element("p", "note", capital(translated(note))));
    this.body.replaceChildren(table, slider, ...notes);
    choose(others.length ? 1 : 0);
    const picture = element("a", "button", word("Picture of all"));
    picture.href = this.address(result.picture);
    picture.target = "_blank";
    this.buttons.replaceChildren(
      button("Copy table", () => copy(result.markdown)),
      button("Copy for an issue", () => copy(forIssue(result))),
      picture,
      button("Close", () => this.close()),
    );
  }
}

/** @param {string[]} names */
function headOf(names) {
  const head = element("thead", "head");
  const row = head.insertRow();
  for (const name of names) row.append(element("th", "name", word(name)));
  return head;
}

/**
 * What the issue form asks for: figures and no more.
 * @param {PresetResult} result
 */
export function forIssue({ version, model, environment, rows, notes }) {
  return JSON.stringify({ version, model, environment, rows, notes }, null, 2);
}

/** @param {string} text */
function copy(text) {
  if (navigator.clipboard) return void navigator.clipboard.writeText(text);
  // Pages that are not served safely (http on another machine) have no clipboard of that kind.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
