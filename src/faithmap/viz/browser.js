"use strict";
// Overlays, deletion and insertion, for the report and the viewer. This file defines functions only.
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

// The centres of evenly spaced cells from the first pixel to the last.
function aligned(cells, pixels) {
  return Array.from({ length: cells }, (_, i) => (cells > 1 ? (i * (pixels - 1)) / (cells - 1) : (pixels - 1) / 2));
}

// For each point: the cell before it, the next cell, and the weight of the next cell; constant beyond the outermost.
function stops(centres, points) {
  const last = centres.length - 1;
  let cell = 0;
  return points.map((point) => {
    if (last < 1) return [0, 0, 0];
    while (cell > 0 && point < centres[cell]) cell--;
    while (cell < last - 1 && point >= centres[cell + 1]) cell++;
    const share = (point - centres[cell]) / (centres[cell + 1] - centres[cell]);
    return [cell, cell + 1, Math.min(1, Math.max(0, share || 0))];
  });
}

// The pixels along an axis.
function pixelsAlong(count) {
  return Array.from({ length: count }, (_, i) => i);
}

// Values of cells interpolated to points, linear along both axes.
function spread(values, columns, down, across) {
  const width = across.length, points = new Float32Array(down.length * width), row = new Float32Array(columns);
  const left = Int32Array.from(across, (stop) => stop[0]), right = Int32Array.from(across, (stop) => stop[1]);
  const shares = Float64Array.from(across, (stop) => stop[2]);
  down.forEach(([top, bottom, v], y) => {
    for (let c = 0; c < columns; c++) row[c] = values[top * columns + c] * (1 - v) + values[bottom * columns + c] * v;
    for (let x = 0; x < width; x++) points[y * width + x] = row[left[x]] * (1 - shares[x]) + row[right[x]] * shares[x];
  });
  return points;
}

// The share of each pixel that belongs to the first k cells; `order` has rows, columns and the rank of each cell.
function inserted(order, k, height, width) {
  const cells = new Float32Array(order.places.length);
  for (let i = 0; i < cells.length; i++) cells[i] = order.places[i] < k ? 1 : 0;
  if (order.rows === height && order.columns === width) return cells;
  const down = stops(aligned(order.rows, height), pixelsAlong(height));
  const across = stops(aligned(order.columns, width), pixelsAlong(width));
  return spread(cells, order.columns, down, across);
}

function pixelsOf(picture, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
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

// The first picture where the share is 0, the second where it is 1.
function blend(canvas, first, second, shares) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const out = image.data, from = first.data, to = second.data;
  for (let i = 0, at = 0; i < shares.length; i++, at += 4) {
    const share = shares[i];
    for (let c = at; c < at + 3; c++) out[c] = from[c] + share * (to[c] - from[c]);
    out[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function luma(photo, at) {
  return 0.299 * photo.data[at] + 0.587 * photo.data[at + 1] + 0.114 * photo.data[at + 2];
}

// A colour over the faded image; `display` has the table of colours and the saturation of the image.
function heated(photo, out, at, value, share, display) {
  const colour = 3 * Math.min(255, Math.floor(value * 256)), grey = luma(photo, at);
  for (let c = 0; c < 3; c++) {
    const faded = grey + display.saturation * (photo.data[at + c] - grey);
    out[at + c] = faded * (1 - share) + display.table[colour + c] * share;
  }
}

function ready(picture) {
  return picture.complete ? Promise.resolve() : new Promise((done) => ["load", "error"].forEach((end) => picture.addEventListener(end, done, { once: true })));
}

function node(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Curves {fractions, scores, style}, and a line with a dot on each of them, which the returned function moves.
function plot(figure, curves, { label, title, range }) {
  const wide = 300, high = 210, left = 34, right = 8, top = 22, bottom = 24;
  figure.replaceChildren();
  if (!curves.length) return () => {};
  const all = range || curves.flatMap((curve) => curve.scores);
  const low = Math.min(0, ...all), ceiling = Math.max(...all), peak = ceiling > low ? ceiling : low + 1;
  const x = (fraction) => left + fraction * (wide - left - right);
  const y = (score) => high - bottom - ((score - low) / (peak - low)) * (high - top - bottom);
  const svg = node("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": label });
  for (const score of [low, (low + peak) / 2, peak]) {
    svg.append(node("line", { class: "grid", x1: x(0), x2: x(1), y1: y(score), y2: y(score) }));
    svg.append(node("text", { class: "tick", x: left - 4, y: y(score) + 4, "text-anchor": "end" }, score.toFixed(2)));
  }
  for (const [fraction, word, anchor] of [[0, "0%", "start"], [0.5, "50%", "middle"], [1, "100%", "end"]])
    svg.append(node("text", { class: "tick", x: x(fraction), y: high - 8, "text-anchor": anchor }, word));
  svg.append(node("text", { class: "tick", x: left, y: 13 }, title));
  const marker = node("line", { class: "marker", y1: top, y2: high - bottom });
  svg.append(marker);
  const dots = curves.map((curve) => {
    const points = curve.scores.map((score, i) => `${x(curve.fractions[i]).toFixed(1)},${y(score).toFixed(1)}`).join(" ");
    svg.append(node("polyline", { class: `line ${curve.style}`, points }));
    return node("circle", { class: `dot ${curve.style}`, r: 4 });
  });
  svg.append(...dots);
  figure.append(svg);
  return (fraction, scores) => {
    ["x1", "x2"].forEach((end) => marker.setAttribute(end, x(fraction)));
    dots.forEach((dot, i) => {
      dot.setAttribute("cx", x(fraction));
      dot.setAttribute("cy", y(scores[i]));
    });
  };
}
