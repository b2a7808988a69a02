// The map of codes: marks by group, a legend that picks groups out, and rings around the chosen code.

const GROUPINGS = {
  system: { of: codes.system, names: codes.systems.map((system) => system.name), heading: () => "" },
  chapter: {
    of: codes.chapter,
    names: codes.chapters.map((chapter) => (chapter.span ? `${chapter.span} ${chapter.title}` : chapter.title)),
    heading: (group) => codes.systems[codes.chapters[group].system].name,
  },
  region: { of: codes.region, names: REGIONS, heading: () => "" },
};
const LEGEND_NOTES = {
  system: "Choose code systems below to pick them out.",
  chapter: "Choose chapters below to pick them out.",
  region: "The main region of a code is that of the token which adds most to its quantized embeddings. Choose regions"
    + " below to pick them out.",
};
const MOST_NAMED = 40;
const codeMap = { grouping: "system", picked: new Set(), chosen: 0 };

function groupStyle(group) {
  if (codeMap.grouping === "region") return { color: REGION_COLORS[group], symbol: REGION_SYMBOLS[group] };
  return styleOf(group, GROUPINGS[codeMap.grouping].names.length);
}

function marks(rows, style, size) {
  return {
    type: SCATTER, mode: "markers", customdata: rows,
    x: rows.map((row) => codes.points[2 * row]), y: rows.map((row) => codes.points[2 * row + 1]),
    hovertext: rows.map(hoverOfCode), hovertemplate: "%{hovertext}<extra></extra>",
    marker: { size, opacity: 0.8, line: { width: 0 }, ...style },
    // A page of few codes has room for their names.
    ...(codes.count <= MOST_NAMED
      ? { type: "scatter", mode: "markers+text", text: rows.map((row) => plain(codes.codes[row])), textposition: "bottom center", cliponaxis: false } : {}),
  };
}

function drawCodeMap() {
  const { of } = GROUPINGS[codeMap.grouping];
  const rows = Array.from({ length: codes.count }, (_, row) => row);
  const isPicked = (row) => !codeMap.picked.size || codeMap.picked.has(of[row]);
  const styles = GROUPINGS[codeMap.grouping].names.map((_, group) => groupStyle(group));
  const size = (codes.count > 4000 ? 5 : codes.count > 500 ? 7 : 10) - (narrow.matches ? 2 : 0);
  const active = rows.filter(isPicked);
  const { chosen } = codeMap;
  const traces = [
    marks(rows.filter((row) => !isPicked(row)), { color: FADED, opacity: 0.6 }, size),
    marks(active, {
      color: active.map((row) => styles[of[row]].color), symbol: active.map((row) => styles[of[row]].symbol),
    }, size),
    { ...marks([chosen], { color: "#000000", symbol: "circle-open", opacity: 1, line: { width: 3, color: "#000000" } }, 18), type: "scatter", mode: "markers" },
  ];
  const layout = { ...mapLayout(), uirevision: "kept" };
  layout.annotations = [{
    x: codes.points[2 * chosen], y: codes.points[2 * chosen + 1], text: `<b>${plain(codes.codes[chosen])}</b>`,
    ax: 0, ay: -28, arrowcolor: "#000000", bgcolor: "#ffffff", bordercolor: "#000000", borderpad: 2, font: { size: 13 },
  }];
  return Plotly.react("code-map", traces, layout, CONFIG);
}

function drawLegend() {
  const { of, names, heading } = GROUPINGS[codeMap.grouping];
  const counts = new Array(names.length).fill(0);
  for (const group of of) counts[group] += 1;
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  let list = null;
  let last = null;
  names.forEach((name, group) => {
    if (!counts[group]) return;
    if (heading(group) !== last || !list) {
      last = heading(group);
      if (last) legend.append(make("h3", {}, last));
      list = legend.appendChild(make("ul"));
    }
    const button = make("button", { type: "button", "aria-pressed": String(codeMap.picked.has(group)) },
      swatch(groupStyle(group)), make("span", {}, cut(name, 60)), make("span", { class: "count" }, number(counts[group])));
    button.addEventListener("click", () => {
      if (!codeMap.picked.delete(group)) codeMap.picked.add(group);
      button.setAttribute("aria-pressed", String(codeMap.picked.has(group)));
      drawCodeMap();
    });
    list.append(make("li", {}, button));
  });
  document.getElementById("legend-note").textContent = LEGEND_NOTES[codeMap.grouping];
}

function startCodeMap(choose) {
  document.getElementById("color-by").addEventListener("change", (event) => {
    codeMap.grouping = event.target.value;
    codeMap.picked.clear();
    drawLegend();
    drawCodeMap();
  });
  drawLegend();
  return drawCodeMap().then((plot) => plot.on("plotly_click", ({ points }) => choose(points[0].customdata)));
}
