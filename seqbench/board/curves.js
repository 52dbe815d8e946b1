// Learning curves of one task: a line for each run, coloured by row; the legend hides and shows rows.
const hiddenCurves = new Set();

function drawCurves(data, visible) {
  const figure = document.getElementById("curves"), place = figure.querySelector(".plot"), legend = figure.querySelector(".legend");
  const task = Number(document.getElementById("curves-task").value), column = data.columns[task];
  const kind = document.getElementById("curves-kind").value, over = document.getElementById("curves-axis").value;
  const runs = data.runs.filter((run) => run.column === task && run.curve[kind] && visible(run.row));
  legend.replaceChildren(...(data.thinned ? ["One seed of each row. "] : []), ...legendFor(data, runs, visible));
  const lines = runs.filter((run) => !hiddenCurves.has(run.row)).map((run) => lineOf(run, run.curve[kind][over], run.curve[kind].value)).filter((line) => line.xs.length);
  if (!column || !lines.length) return empty(place, "No run of this task has such a curve.");
  const xs = lines.flatMap((line) => line.xs), ys = lines.flatMap((line) => line.ys);
  const scale = kind === "valid" ? column.factor : 1;
  const x = axis(least(xs), most(xs), LEFT + 4, W - RIGHT - 8, { count: 6 }), y = axis(least(ys), most(ys), H - BOTTOM, TOP);
  const title = kind === "valid" ? `validation ${column.metric || "score"}${column.unit ? `, ${column.unit}` : ""}` : "training loss";
  const xName = { step: "optimizer steps", tokens: "training tokens", seconds: "seconds since start" }[over];
  const svg = chart(`${column.label}: ${title} over ${xName}`, x, y, xName, title, short, (t) => short(t * scale));
  for (const line of lines) {
    const d = line.xs.map((value, i) => `${i ? "L" : "M"}${x.at(value).toFixed(1)} ${y.at(line.ys[i]).toFixed(1)}`).join("");
    line.path = draw("path", { class: `curve ${colour(data, line.run.row)}`, d: line.xs.length === 1 ? `${d}h0` : d, "stroke-dasharray": dash(line.run.row) });
    if (line.xs.length === 1) line.path.classList.add("lone");
    svg.append(line.path);
  }
  follow(svg, lines, x, y, (line, i) => {
    const value = kind === "valid" ? scored(line.ys[i], column) : short(line.ys[i]);
    const status = line.run.status === "finished" ? "" : ` (${line.run.status.replaceAll("_", " ")})`;
    return `${data.rows[line.run.row].label}, seed ${line.run.seed}${status}\n${short(line.xs[i])} ${xName}: ${value}`;
  }, data);
  place.replaceChildren(svg);
}

// Points that have both numbers; what was not finite is null.
function lineOf(run, xs, ys) {
  const kept = xs.map((_, i) => i).filter((i) => xs[i] !== null && ys[i] !== null);
  return { run, xs: kept.map((i) => xs[i]), ys: kept.map((i) => ys[i]) };
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function legendFor(data, runs, visible) {
  return [...new Set(runs.map((run) => run.row))].sort((a, b) => a - b).map((row) => {
    const key = draw("svg", { class: colour(data, row), viewBox: "0 0 22 8", "aria-hidden": "true" }, draw("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-dasharray": dash(row) }));
    const button = make("button", { type: "button", "aria-pressed": String(!hiddenCurves.has(row)) }, key, data.rows[row].label);
    button.addEventListener("click", () => {
      hiddenCurves.has(row) ? hiddenCurves.delete(row) : hiddenCurves.add(row);
      drawCurves(data, visible);
    });
    return button;
  });
}

// The nearest point of any line follows the pointer.
function follow(svg, lines, x, y, words, data) {
  const dot = draw("circle", { r: 4.5, class: "near", visibility: "hidden" });
  svg.append(dot);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const [mx, my] = [(event.clientX - box.left) * W / box.width, (event.clientY - box.top) * H / box.height];
    let found = null;
    for (const line of lines) {
      line.xs.forEach((value, i) => {
        const away = (x.at(value) - mx) ** 2 + (y.at(line.ys[i]) - my) ** 2;
        if (!found || away < found.away) found = { away, line, i };
      });
    }
    const close = found && found.away < 50 ** 2;
    for (const line of lines) line.path.classList.toggle("dim", Boolean(close) && line.run.row !== found.line.run.row);
    dot.setAttribute("visibility", close ? "visible" : "hidden");
    if (!close) return hideTip();
    dot.setAttribute("cx", x.at(found.line.xs[found.i]));
    dot.setAttribute("cy", y.at(found.line.ys[found.i]));
    dot.setAttribute("class", `near ${colour(data, found.line.run.row)}`);
    showTip(words(found.line, found.i), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => {
    for (const line of lines) line.path.classList.remove("dim");
    dot.setAttribute("visibility", "hidden");
    hideTip();
  });
}
