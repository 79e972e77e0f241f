// The slider for deletion and insertion of all maps; the button plays it as an animation.

// Updates everything that depends on the slider.
function scrubbed() {
  waiting = false;
  if (!scene) return;
  evaluations.slice(0, scene.panels.length).forEach((one) => one.showStep(state.position));
  sliderShown.textContent = `${Math.round((100 * state.position) / scene.steps)} %`;
  slider.setAttribute("aria-valuetext", `${sliderShown.textContent} of the cells`);
}

function soon() {
  if (!waiting) requestAnimationFrame(scrubbed);
  waiting = true;
}

function stop() {
  clearInterval(playing);
  playing = null;
  play.textContent = "Play";
}

function start() {
  if (state.position >= scene.steps) state.position = 0;
  play.textContent = "Pause";
  playing = setInterval(() => {
    state.position++;
    slider.value = state.position;
    soon();
    if (state.position >= scene.steps) stop();
  }, TICK);
}

slider.addEventListener("input", () => { stop(); state.position = Number(slider.value); soon(); });
play.addEventListener("click", () => (playing ? stop() : start()));
