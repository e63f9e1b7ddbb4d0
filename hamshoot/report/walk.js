// Moves the samples and the bars to the depth that the slider says. Everything it shows is in the
// page already: points of polylines, heights in data-h, depths in data-p.
"use strict";
(() => {
  // What is folded is printed too.
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = folded();
    for (const one of opened) one.open = true;
  });
  window.addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

  const walking = document.getElementById("walking");
  if (!walking) return;
  const slider = document.getElementById("slider");
  const read = document.getElementById("slider-read");
  const play = document.getElementById("play");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const numbers = (text) => text.trim().split(/\s+/).map(Number);

  const panels = [...walking.querySelectorAll(".walk")].map((box) => ({
    box,
    p: numbers(box.dataset.p),
    counts: numbers(box.dataset.counts),
    layers: Number(box.dataset.layers || 0),
    reading: box.querySelector(".reading"),
    base: Number(box.querySelector(".bars").dataset.base),
    bars: [...box.querySelectorAll(".bar")].map((bar) => ({ bar, h: numbers(bar.dataset.h) })),
    samples: [...box.querySelectorAll(".sample")].map((sample) => ({
      here: sample.querySelector(".here"),
      gone: sample.querySelector(".gone"),
      way: sample.querySelector(".way").getAttribute("points").split(" ")
        .map((pair) => pair.split(",").map(Number)),
    })),
  }));

  // The interval of depths that p lies in, and where in it.
  const locate = (depths, p) => {
    let k = 0;
    while (k < depths.length - 2 && p >= depths[k + 1]) k += 1;
    return [k, Math.min(1, Math.max(0, (p - depths[k]) / (depths[k + 1] - depths[k])))];
  };
  const mix = (a, b, t) => a + t * (b - a);

  const show = (panel, p) => {
    const [k, t] = locate(panel.p, p);
    for (const { here, gone, way } of panel.samples) {
      const now = [mix(way[k][0], way[k + 1][0], t), mix(way[k][1], way[k + 1][1], t)];
      here.setAttribute("cx", now[0].toFixed(1));
      here.setAttribute("cy", now[1].toFixed(1));
      const passed = way.slice(0, k + 1).concat([now]);
      gone.setAttribute("points", passed.map((one) => `${one[0]},${one[1]}`).join(" "));
    }
    for (const { bar, h } of panel.bars) {
      // Weights belong to a layer and stay what they are across it.
      const height = h.length < panel.p.length ? h[Math.min(k, h.length - 1)] : mix(h[k], h[k + 1], t);
      bar.setAttribute("height", height.toFixed(1));
      bar.setAttribute("y", (panel.base - height).toFixed(1));
    }
    const count = panel.counts[t < 0.5 ? k : k + 1];
    const values = count === 1 ? "singular value" : "singular values";
    panel.reading.textContent =
      `At p = ${p.toFixed(2)}: ${count} ${values} of A above a hundredth of the largest.`;
  };

  const draw = () => {
    const p = Number(slider.value);
    for (const panel of panels) if (!panel.box.hidden) show(panel, p);
    const { layers, p: depths } = panels[0];
    const layer = layers ? `, layer ${locate(depths, p)[0] + 1} of ${layers}` : "";
    read.textContent = `p = ${p.toFixed(2)}${layer}`;
    slider.setAttribute("aria-valuetext", read.textContent);
  };

  // One way through depth takes eight seconds; with reduced motion the button goes one depth on.
  const WHOLE = 8000;
  let running = 0, before = 0;
  const stop = () => {
    cancelAnimationFrame(running);
    running = 0;
    label();
  };
  const frame = (now) => {
    const p = Math.min(1, Number(slider.value) + (now - before) / WHOLE);
    before = now;
    slider.value = String(p);
    draw();
    if (p >= 1) stop();
    else running = requestAnimationFrame(frame);
  };
  const label = () => { play.textContent = calm.matches ? "Next" : running ? "Pause" : "Play"; };
  play.addEventListener("click", () => {
    if (running) { stop(); return; }
    const ended = Number(slider.value) >= 0.9995;
    if (calm.matches) {
      const next = panels[0].p.find((depth) => depth > Number(slider.value) + 0.0005);
      slider.value = String(ended || next === undefined ? 0 : next);
      draw();
      return;
    }
    if (ended) slider.value = "0";
    draw();
    before = performance.now();
    running = requestAnimationFrame(frame);
    label();
  });
  slider.addEventListener("input", () => { if (running) stop(); draw(); });
  calm.addEventListener("change", () => { if (running) stop(); label(); });

  const switches = [...walking.querySelectorAll("input[type=checkbox]")];
  const choose = () => {
    for (const one of switches) document.getElementById(one.value).hidden = !one.checked;
    draw();
  };
  for (const one of switches) one.addEventListener("change", choose);

  for (const one of ["controls", "shown"].map((id) => document.getElementById(id))) {
    if (one) one.hidden = false;
  }
  slider.value = "0";
  label();
  choose();
})();
