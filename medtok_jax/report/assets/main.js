// Connects the parts: shows the summary, and updates all parts when a code is chosen.

const METHOD_NAMES = { tsne: "t-SNE", umap: "UMAP", pca: "principal components" };

function card(name, figure, more, region = "") {
  return make("div", { class: `card ${region}` },
    make("div", { class: "name" }, name), make("div", { class: "figure" }, figure), make("div", { class: "more" }, more));
}

function showSummary() {
  const used = about.regions.reduce((sum, region) => sum + region.used, 0);
  const systems = codes.systems.map((system) => `${system.name} ${number(system.vocabulary)}`).join(", ");
  document.getElementById("subtitle").textContent = `${number(about.vocabulary)} medical codes (${systems}), ${codes.width} tokens each out of ${number(about.codebook_size)} vectors of ${about.dim} numbers`;
  document.getElementById("summary").replaceChildren(
    card("Codes", number(about.vocabulary), codes.count === about.vocabulary ? "all on this page" : `${number(codes.count)} on this page`),
    card("Codebook", number(about.codebook_size), `${percent(used / about.codebook_size)} used; perplexity ${number(Math.round(about.perplexity))}`),
    ...about.regions.map((region) => card(`Utilization, ${region.name} region`, percent(region.used / region.size),
      `of ${number(region.size)}; perplexity ${number(Math.round(region.perplexity))}`, region.name)),
    card("Unique token sets", percent(about.alone), "of codes; no other code has the same tokens"));
  const notes = [];
  if (about.num_rejected) {
    const some = about.rejected.map(([code]) => code).join(", ");
    notes.push(`${number(about.num_rejected)} of the listed codes could not be found: ${some}${about.num_rejected > about.rejected.length ? ", ..." : ""}.`);
  }
  document.getElementById("notes").textContent = notes.join(" ");
  document.getElementById("footer").textContent = `Maps by ${METHOD_NAMES[about.method]}. Tokenizer ${about.name}, identity ${about.identity}`
    + `${about.data_set ? `, data set ${about.data_set}` : ""}, ${about.kind === "residual" ? "residual" : "top-k"} quantizer.`;
}

function choose(row) {
  codeMap.chosen = row;
  showCode(row, choose);
  drawCodeMap();
  if (document.getElementById("heat-mode").value === "nearest") drawHeatMap();
}

codeMap.chosen = codes.start;
showSummary();
showCode(codes.start, choose);
startSearch(choose);
Promise.all([startCodeMap(choose), startHeatMap(choose), startCodebook(choose)]).then(() => {
  document.body.dataset.drawn = "";
});
narrow.addEventListener("change", () => [drawCodeMap, drawHeatMap, drawCodebookMap, drawUse].forEach((draw) => draw()));
