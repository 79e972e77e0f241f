"use strict";
// Plays deletion and insertion of a map's k most important cells on a photograph and its blurred copy.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const show = read("show");
  const table = bytes(show.colours);
  const SVG = "http://www.w3.org/2000/svg";

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  // Half-precision numbers, lowest byte first.
  function halves(text) {
    const raw = bytes(text);
    const values = new Float64Array(raw.length / 2);
    for (let i = 0; i < values.length; i++) {
      const bits = raw[2 * i] | (raw[2 * i + 1] << 8);
      const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, part = bits & 1023;
      values[i] = sign * (power === 0 ? part * 2 ** -24 : power === 31 ? (part ? NaN : Infinity) : (1 + part / 1024) * 2 ** (power - 15));
    }
    return values;
  }

  // Each cell's place in the order of importance, equal cells by row and column.
  function placesOf(values) {
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
    const places = new Int32Array(values.length);
    order.forEach((cell, place) => { places[cell] = place; });
    return places;
  }

  // For each pixel along one axis the cell before it and the share of the next one; the corners are aligned.
  function steps(cells, pixels) {
    const at = [];
    for (let i = 0; i < pixels; i++) {
      const x = cells > 1 && pixels > 1 ? (i * (cells - 1)) / (pixels - 1) : 0;
      const cell = Math.min(Math.floor(x), Math.max(cells - 2, 0));
      at.push([cell, Math.min(cell + 1, cells - 1), x - cell]);
    }
    return at;
  }

  // A map's cells as a value for each pixel, linear between their centres.
  function spread(map, height, width, valueOf) {
    const down = steps(map.rows, height), across = steps(map.columns, width);
    const pixels = new Float32Array(height * width);
    for (let y = 0; y < height; y++) {
      const [top, bottom, v] = down[y];
      for (let x = 0; x < width; x++) {
        const [left, right, h] = across[x];
        const upper = valueOf(top * map.columns + left) * (1 - h) + valueOf(top * map.columns + right) * h;
        const lower = valueOf(bottom * map.columns + left) * (1 - h) + valueOf(bottom * map.columns + right) * h;
        pixels[y * width + x] = upper * (1 - v) + lower * v;
      }
    }
    return pixels;
  }

  function pixelsOf(picture, width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  function paint(canvas, colourOf) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < canvas.width * canvas.height; i++) {
      colourOf(i, image.data, 4 * i);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function overlay(canvas, map, photo) {
    const [low, high] = map.ends || [0, 1];
    const scaled = (cell) => Math.min(1, Math.max(0, (map.values[cell] - low) / (high - low)));
    const values = map.ends ? spread(map, canvas.height, canvas.width, scaled) : new Float32Array(canvas.width * canvas.height);
    paint(canvas, (i, out, at) => {
      const colour = 3 * Math.min(255, Math.floor(values[i] * 256)), share = show.opacity * values[i];
      const grey = 0.299 * photo.data[at] + 0.587 * photo.data[at + 1] + 0.114 * photo.data[at + 2];
      for (let c = 0; c < 3; c++) {
        const faded = grey + show.saturation * (photo.data[at + c] - grey);
        out[at + c] = faded * (1 - share) + table[colour + c] * share;
      }
    });
  }

  function node(kind, attributes, text) {
    const made = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // This image's two curves, and a line where the slider is.
  function plot(figure, map) {
    const wide = 300, high = 210, left = 34, right = 8, top = 22, bottom = 24;
    figure.replaceChildren();
    const games = Object.entries(map.curves);
    if (!games.length) return () => {};
    const all = games.flatMap(([, scores]) => scores);
    const low = Math.min(0, ...all), ceiling = Math.max(...all), peak = ceiling > low ? ceiling : low + 1;
    const x = (fraction) => left + fraction * (wide - left - right);
    const y = (score) => high - bottom - ((score - low) / (peak - low)) * (high - top - bottom);
    const svg = node("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "this image's curves" });
    for (const score of [low, (low + peak) / 2, peak]) {
      svg.append(node("line", { class: "grid", x1: x(0), x2: x(1), y1: y(score), y2: y(score) }));
      svg.append(node("text", { class: "tick", x: left - 4, y: y(score) + 4, "text-anchor": "end" }, score.toFixed(2)));
    }
    for (const [fraction, word, anchor] of [[0, "0%", "start"], [0.5, "50%", "middle"], [1, "100%", "end"]])
      svg.append(node("text", { class: "tick", x: x(fraction), y: high - 8, "text-anchor": anchor }, word));
    svg.append(node("text", { class: "tick", x: left, y: 13 }, "score: deletion solid, insertion dashed"));
    for (const [game, scores] of games) {
      const points = scores.map((score, i) => `${x(i / (scores.length - 1)).toFixed(1)},${y(score).toFixed(1)}`).join(" ");
      svg.append(node("polyline", { class: `line c${map.colour % 8}${game === "insertion" ? " d1" : ""}`, points }));
    }
    const marker = node("line", { class: "marker", y1: top, y2: high - bottom });
    svg.append(marker);
    figure.append(svg);
    return (fraction) => ["x1", "x2"].forEach((end) => marker.setAttribute(end, x(fraction)));
  }

  function ready(picture) {
    return picture.complete ? Promise.resolve() : new Promise((done) => picture.addEventListener("load", done, { once: true }));
  }

  async function start(card, data) {
    const pictures = [card.querySelector(".photograph"), card.querySelector(".blurred")];
    await Promise.all(pictures.map(ready));
    const [photo, blurred] = pictures.map((picture) => pixelsOf(picture, data.width, data.height));
    const slider = card.querySelector("input");
    const buttons = [...card.querySelectorAll(".thumbs button")];
    const canvases = { deletion: card.querySelector("canvas.deletion"), insertion: card.querySelector("canvas.insertion") };
    const map = card.querySelector("canvas.map");
    map.hidden = false;
    pictures[0].hidden = true;
    let chosen, mark;

    function play() {
      const fraction = slider.value / 100, cells = chosen.values.length, k = Math.round(fraction * cells);
      const important = cells ? spread(chosen, data.height, data.width, (cell) => (chosen.places[cell] < k ? 1 : 0)) : null;
      for (const [game, canvas] of Object.entries(canvases)) {
        const [there, gone] = game === "deletion" ? [blurred, photo] : [photo, blurred];
        paint(canvas, (i, out, at) => {
          const share = important ? important[i] : 0;
          for (let c = 0; c < 3; c++) out[at + c] = gone.data[at + c] * (1 - share) + there.data[at + c] * share;
        });
        const scores = chosen.curves[game];
        canvas.parentNode.querySelector("output").textContent = scores ? `score ${scores[Number(slider.value)].toFixed(3)}` : "";
      }
      card.querySelector(".scrub output").textContent = cells ? `${k} of ${cells} (${slider.value} %)` : "no map";
      mark(fraction);
    }

    function choose(number) {
      chosen = data.maps[number];
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
      overlay(map, chosen, photo);
      mark = plot(card.querySelector(".plot"), chosen);
      play();
    }

    data.maps.forEach((one, i) => {
      one.values = halves(one.data);
      one.places = placesOf(one.values);
      overlay(buttons[i].querySelector("canvas"), one, photo);
      buttons[i].addEventListener("click", () => choose(i));
    });
    slider.addEventListener("input", play);
    choose(0);
    card.dataset.ready = "true";
  }

  const cards = read("cards");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      start(entry.target, cards[Number(entry.target.dataset.card)]);
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll(".card").forEach((card) => seen.observe(card));
})();
