// Performance profiles (Agarwal et al. 2021): which share of a row's runs is above each normalised score, with its interval.
function drawProfiles(data, visible) {
  const figure = document.getElementById("profiles");
  if (!figure) return;
  const place = figure.querySelector(".plot"), lines = data.profiles.filter((line) => visible(line.row));
  if (!lines.length) return empty(place, "No row to draw.");
  const levels = data.levels, x = axis(levels[0], levels[levels.length - 1], LEFT + 4, W - RIGHT - 8, { count: 6 }), y = axis(0, 1, H - BOTTOM, TOP);
  const percent = (t) => `${Math.round(100 * t)} %`, inside = y.ticks.filter((t) => t >= 0 && t <= 1);
  const svg = chart("Performance profiles", x, { at: y.at, ticks: inside }, "score: 0 % the trivial row, 100 % the best known", "share of runs above", percent, percent);
  const points = (values) => values.map((value, i) => `${x.at(levels[i]).toFixed(1)} ${y.at(value).toFixed(1)}`);
  for (const line of lines) {
    const band = [...points(line.high), ...points(line.low).reverse()];
    svg.append(draw("path", { class: `${colour(data, line.row)}`, d: `M${band.join("L")}Z`, fill: "currentColor", opacity: 0.1 }));
  }
  const drawn = lines.map((line) => {
    const path = draw("path", { class: `curve ${colour(data, line.row)}`, d: `M${points(line.share).join("L")}`, "stroke-dasharray": dash(line.row) });
    svg.append(path);
    return { run: line, xs: levels, ys: line.share, path };
  });
  follow(svg, drawn, x, y, (line, i) => `${data.rows[line.run.row].label}\n${percent(line.ys[i])} of its runs above ${percent(line.xs[i])} [${percent(line.run.low[i])}, ${percent(line.run.high[i])}]`, data);
  place.replaceChildren(svg);
}
