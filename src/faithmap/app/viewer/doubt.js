// Evaluation: deletion and insertion of the most important cells, with the scores that the library measured at each step.

const CURVES = ["deletion", "insertion"];
const AIMS = { deletion: "lower is better", insertion: "higher is better" };

function number(value) {
  return value === null || value === undefined ? "\u2013" : value.toFixed(3);
}

// The panel's step at the slider's position: maps of few cells have fewer steps.
function stepOf(panel, position, steps) {
  return Math.round((position / steps) * (panel.counts.length - 1));
}

function measured(panel) {
  return panel.curves && CURVES.every((kind) => panel.curves[kind].scores.every((score) => score !== null));
}

// The verdict of a jury. Without one, how the areas compare with those of a random map: that is no verdict, since the method may
// have optimised these areas.
function verdict(panel) {
  if (panel.verdict) return panel.verdict;
  const { deletion, insertion } = panel.curves;
  if (deletion.random_area === null || insertion.random_area === null) return ["", ""];
  const won = [deletion.area < deletion.random_area && "deletion", insertion.area > insertion.random_area && "insertion"].filter(Boolean);
  if (won.length === 2) return ["mixed", "Better than a random map in deletion and insertion. No jury was asked."];
  if (won.length === 1) return ["mixed", `Better than a random map in ${won[0]} only.`];
  return ["bad", "No better than a random map: do not rely on this map."];
}

function areas(curves) {
  const known = CURVES.every((kind) => curves[kind].random_area !== null);
  const row = (kind) =>
    make("tr", {}, make("th", { scope: "row" }, kind[0].toUpperCase() + kind.slice(1), make("small", {}, AIMS[kind])),
      make("td", {}, number(curves[kind].area)), ...(known ? [make("td", {}, number(curves[kind].random_area))] : []));
  const head = ["Area under the curve", "this map", ...(known ? ["random map"] : [])].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...CURVES.map(row)));
}

// The evaluation of one panel; `fill` sets a new map, `showStep` goes to a step.
function evaluationOf() {
  const canvases = {}, scores = {};
  const figures = CURVES.map((kind) => {
    canvases[kind] = make("canvas", { className: kind, role: "img" });
    scores[kind] = make("output", {});
    return make("figure", { className: "step-view" }, canvases[kind],
      make("figcaption", {}, make("span", {}, make("i", { className: `swatch ${kind}` }), kind === "deletion" ? "Removed" : "Only these"), scores[kind]));
  });
  const title = make("h3", {}), count = make("p", { className: "soft count" });
  const chart = make("figure", { className: "curves" }), table = make("div", { className: "areas" }), judged = make("p", { className: "verdict" });
  const whole = make("article", {}, make("header", {}, title, count), make("div", { className: "pair" }, ...figures), chart, make("div", {}, table, judged));
  let panel, scene, pictures, mark;

  function fill(given, within, pixels, range) {
    [panel, scene, pictures] = [given, within, pixels];
    title.textContent = panel.target ? `${panel.name} \u00b7 ${panel.target}` : panel.name;
    for (const canvas of Object.values(canvases)) [canvas.width, canvas.height] = [scene.width, scene.height];
    const known = measured(panel);
    const curves = known ? CURVES.map((kind) => ({ ...panel.curves[kind], style: kind })) : [];
    mark = plot(chart, curves, { label: `Score of ${panel.name} while cells are removed and revealed`, title: "score of this class", range });
    if (!known) chart.replaceChildren(make("p", { className: "soft" }, "No curves have been measured."));
    table.replaceChildren(...(known ? [areas(panel.curves)] : []));
    [judged.dataset.kind, judged.textContent] = known ? verdict(panel) : ["", ""];
  }

  function showStep(position) {
    const step = stepOf(panel, position, scene.steps), k = panel.counts[step], cells = panel.order.places.length;
    const shares = inserted(panel.order, k, scene.height, scene.width);
    blend(canvases.deletion, pictures.view, pictures.blurred, shares);
    blend(canvases.insertion, pictures.blurred, pictures.view, shares);
    count.textContent = `${k} of ${cells} cells`;
    for (const kind of CURVES) {
      const score = panel.curves ? number(panel.curves[kind].scores[step]) : "";
      scores[kind].textContent = score && `score ${score}`;
      const done = kind === "deletion" ? "removed" : "kept alone";
      canvases[kind].setAttribute("aria-label", `The ${k} most important of ${cells} cells ${done}${score && `: score ${score}`}`);
    }
    if (measured(panel)) mark(panel.curves.deletion.fractions[step], CURVES.map((kind) => panel.curves[kind].scores[step]));
  }

  return { whole, fill, showStep };
}

// The agreement of every two maps.
function agreementTable(names, table) {
  const cell = (value, i, j) => {
    const made = make("td", {}, value === null ? "\u2013" : value.toFixed(2).replace("-", "\u2212"));
    if (i !== j && value > 0) made.style.setProperty("--share", `${Math.round(45 * value)}%`);
    else if (i === j) made.className = "soft";
    return made;
  };
  const head = make("tr", {}, make("td", {}), ...names.map((name) => make("th", { scope: "col" }, name)));
  const rows = table.map((row, i) => make("tr", {}, make("th", { scope: "row" }, names[i]), ...row.map((value, j) => cell(value, i, j))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}
