// What the page holds, and how much of it two codes have in common.

const page = JSON.parse(document.getElementById("data").textContent);
const about = page.about;
const REGIONS = about.regions.map((region) => region.name);
const EMBEDDINGS = about.embeddings;

function decode({ type, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return type === "float32" ? new Float32Array(bytes.buffer) : new Int32Array(bytes.buffer);
}

const codes = { ...page.codes };
for (const name of ["system", "chapter", "region", "modalities", "ids", "weights", "points"]) {
  codes[name] = decode(codes[name]);
}
codes.count = codes.codes.length;
codes.width = about.bounds.at(-1)[1];
const tokens = {
  mapped: decode(page.tokens.mapped),
  points: decode(page.tokens.points),
  codes: decode(page.tokens.codes),
};

const systemOf = (row) => codes.systems[codes.system[row]].name;
const keyOf = (row) => `${systemOf(row)}/${codes.codes[row]}`;
const regionOfToken = (token) => about.regions.findIndex((region) => token < region.start + region.size);
const number = (value) => value.toLocaleString("en-US");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const cut = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);

// Weights of a code by token, those of each embedding summing to one.
function bagOf(row) {
  const bag = new Map();
  for (let embedding = 0; embedding < EMBEDDINGS.length; embedding++) {
    const [first, end] = about.bounds[embedding];
    const start = row * codes.width + first;
    const weights = codes.weights.subarray(start, row * codes.width + end);
    const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
    for (let place = 0; place < weights.length; place++) {
      const token = codes.ids[start + place];
      bag.set(token, (bag.get(token) ?? 0) + weights[place] / total);
    }
  }
  return bag;
}

// Weighted Jaccard overlap: sum of the smaller weights over sum of the larger ones.
function overlapOf(bag, other) {
  let both = 0;
  for (const [token, weight] of other) both += Math.min(weight, bag.get(token) ?? 0);
  const sum = (weights) => weights.values().reduce((total, weight) => total + weight, 0);
  return both / (sum(bag) + sum(other) - both);
}

// Token -> rows of the codes that hold it.
const holders = new Map();
for (let row = 0; row < codes.count; row++) {
  for (const token of new Set(codes.ids.subarray(row * codes.width, (row + 1) * codes.width))) {
    if (!holders.has(token)) holders.set(token, []);
    holders.get(token).push(row);
  }
}

// The `count` codes that share most with one, best first, as [row, overlap].
function nearest(row, count) {
  const bag = bagOf(row);
  const candidates = new Set([...bag.keys()].flatMap((token) => holders.get(token)));
  candidates.delete(row);
  const found = [...candidates].map((other) => [other, overlapOf(bag, bagOf(other))]);
  return found.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, count);
}

// Makes an element; `children` are elements or texts, which are never read as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function meter(share) {
  const bar = make("span");
  bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return make("span", { class: "meter", "aria-hidden": "true" }, bar);
}
