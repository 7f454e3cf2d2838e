// @ts-check
/**
 * Quantities in words, and words in the language of the page.
 *
 * The server speaks English. `languages/*.json` holds what it says, with places for what changes,
 * and its translation; what is not there stays English.
 */

/** @typedef {import("./types").Progress} Progress */

/** @typedef {Record<string, string>} Texts In English, and the same in the page's language. */

/** @type {Texts} */
let texts = {};
/** @type {[RegExp, string][]} */
let patterns = [];

/** @param {string} text */
function escaped(text) {
  return text.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
}

/**
 * Speak a language from now on. A place in a text is `{0}`, `{1}`, …
 * @param {{page: Texts, said: Texts}} language The page's own texts, and those of the server.
 */
export function speak({ page, said }) {
  texts = page;
  patterns = Object.entries(said).map(([english, other]) => [
    new RegExp(`^${escaped(english).replace(/\{\d\}/g, "(.+?)")}$`, "i"),
    other,
  ]);
}

/**
 * A text of the page's own.
 * @param {string} english
 * @param {...(string | number)} values
 * @returns {string}
 */
export function word(english, ...values) {
  return filled(texts[english] ?? english, values);
}

/**
 * @param {string} text
 * @param {(string | number)[]} values
 */
function filled(text, values) {
  return text.replace(/\{(\d)\}/g, (_, place) => String(values[Number(place)]));
}

/**
 * What the server said, as a whole or else clause by clause; what is not known stays as it is.
 * @param {string} said
 * @returns {string}
 */
export function translated(said) {
  for (const [pattern, other] of patterns) {
    const found = pattern.exec(said);
    if (found) return filled(other, found.slice(1).map(byClause));
  }
  return said.includes("; ") ? byClause(said) : said;
}

/** @param {string} said */
function byClause(said) {
  return said.split("; ").map(translated).join("; ");
}

/**
 * A run's sentence without its beginning, which the heading says.
 * @param {Progress} progress
 * @returns {string}
 */
export function sentence(progress) {
  const text = progress.sentence.replace(`${progress.technique}: `, "");
  const said = patterns.length ? translated(text.replace(/\.$/, "")) : text;
  return capital(said);
}

/**
 * A line of a report: what is said after its heading where the whole is not known.
 * @param {string} said
 * @returns {string}
 */
export function line(said) {
  const [, before, body, after] = /^(\s*)(.*?)(\.?)$/.exec(said) ?? ["", "", said, ""];
  const whole = translated(body);
  const cut = body.indexOf(": ") + 2;
  const told = whole !== body || cut < 2 ? whole : body.slice(0, cut) + translated(body.slice(cut));
  return before + told + after;
}

/**
 * With a capital at the beginning; names of inputs stay as they are.
 * @param {string} said
 */
export function capital(said) {
  return /^\w*_/.test(said) ? said : said.charAt(0).toUpperCase() + said.slice(1);
}

/**
 * @param {number} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toPrecision(2)} s`;
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/**
 * @param {number} count
 * @returns {string}
 */
export function bytes(count) {
  const mebibytes = count / 2 ** 20;
  if (mebibytes < 10) return `${mebibytes.toPrecision(2)} MiB`;
  if (mebibytes < 1000) return `${mebibytes.toFixed(0)} MiB`;
  return `${(mebibytes / 1024).toPrecision(3)} GiB`;
}
