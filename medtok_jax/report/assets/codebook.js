// The codebook: its map by region, and how much each region is used.

const UNUSED = REGIONS.length;

function hoverOfToken(token) {
  const rows = (holders.get(token) ?? []).slice(0, 3);
  const examples = rows.map((row) => `<br>${wrapped(`${codes.codes[row]} ${cut(codes.descriptions[row], 70)}`, hoverWidth())}`);
  return `<b>Token ${token}</b>  ${REGIONS[regionOfToken(token)]} region<br>in ${number(tokens.codes[token])} codes${examples.join("")}`;
}

function drawCodebookMap() {
  const groups = [...REGIONS, "unused"].map(() => []);
  tokens.mapped.forEach((token, place) => groups[tokens.codes[token] ? regionOfToken(token) : UNUSED].push(place));
  const traces = groups.map((places, group) => {
    const ids = places.map((place) => tokens.mapped[place]);
    return {
      type: SCATTER, mode: "markers", name: `${group === UNUSED ? "unused" : REGIONS[group]} (${number(ids.length)})`,
      x: places.map((place) => tokens.points[2 * place]), y: places.map((place) => tokens.points[2 * place + 1]),
      customdata: ids, text: ids.map(hoverOfToken), hovertemplate: "%{text}<extra></extra>",
      marker: group === UNUSED ? { size: 6, color: "#5b6671", symbol: "x-thin-open" } : {
        size: ids.map((token) => 2 + 1.8 * Math.log10(1 + tokens.codes[token])), opacity: 0.7, line: { width: 0 },
        color: REGION_COLORS[group], symbol: REGION_SYMBOLS[group],
      },
    };
  });
  return Plotly.react("codebook-map", traces.filter((trace) => trace.x.length), {
    ...mapLayout(), showlegend: true, legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, itemsizing: "constant" },
    margin: { l: 8, r: 8, t: narrow.matches ? 84 : 44, b: 8 },
  }, CONFIG);
}

// Bins that double in width: 0, 1, 2-3, 4-7, ... codes.
function drawUse() {
  const bin = (count) => (count ? Math.floor(Math.log2(count)) + 1 : 0);
  const last = tokens.codes.reduce((most, count) => Math.max(most, bin(count)), 0);
  const labels = Array.from({ length: last + 1 }, (_, place) => {
    const [low, high] = [2 ** (place - 1), 2 ** place - 1];
    return place < 2 ? String(place) : `${number(low)}–${number(high)}`;
  });
  const traces = about.regions.map((region, position) => {
    const heights = new Array(last + 1).fill(0);
    for (const count of tokens.codes.subarray(region.start, region.start + region.size)) heights[bin(count)] += 1;
    return {
      type: "bar", name: region.name, x: labels, y: heights, hovertemplate: `%{y} ${region.name} tokens in %{x} codes<extra></extra>`,
      marker: { color: REGION_COLORS[position], pattern: { shape: ["", "/", "x"][position], solidity: 0.25, fgcolor: "#ffffff", fillmode: "overlay" } },
    };
  });
  return Plotly.react("use-plot", traces, {
    ...LAYOUT, barmode: "group", margin: { l: 56, r: 8, t: 40, b: 40 }, dragmode: false, bargap: 0.15,
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    xaxis: { type: "category", title: { text: "codes that hold the token" }, automargin: true, fixedrange: true },
    yaxis: { title: { text: "tokens" }, gridcolor: "#e3e8ed", fixedrange: true },
  }, { ...CONFIG, displayModeBar: false });
}

function showUseTable() {
  const head = ["Region", "Tokens used", "Utilization", "Perplexity", "Uses on busiest 1 %"];
  const rows = about.regions.map((region) => make("tr", {},
    make("td", {}, region.name), make("td", {}, `${number(region.used)} / ${number(region.size)}`),
    make("td", {}, percent(region.used / region.size), meter(region.used / region.size)),
    make("td", {}, number(Math.round(region.perplexity))), make("td", {}, percent(region.busiest))));
  document.getElementById("use-table").replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((title) => make("th", { scope: "col" }, title)))), make("tbody", {}, ...rows));
}

function startCodebook(choose) {
  const view = document.getElementById("token-view");
  const [busiest] = [...holders].reduce((most, entry) => (entry[1].length > most[1].length ? entry : most));
  showToken(view, busiest, choose);
  showUseTable();
  const drawn = drawCodebookMap().then((plot) => {
    plot.on("plotly_click", ({ points }) => showToken(view, points[0].customdata, choose));
  });
  return Promise.all([drawn, drawUse()]);
}
