// The plots of each claim: a line for each set of runs, dots at means over seeds, whiskers from least to greatest.
for (const [i, plots] of JSON.parse(document.getElementById("data").textContent).entries()) {
  const place = document.querySelector(`[data-plots="${i}"]`);
  for (const plot of plots) place.append(figure(plot));
}

function figure(plot) {
  const dots = plot.lines.flatMap((line) => line.dots), xs = dots.map((dot) => dot.x);
  const ys = dots.flatMap((dot) => [dot.low, dot.high]);
  const logX = plot.logX && Math.min(...xs) > 0, logY = plot.logY && Math.min(...ys) > 0;
  const x = axis(Math.min(...xs), Math.max(...xs), LEFT + 4, W - RIGHT - 8, { log: logX });
  const named = plot.places.length > 0, place = (at) => (named ? plot.places[at] : short(at));
  if (named) x.ticks = plot.places.map((_, n) => n);
  const y = axis(Math.min(...ys), Math.max(...ys), H - BOTTOM, TOP, { log: logY });
  const svg = chart(plot.name, x, y, plot.x, plot.y, place, short);
  if (plot.places.length > 8) {
    for (const text of svg.querySelectorAll(`text[y="${H - BOTTOM + 18}"]`)) {
      const at = text.getAttribute("x");
      for (const [key, value] of [["text-anchor", "end"], ["transform", `rotate(-50 ${at} ${H - BOTTOM + 12})`]]) text.setAttribute(key, value);
    }
  }
  const legend = make("p", { class: "legend" });
  plot.lines.forEach((line, n) => {
    const kind = `s${n % 7}`, dashes = DASHES[Math.floor(n / 7) % DASHES.length];
    const d = line.dots.map((dot, k) => `${k ? "L" : "M"}${x.at(dot.x).toFixed(1)} ${y.at(dot.y).toFixed(1)}`).join("");
    svg.append(draw("path", { class: `curve ${kind}`, d, "stroke-dasharray": dashes }));
    for (const dot of line.dots) {
      const at = x.at(dot.x);
      svg.append(draw("line", { class: `whisker ${kind}`, x1: at, x2: at, y1: y.at(dot.low), y2: y.at(dot.high) }));
      const words = `${line.label}\n${plot.x} ${place(dot.x)}, ${plot.y} ${short(dot.y)} (${short(dot.low)} to ${short(dot.high)}, ${dot.seeds} seeds)`;
      svg.append(draw("circle", { class: `near ${kind}`, r: 3.5, cx: at, cy: y.at(dot.y) }, draw("title", {}, words)));
    }
    const key = draw("svg", { class: kind, viewBox: "0 0 22 8", "aria-hidden": "true" }, draw("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-dasharray": dashes }));
    legend.append(make("span", {}, key, line.label));
  });
  return make("figure", { class: "plot" }, make("figcaption", {}, plot.name), svg, legend);
}
