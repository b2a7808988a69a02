// The overlap of every code of a list with every other.

const MOST_CODES = 60;
const heatMap = { mine: [], modes: [] };

// The largest chapters, five neighboring codes of each.
function sampleOfChapters() {
  const rows = codes.chapters.map((_, chapter) => []);
  codes.chapter.forEach((chapter, row) => rows[chapter].push(row));
  const middle = (members) => members.slice(Math.max(0, Math.floor(members.length / 2) - 2)).slice(0, 5);
  return rows.sort((a, b) => b.length - a.length).slice(0, 8).flatMap(middle);
}

function heatModes() {
  const most = narrow.matches ? 20 : 30;
  const modes = [["nearest", "The chosen code and those nearest to it", () => [codeMap.chosen, ...nearest(codeMap.chosen, most - 1).map(([row]) => row)]]];
  if (about.listed) {
    modes.push(["listed", codes.count > MOST_CODES ? `The first ${MOST_CODES} listed` : "The codes listed",
      () => Array.from({ length: Math.min(codes.count, MOST_CODES) }, (_, row) => row)]);
  }
  modes.push(["chapters", "Some codes of the largest chapters", sampleOfChapters]);
  modes.push(["mine", "My list", () => heatMap.mine]);
  return modes;
}

function drawHeatMap() {
  const mode = document.getElementById("heat-mode").value;
  const rows = heatModes().find(([name]) => name === mode)[2]();
  const note = document.getElementById("heat-note");
  note.textContent = rows.length ? `${rows.length} codes${mode === "mine" && rows.length >= MOST_CODES ? ", which is the most that fit" : ""}.`
    : "Your list is empty: choose a code, then add it.";
  const bags = rows.map(bagOf);
  const values = bags.map((bag) => bags.map((other) => overlapOf(bag, other)));
  const places = rows.map((_, place) => place);
  const label = (row) => plain(narrow.matches ? cut(codes.codes[row], 12) : cut(`${codes.codes[row]}  ${codes.descriptions[row]}`, 44));
  const texts = rows.map((a, i) => rows.map((b, j) => `<b>${plain(keyOf(a))}</b><br>${wrapped(codes.descriptions[a], hoverWidth())}<br><b>${plain(keyOf(b))}</b><br>${wrapped(codes.descriptions[b], hoverWidth())}<br>overlap ${values[i][j].toFixed(2)}`));
  const axis = { tickmode: "array", tickvals: places, showgrid: false, zeroline: false, ticks: "", fixedrange: true };
  const size = narrow.matches ? 9 : rows.length > 40 ? 10 : 12;
  const element = document.getElementById("heat-map");
  const cell = Math.max(narrow.matches || rows.length > 40 ? 14 : 18, Math.min(40, 320 / rows.length));
  const height = Math.max(220, rows.length * cell + 150);
  element.style.height = `${height}px`;
  return Plotly.react(element, [{
    type: "heatmap", x: places, y: places, z: values, text: texts, customdata: rows, hovertemplate: "%{text}<extra></extra>",
    zmin: 0, zmax: 1, xgap: 1, ygap: 1, colorscale: [[0, "#f3f6f9"], [0.25, "#b5cfe3"], [0.5, "#6a9fc9"], [0.75, "#22669c"], [1, "#08284a"]],
    colorbar: {
      thickness: 12, outlinewidth: 0,
      ...(narrow.matches ? { orientation: "h", y: 1, yanchor: "bottom", title: { text: "overlap", side: "top" } }
        : { len: 0.7, title: { text: "overlap", side: "right" } }),
    },
  }], {
    ...LAYOUT, height, margin: { l: 10, r: 10, t: narrow.matches ? 90 : 36, b: 10 }, dragmode: false,
    xaxis: { ...axis, ticktext: rows.map((row) => plain(cut(codes.codes[row], 12))), tickangle: -90, automargin: true, tickfont: { size } },
    yaxis: { ...axis, ticktext: rows.map(label), autorange: "reversed", automargin: true, tickfont: { size } },
  }, CONFIG).then(() => { heatMap.rows = rows; });
}

function startHeatMap(choose) {
  const select = document.getElementById("heat-mode");
  select.append(...heatModes().map(([name, title]) => make("option", { value: name }, title)));
  if (about.listed && codes.count <= MOST_CODES) select.value = "listed";
  select.addEventListener("change", drawHeatMap);
  document.getElementById("heat-add").addEventListener("click", () => {
    if (!heatMap.mine.includes(codeMap.chosen) && heatMap.mine.length < MOST_CODES) heatMap.mine.push(codeMap.chosen);
    select.value = "mine";
    drawHeatMap();
  });
  document.getElementById("heat-clear").addEventListener("click", () => {
    heatMap.mine = [];
    drawHeatMap();
  });
  return drawHeatMap().then(() => {
    document.getElementById("heat-map").on("plotly_click", ({ points }) => choose(heatMap.rows[points[0].y]));
  });
}
