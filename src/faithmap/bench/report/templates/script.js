// Shows deletion and insertion of the k most important cells of a heatmap, with the image and its blurred copy.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const show = read("show");
  const table = bytes(show.colours);

  // Rank of each cell by importance; equal cells by row and column.
  function placesOf(values) {
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
    const places = new Int32Array(values.length);
    order.forEach((cell, place) => { places[cell] = place; });
    return places;
  }

  // A value for each pixel, interpolated linearly between the centres of the cells.
  function values(map, height, width) {
    const [low, high] = map.ends || [0, 1];
    const cells = map.values.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
    const axes = [[map.rows, height], [map.columns, width]];
    return spread(cells, map.columns, ...axes.map(([count, pixels]) => stops(aligned(count, pixels), pixelsAlong(pixels))));
  }

  function overlay(canvas, map, photo) {
    const important = map.ends ? values(map, canvas.height, canvas.width) : new Float32Array(canvas.width * canvas.height);
    paint(canvas, (i, out, at) => heated(photo, out, at, important[i], show.opacity * important[i], { table, saturation: show.saturation }));
  }

  // The two curves of this image.
  function chart(figure, map) {
    const curves = Object.entries(map.curves).map(([curve, scores]) => ({
      scores,
      fractions: scores.map((_, i) => i / (scores.length - 1)),
      style: `c${map.colour % 8}${curve === "insertion" ? " d1" : ""}`,
    }));
    return plot(figure, curves, { label: "this image's curves", title: "score: deletion solid, insertion dashed" });
  }

  async function start(card, data) {
    const pictures = [card.querySelector(".original"), card.querySelector(".blurred")];
    await Promise.all(pictures.map(ready));
    const [photo, blurred] = pictures.map((picture) => pixelsOf(picture, data.width, data.height));
    const slider = card.querySelector("input");
    const buttons = [...card.querySelectorAll(".thumbs button")];
    const canvases = { deletion: card.querySelector("canvas.deletion"), insertion: card.querySelector("canvas.insertion") };
    const map = card.querySelector("canvas.map");
    map.hidden = false;
    pictures[0].hidden = true;
    let chosen, mark;

    function update() {
      const fraction = slider.value / 100, cells = chosen.values.length, k = Math.round(fraction * cells);
      const nothing = new Float32Array(data.height * data.width);
      const important = cells ? inserted(chosen, k, data.height, data.width) : nothing;
      for (const [curve, canvas] of Object.entries(canvases)) {
        const [inside, outside] = curve === "deletion" ? [blurred, photo] : [photo, blurred];
        blend(canvas, outside, inside, important);
        const scores = chosen.curves[curve];
        canvas.parentNode.querySelector("output").textContent = scores ? `score ${scores[Number(slider.value)].toFixed(3)}` : "";
      }
      card.querySelector(".scrub output").textContent = cells ? `${k} of ${cells} (${slider.value} %)` : "no map";
      mark(fraction, Object.values(chosen.curves).map((scores) => scores[Number(slider.value)]));
    }

    function choose(number) {
      chosen = data.maps[number];
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
      overlay(map, chosen, photo);
      mark = chart(card.querySelector(".plot"), chosen);
      update();
    }

    data.maps.forEach((one, i) => {
      one.values = halves(one.data);
      one.places = placesOf(one.values);
      overlay(buttons[i].querySelector("canvas"), one, photo);
      buttons[i].addEventListener("click", () => choose(i));
    });
    slider.addEventListener("input", update);
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
