// Score against the number of trials, a chart for each task that has tuned rows: what fewer trials would have come to.
function drawTrials(data, visible) {
  for (const figure of document.querySelectorAll("#trials figure")) {
    const task = Number(figure.dataset.column), column = data.columns[task], place = figure.querySelector(".plot");
    for (const row of figure.querySelectorAll("tbody tr")) row.hidden = !visible(Number(row.dataset.row));
    const lines = data.trials.filter((line) => line.column === task && visible(line.row)).map((line) => lineOf(line, line.points.map((_, i) => i + 1), line.points));
    if (!lines.length) {
      empty(place, "No row to draw.");
      continue;
    }
    const xs = lines.flatMap((line) => line.xs), ys = lines.flatMap((line) => line.ys);
    const x = axis(least(xs), most(xs), LEFT + 8, W - RIGHT - 8, { count: 8 }), y = axis(least(ys), most(ys), H - BOTTOM, TOP);
    const whole = { at: x.at, ticks: x.ticks.filter((n) => Number.isInteger(n) && n > 0) };
    const name = `best validation ${lines[0].run.metric}${column.unit ? `, ${column.unit}` : ""}`;
    const svg = chart(`${column.label}: ${name} against the number of trials`, whole, y, "trials", name, short, (t) => short(t * column.factor));
    for (const line of lines) {
      const d = line.xs.map((n, i) => `${i ? "L" : "M"}${x.at(n).toFixed(1)} ${y.at(line.ys[i]).toFixed(1)}`).join("");
      line.path = draw("path", { class: `curve ${colour(data, line.run.row)}`, d: line.xs.length === 1 ? `${d}h0` : d, "stroke-dasharray": dash(line.run.row) });
      if (line.xs.length === 1) line.path.classList.add("lone");
      svg.append(line.path);
    }
    follow(svg, lines, x, y, (line, i) => {
      const how = line.run.sampler === "random" ? "expected of the best of" : "best after";
      return `${data.rows[line.run.row].label}\n${how} ${line.xs[i]} ${line.xs[i] === 1 ? "trial" : "trials"}: ${scored(line.ys[i], column)}`;
    }, data);
    place.replaceChildren(svg);
  }
}
