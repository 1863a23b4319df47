"use strict";
(() => {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const source = document.getElementById(button.dataset.copy);
      copy(button, source, source.textContent);
    });
  }
  for (const table of document.querySelectorAll("main table")) offer(table);
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = new Map(figures.map((figure) => [document.getElementById(`figure-${figure.name}`), figure]));
  const drawn = new Map();
  let last = Promise.resolve();
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) interactive(target);
  }, { rootMargin: "600px" });
  for (const place of places.keys()) near.observe(place);
  offerTheme();
  restore();
  window.addEventListener("hashchange", restore);
  document.documentElement.dataset.ready = "yes";

  // Two buttons below a table: its cells as aligned text, and as Markdown.
  function offer(table) {
    const place = document.createElement("p");
    place.className = "copies";
    for (const [name, form] of [["Copy table as text", asText], ["Copy table as Markdown", asMarkdown]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => copy(button, table, form(table)));
      place.append(button, " ");
    }
    table.parentElement.after(place);
  }

  function cells(table) {
    return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  }

  function right(table) {
    return [...table.rows[0].cells].map((cell) => cell.classList.contains("n"));
  }

  function asText(table) {
    const rows = cells(table);
    const numbers = right(table);
    const widths = numbers.map((_, place) => Math.max(...rows.map((row) => row[place].length)));
    const line = (row) => row.map((text, at) => numbers[at] ? text.padStart(widths[at]) : text.padEnd(widths[at]));
    return rows.map((row) => line(row).join("  ").trimEnd()).join("\n") + "\n";
  }

  function asMarkdown(table) {
    const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/[\\`*[\]|~#]/g, "\\$&");
    const [head, ...rows] = cells(table).map((row) => `| ${row.map(safe).join(" | ")} |`);
    return [head, `| ${right(table).map((number) => number ? "---:" : "---").join(" | ")} |`, ...rows].join("\n") + "\n";
  }

  async function copy(button, source, text) {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  }

  // A figure becomes interactive when it comes near what is seen, one after the other.
  function interactive(place) {
    if (!drawn.has(place)) {
      near.unobserve(place);
      last = last.then(() => show(place)).catch(excuse);
      drawn.set(place, last);
    }
    return drawn.get(place);
  }

  function excuse(error) {
    if (document.getElementById("not-drawn")) return;
    const note = document.createElement("p");
    note.id = "not-drawn";
    note.textContent = `The pictures are static: this browser could not start the interactive ones (${error.message}).`;
    document.querySelector("main").prepend(note);
  }

  // A button that changes between light and dark, whatever the system prefers.
  function offerTheme() {
    const button = document.getElementById("theme");
    if (!button) return;
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    const follow = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      for (const place of drawn.keys()) last = last.then(() => show(place)).catch(excuse);
    };
    button.hidden = false;
    button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; follow(); });
    system.addEventListener("change", follow);
    follow();
  }

  // The library travels as base64 of gzip. Its script element has the hash that the page's policy allows.
  async function loadPlotly() {
    if (window.Plotly) return;
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not load");
  }

  async function show(place) {
    await loadPlotly();
    const figure = places.get(place);
    const { data, layout } = themed(figure.spec);
    const config = {
      displaylogo: false, showSendToCloud: false, responsive: true,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { filename: figure.name },
    };
    const plot = place.querySelector(".plot");
    place.classList.add("drawn");
    try {
      await Plotly.react(plot, data, layout, config);
    } catch (error) {
      place.classList.remove("drawn");
      throw error;
    }
    if (!plot.dataset.linked) {
      plot.dataset.linked = "yes";
      plot.on("plotly_relayout", (change) => remember(figure.name, change));
    }
  }

  // The part of a figure that is looked at is in the address of the page: #fig=NAME&x=FROM,TO
  function remember(name, change) {
    const [from, to] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (from !== undefined) history.replaceState(null, "", `#fig=${name}&x=${from},${to}`);
    else if (change["xaxis.autorange"]) history.replaceState(null, "", `#figure-${name}`);
  }

  async function restore() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const range = (asked.get("x") || "").split(",").map(Number);
    const place = document.getElementById(`figure-${asked.get("fig")}`);
    if (!places.has(place) || range.length !== 2 || !range.every(Number.isFinite)) return;
    place.scrollIntoView();
    await interactive(place);
    if (place.classList.contains("drawn")) Plotly.relayout(place.querySelector(".plot"), { "xaxis.range": range });
  }

  // Colours and font of the page, put into a copy of the specification.
  function themed(spec) {
    const css = getComputedStyle(document.documentElement);
    const [ink, soft, rule, paper] = ["--ink", "--soft", "--rule", "--paper"].map((name) => css.getPropertyValue(name).trim());
    const copy = JSON.stringify(spec);
    const { data, layout } = JSON.parse(copy, (key, value) => (key === "color" && value === "ink" ? ink : value));
    for (const [key, axis] of Object.entries(layout)) {
      if (/^[xy]axis/.test(key)) Object.assign(axis, { gridcolor: rule, zerolinecolor: rule });
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
