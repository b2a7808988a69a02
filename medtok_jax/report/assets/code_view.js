// One code: its tokens, who shares them, and the codes with most tokens in common.

const MODALITIES = ["neither a description nor a subgraph", "a description, no subgraph", "a subgraph, no description", "description and subgraph"];
const MOST_HOLDERS = 8;
const MOST_NEIGHBORS = 10;

function codeButton(row, figure, choose) {
  return make("li", {}, make("button", { type: "button", title: keyOf(row), onclick: () => choose(row) },
    make("span", { class: "count" }, figure),
    make("span", { class: "what" }, make("strong", {}, codes.codes[row]), ` ${codes.descriptions[row]}`)));
}

// Describes a token inside `container`: its region, how many codes hold it, and those on this page, heaviest first.
function showToken(container, token, choose) {
  const region = REGIONS[regionOfToken(token)];
  const rows = holders.get(token) ?? [];
  const weighted = rows.map((row) => [row, bagOf(row).get(token)]).sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const share = percent(tokens.codes[token] / about.vocabulary);
  const parts = [
    make("h4", {}, `Token ${token} `, make("span", { class: "region" }, `${region} region`)),
    make("p", {}, `In ${number(tokens.codes[token])} of ${number(about.vocabulary)} codes (${share}); ${number(rows.length)} of them on this page${rows.length ? ", those where it weighs most:" : "."}`),
    make("ul", { class: "bars" }, ...weighted.slice(0, MOST_HOLDERS).map(([row, weight]) => codeButton(row, weight.toFixed(2), choose))),
  ];
  if (rows.length > MOST_HOLDERS) parts.push(make("p", { class: "note" }, `and ${number(rows.length - MOST_HOLDERS)} more`));
  container.replaceChildren(...parts);
}

function showCode(row, choose) {
  const chapter = codes.chapters[codes.chapter[row]];
  const found = nearest(row, MOST_NEIGHBORS);
  document.getElementById("code-view").replaceChildren(
    make("h3", {}, codes.codes[row], make("span", { class: "note" }, `  ${systemOf(row)}`)),
    make("p", {}, codes.descriptions[row]),
    make("p", { class: "note" }, chapter.span ? `${chapter.span} ${chapter.title}` : chapter.title),
    make("p", { class: "note" }, `Main region: ${REGIONS[codes.region[row]]}; encoded from ${MODALITIES[codes.modalities[row]]}.`),
    make("h4", {}, "Codes on this page that share most, by overlap"),
    found.length
      ? make("ul", { class: "bars", id: "neighbors" }, ...found.map(([other, overlap]) => codeButton(other, overlap.toFixed(2), choose)))
      : make("p", {}, "No code on this page has a token of this one."),
  );
  showTokens(row, choose);
}

function showTokens(row, choose) {
  const buttons = [];

  function chooseToken(place) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === place)));
    showToken(document.getElementById("code-token"), codes.ids[row * codes.width + place], choose);
  }

  function tokenButton(place, region) {
    const token = codes.ids[row * codes.width + place];
    const weight = codes.weights[row * codes.width + place];
    const button = make("button", {
      type: "button", class: `token ${region}`, "aria-pressed": "false",
      "aria-label": `Token ${token}, weight ${weight.toFixed(2)}`, onclick: () => chooseToken(place),
    }, make("strong", {}, String(token)), make("span", { class: "weight" }, ` ${weight.toFixed(2)}`), meter(weight));
    buttons.push(button);
    return button;
  }

  const groups = EMBEDDINGS.flatMap((embedding, position) => {
    const region = REGIONS[embedding.region];
    const [first, end] = about.bounds[position];
    const places = Array.from({ length: end - first }, (_, place) => first + place);
    return [
      make("h4", {}, `${embedding.name} `, make("span", { class: "region" }, `embedding, ${region} region`)),
      make("div", { class: "tokens" }, ...places.map((place) => tokenButton(place, region))),
    ];
  });
  document.getElementById("code-tokens").replaceChildren(
    make("h3", {}, `${codes.codes[row]} ${cut(codes.descriptions[row], 100)}`), ...groups);
  chooseToken(0);
}
