// @ts-check

/**
 * Load a style sheet of this folder.
 * @param {string} name
 */
export function addStyle(name) {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL(`./${name}`, import.meta.url).href;
  document.head.append(link);
}
