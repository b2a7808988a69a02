// The search box: a combobox after the ARIA Authoring Practices, driven by keyboard or mouse.

const MOST_RESULTS = 12;
const compact = (text) => text.toUpperCase().replaceAll(".", "").trim();
const searched = {
  code: codes.codes.map(compact),
  words: codes.codes.map((_, row) => `${keyOf(row)} ${codes.descriptions[row]}`.toLowerCase()),
};

// Rows that a text finds: the code itself, codes that begin with it, then keys and descriptions that hold its words.
function find(text) {
  const wanted = compact(text);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted || !words.length) return [];
  const ranks = [[], [], []];
  for (let row = 0; row < codes.count; row++) {
    const code = searched.code[row];
    const key = `${systemOf(row).toUpperCase()}/${code}`;
    if (code === wanted || key === wanted) ranks[0].push(row);
    else if (code.startsWith(wanted) || key.startsWith(wanted)) ranks[1].push(row);
    else if (words.every((word) => searched.words[row].includes(word))) ranks[2].push(row);
  }
  return ranks.flat();
}

function startSearch(choose) {
  const input = document.getElementById("search");
  const list = document.getElementById("results");
  const status = document.getElementById("search-status");
  let rows = [];
  let active = -1;

  function show(open) {
    list.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    if (!open) mark(-1);
  }

  function mark(place) {
    active = place;
    [...list.children].forEach((item, other) => item.setAttribute("aria-selected", String(other === place)));
    if (place < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[place].id);
    list.children[place].scrollIntoView({ block: "nearest" });
  }

  function take(row) {
    input.value = codes.codes[row];
    status.textContent = `Shown: ${keyOf(row)}`;
    show(false);
    choose(row);
  }

  function update() {
    const found = find(input.value);
    rows = found.slice(0, MOST_RESULTS);
    list.replaceChildren(...rows.map((row, place) => {
      const item = make("li", { role: "option", id: `result-${place}`, "aria-selected": "false" },
        make("strong", {}, codes.codes[row]), ` ${systemOf(row)} · ${cut(codes.descriptions[row], 90)}`);
      // The input keeps the focus, or leaving it would close the list before the click arrives.
      item.addEventListener("mousedown", (event) => event.preventDefault());
      item.addEventListener("click", () => take(row));
      return item;
    }));
    show(rows.length > 0);
    status.textContent = describeFound(input.value, found.length);
  }

  function describeFound(text, count) {
    if (!text.trim()) return "";
    if (count) return count > MOST_RESULTS ? `${number(count)} codes found, the first ${MOST_RESULTS} listed` : `${count} found`;
    if (codes.count === about.vocabulary) return "No such code in this vocabulary.";
    return `Not among the ${number(codes.count)} codes on this page, of ${number(about.vocabulary)} in the vocabulary;`
      + " name it in the file given as --codes to see it.";
  }

  input.addEventListener("input", update);
  input.addEventListener("blur", () => show(false));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(false);
    if (event.key === "Enter" && rows.length && input.value.trim()) take(rows[Math.max(active, 0)]);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) update();
      if (rows.length) mark((active + (event.key === "ArrowDown" ? 1 : rows.length - (active < 0 ? 0 : 1))) % rows.length);
      event.preventDefault();
    }
  });
}
