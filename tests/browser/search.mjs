/**
 * Asks the front end's own search for words, and its search box for one of them. Prints the names of
 * the first results of each, also as they would be if no name had words in brackets, which words
 * these are, and the title of the node that the box has added.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { words, typed, first } = JSON.parse(json);

const front = await Front.open({ url });
const { page } = front;
await front.configure({});
await front.load();
// How often a node is used decides among those that are equal, and is fetched a little later.
await page.waitForFunction(() => {
  const { $pinia } = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
  return $pinia._s.get("nodeFrequency")?.isLoaded;
});
const seen = await page.evaluate(
  ([words, first]) => {
    const { $pinia } = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
    const { nodeSearchService: search } = $pinia._s.get("nodeDef");
    const defs = search.nodeFuseSearch.data;
    const ours = defs.filter((def) => def.name.startsWith("Accel"));
    const bare = defs.map((def) => {
      if (!ours.includes(def)) return def;
      const value = def.display_name.replace(/ \(.*$/, "");
      return Object.create(def, { display_name: { value } });
    });
    const firstOf = (service) =>
      Object.fromEntries(
        words.map((word) => [
          word,
          service.searchNode(word, [], { limit: first }).map((def) => def.name),
        ]),
      );
    return {
      found: firstOf(search),
      withoutBrackets: firstOf(new search.constructor(bare)),
      bracketed: ours.flatMap((def) => def.display_name.match(/\((.*)\)/)?.[1].split(", ") ?? []),
    };
  },
  [words, first],
);
await front.command("Workspace.SearchBox.Toggle");
const box = page.getByPlaceholder("Add a node...");
await box.fill(typed);
await page.waitForTimeout(700);
await box.press("Enter");
await page.waitForTimeout(1500);
const title = await page.evaluate(
  () => window.app.canvas.graph._nodes.find((node) => node.type.startsWith("Accel"))?.title,
);
await front.close();
console.log(JSON.stringify({ ...seen, title, errors: front.errors }));
