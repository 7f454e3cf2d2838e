// @ts-check
/**
 * Two pictures or videos over each other; where the pointer or the arrow keys put the edge, one is
 * seen on its left and the other on its right. The front end's own slider shows nothing on nodes
 * that are drawn on the canvas, so this one serves both renderers.
 */

const VIDEOS = /\.(mp4|webm|mkv|mov)$/i;

/** @typedef {{name: string, address: string, file: string}} Side */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} kind Part of the class name.
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[T]}
 */
function element(tag, kind, text = "") {
  const made = document.createElement(tag);
  made.className = `dit-slider-${kind}`;
  made.textContent = text;
  return made;
}

/**
 * @param {Side} left
 * @param {Side} right
 * @returns {HTMLElement}
 */
export function sliderOf(left, right) {
  const frame = element("div", "frame");
  const [below, above] = [medium(left), medium(right)];
  const edge = element("div", "edge");
  const range = element("input", "range");
  Object.assign(range, { type: "range", min: "0", max: "100", value: "50" });
  range.setAttribute("aria-label", `${left.name} left of the edge, ${right.name} right of it`);
  const place = () => {
    above.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    edge.style.left = `${range.value}%`;
  };
  range.addEventListener("input", place);
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    range.value = String((100 * (event.clientX - box.left)) / box.width);
    place();
  });
  place();
  frame.append(below, above, edge, element("span", "left", left.name));
  frame.append(element("span", "right", right.name), range);
  return frame;
}

/** @param {Side} side */
function medium({ address, file }) {
  if (!VIDEOS.test(file)) {
    const image = element("img", "medium");
    image.draggable = false;
    image.src = address;
    return image;
  }
  const video = element("video", "medium");
  Object.assign(video, { muted: true, loop: true, autoplay: true, src: address });
  return video;
}
