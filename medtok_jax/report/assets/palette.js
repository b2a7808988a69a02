// Colors that color-blind readers tell apart (Okabe and Ito, without the yellow, which is too pale on white), each
// group with a marker of its own besides; and what all plots have in common.

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const SYMBOLS = [
  "circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star", "pentagon", "hexagon", "hexagram",
];
const FADED = "#dde2e7";
const REGION_COLORS = ["#0072b2", "#d55e00", "#009e73"];
const REGION_SYMBOLS = ["circle", "square", "diamond"];
const narrow = window.matchMedia("(max-width: 600px)");

// Different colors and markers for few groups; for many, every pair of the two once.
function styleOf(group, groups) {
  if (groups <= COLORS.length) return { color: COLORS[group], symbol: SYMBOLS[group] };
  return {
    color: COLORS[group % COLORS.length],
    symbol: SYMBOLS[Math.floor(group / COLORS.length) % SYMBOLS.length],
  };
}

function swatch({ color, symbol }) {
  const name = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(name, "svg");
  for (const [key, value] of [["width", 14], ["height", 14], ["viewBox", "-7 -7 14 14"], ["aria-hidden", "true"]]) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(name, "path");
  path.setAttribute("d", outline(symbol));
  path.setAttribute("fill", color);
  return svg.appendChild(path), svg;
}

function outline(symbol) {
  const star = (points, radius, inner, turn = 0) => `M${Array.from({ length: points * (inner ? 2 : 1) }, (_, corner) => {
    const angle = turn - Math.PI / 2 + (corner * Math.PI * (inner ? 1 : 2)) / points;
    const length = inner && corner % 2 ? inner : radius;
    return `${(length * Math.cos(angle)).toFixed(2)},${(length * Math.sin(angle)).toFixed(2)}`;
  }).join("L")}Z`;
  const cross = "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z";
  return {
    circle: "M-5,0A5,5 0 1,1 5,0A5,5 0 1,1 -5,0Z",
    square: "M-5,-5H5V5H-5Z",
    diamond: star(4, 6.5),
    "triangle-up": star(3, 6.5),
    "triangle-down": star(3, 6.5, 0, Math.PI),
    cross,
    x: "M-6,-3.5L-3.5,-6L0,-2.5L3.5,-6L6,-3.5L2.5,0L6,3.5L3.5,6L0,2.5L-3.5,6L-6,3.5L-2.5,0Z",
    star: star(5, 6.5, 2.8),
    pentagon: star(5, 6),
    hexagon: star(6, 6),
    hexagram: star(6, 6.5, 3.6),
  }[symbol];
}

// Plotly reads a few HTML tags in texts; nothing of a description may be one.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function wrapped(text, width) {
  const lines = [""];
  for (const word of cut(text, 240).split(/\s+/)) {
    for (let piece = word; piece; piece = piece.slice(width)) {
      const last = lines.length - 1;
      if (lines[last] && lines[last].length + 1 + Math.min(piece.length, width) > width) lines.push(piece.slice(0, width));
      else lines[last] += (lines[last] ? " " : "") + piece.slice(0, width);
    }
  }
  return lines.map(plain).join("<br>");
}

const hoverWidth = () => (narrow.matches ? 30 : 48);

function hoverOfCode(row) {
  const chapter = codes.chapters[codes.chapter[row]];
  const place = chapter.span ? `<br><i>${wrapped(`${chapter.span} ${chapter.title}`, hoverWidth())}</i>` : "";
  return `<b>${plain(codes.codes[row])}</b>  ${plain(systemOf(row))}<br>${wrapped(codes.descriptions[row], hoverWidth())}${place}`;
}

const SCATTER = (() => {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context ? "scattergl" : "scatter";
})();
const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: true, plotlyServerURL: "", showSendToCloud: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines", "hoverClosestCartesian", "hoverCompareCartesian"],
};
const LAYOUT = {
  font: { family: 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif', size: 13, color: "#16202b" },
  paper_bgcolor: "#fff", plot_bgcolor: "#fff",
  hoverlabel: { bgcolor: "#fff", bordercolor: "#16202b", align: "left", font: { size: 13, color: "#16202b" } },
};
// Directions on a map mean nothing; only distances do. On a narrow screen, fingers scroll the page, not the map.
function mapLayout() {
  const axis = { visible: false, zeroline: false };
  return {
    ...LAYOUT, margin: { l: 8, r: 8, t: 34, b: 8 }, showlegend: false, hovermode: "closest",
    dragmode: narrow.matches ? false : "zoom", xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: undefined },
  };
}
