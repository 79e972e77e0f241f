// Doubt: deletion and insertion of a map's first cells, with the scores that the library measured at that step.

const GAMES = ["deletion", "insertion"];
const AIMS = { deletion: "less is better", insertion: "more is better" };

function number(value) {
  return value === null || value === undefined ? "\u2013" : value.toFixed(3);
}

// A panel's own step where the slider is: maps of few cells have fewer steps.
function stepOf(panel, position, steps) {
  return Math.round((position / steps) * (panel.counts.length - 1));
}

function measured(panel) {
  return panel.games && GAMES.every((game) => panel.games[game].scores.every((score) => score !== null));
}

// Where a map's areas stand beside a random map's.
function verdict(games) {
  const { deletion, insertion } = games;
  if (deletion.chance === null || insertion.chance === null) return ["", ""];
  const won = [deletion.area < deletion.chance && "deletion", insertion.area > insertion.chance && "insertion"].filter(Boolean);
  if (won.length === 2) return ["good", "Better than a random map in both games."];
  if (won.length === 1) return ["mixed", `Better than a random map in ${won[0]} only.`];
  return ["bad", "No better than a random map: do not rely on this map."];
}

function areas(games) {
  const known = GAMES.every((game) => games[game].chance !== null);
  const row = (game) =>
    make("tr", {}, make("th", { scope: "row" }, game[0].toUpperCase() + game.slice(1), make("small", {}, AIMS[game])),
      make("td", {}, number(games[game].area)), ...(known ? [make("td", {}, number(games[game].chance))] : []));
  const head = ["Area under the curve", "this map", ...(known ? ["random map"] : [])].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...GAMES.map(row)));
}

// What is shown of one panel's games; `fill` puts a new map in, `play` goes to a step.
function playground() {
  const canvases = {}, scores = {};
  const figures = GAMES.map((game) => {
    canvases[game] = make("canvas", { className: game, role: "img" });
    scores[game] = make("output", {});
    return make("figure", { className: "played" }, canvases[game],
      make("figcaption", {}, make("span", {}, make("i", { className: `swatch ${game}` }), game === "deletion" ? "Removed" : "Alone"), scores[game]));
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
    const curves = known ? GAMES.map((game) => ({ ...panel.games[game], style: game })) : [];
    mark = plot(chart, curves, { label: `Score of ${panel.name} while cells are removed and revealed`, title: "score of this class", range });
    if (!known) chart.replaceChildren(make("p", { className: "soft" }, "No curves have been measured."));
    table.replaceChildren(...(known ? [areas(panel.games)] : []));
    [judged.dataset.kind, judged.textContent] = known ? verdict(panel.games) : ["", ""];
  }

  function play(position) {
    const step = stepOf(panel, position, scene.steps), k = panel.counts[step], cells = panel.order.places.length;
    const shares = inserted(panel.order, k, scene.height, scene.width);
    blend(canvases.deletion, pictures.view, pictures.blurred, shares);
    blend(canvases.insertion, pictures.blurred, pictures.view, shares);
    count.textContent = `${k} of ${cells} cells`;
    for (const game of GAMES) {
      const score = panel.games ? number(panel.games[game].scores[step]) : "";
      scores[game].textContent = score && `score ${score}`;
      const done = game === "deletion" ? "removed" : "shown alone";
      canvases[game].setAttribute("aria-label", `The ${k} most important of ${cells} cells ${done}${score && `: score ${score}`}`);
    }
    if (measured(panel)) mark(panel.games.deletion.fractions[step], GAMES.map((game) => panel.games[game].scores[step]));
  }

  return { whole, fill, play };
}

// How alike every two maps are.
function agreeing(names, table) {
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
