"use strict";
(() => {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  draw().catch((error) => {
    const note = document.getElementById("figure-note");
    note.textContent = `The pictures are static: this browser could not start the interactive ones (${error.message}).`;
  });

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  }

  async function draw() {
    const figures = JSON.parse(document.getElementById("figures").textContent);
    if (!figures.length) return;
    await loadPlotly();
    for (const figure of figures) await show(figure);
    document.getElementById("figure-note").remove();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => figures.forEach(show));
  }

  // The library travels as base64 of gzip. Its script element has the hash that the page's policy allows.
  async function loadPlotly() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not load");
  }

  async function show(figure) {
    const place = document.getElementById(`figure-${figure.name}`);
    place.classList.add("drawn");
    const { data, layout } = themed(figure.spec);
    const config = {
      displaylogo: false, showSendToCloud: false, responsive: true,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { filename: figure.name },
    };
    try {
      await Plotly.react(place.querySelector(".plot"), data, layout, config);
    } catch (error) {
      place.classList.remove("drawn");
      throw error;
    }
  }

  // Colours and font of the page, put into a copy of the specification.
  function themed(spec) {
    const css = getComputedStyle(document.documentElement);
    const [ink, soft, rule, paper] = ["--ink", "--soft", "--rule", "--paper"].map((name) => css.getPropertyValue(name).trim());
    const { data, layout } = structuredClone(spec);
    for (const trace of data) {
      if (trace.marker?.color === "ink") trace.marker.color = ink;
    }
    for (const [key, axis] of Object.entries(layout)) {
      if (/^[xy]axis/.test(key)) Object.assign(axis, { gridcolor: rule, linecolor: rule, zerolinecolor: rule });
    }
    Object.assign(layout, {
      paper_bgcolor: paper, plot_bgcolor: paper,
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      hoverlabel: { bgcolor: paper, bordercolor: soft, font: { color: ink } },
      modebar: { bgcolor: paper, color: soft, activecolor: ink },
    });
    return { data, layout };
  }
})();
