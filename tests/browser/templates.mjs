/**
 * Opens a workflow as a person does who looks for it in the template browser. Prints how many nodes
 * of a type it has, and what the front end logged as an error.
 */

import { Front } from "./page.mjs";

const [url, json] = process.argv.slice(2);
const { name, type } = JSON.parse(json);

const front = await Front.open({ url });
await front.configure({});
await front.load();
await front.openTemplate(name);
const count = await front.page
  .waitForFunction((type) => window.app.canvas.graph?.findNodesByType(type).length, type)
  .then((found) => found.jsonValue());
await front.close();
console.log(JSON.stringify({ count, errors: front.errors }));
