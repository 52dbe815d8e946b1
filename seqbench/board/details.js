// What a row of the table opens: its runs, the resolved config and the record of one of them.
function detailsOf(data, row, column) {
  const cell = data.cells.find((each) => each.row === row && each.column === column);
  const runs = data.runs.filter((run) => run.row === row && run.column === column).sort((a, b) => a.seed - b.seed);
  const panel = make("div", { class: "panel" });
  panel.append(make("h3", {}, `${data.rows[row].label} on ${data.columns[column].label}`));
  if (cell.basis) panel.append(make("p", {}, `Interval over ${cell.basis}.`));
  if (cell.difference) panel.append(make("p", {}, cell.difference));
  for (const note of cell.notes) panel.append(make("p", {}, note));
  if (cell.missing.length) panel.append(make("p", {}, `Not run: ${cell.missing.length === 1 ? "seed" : "seeds"} ${cell.missing.join(", ")}.`));
  if (!runs.length) {
    if (!cell.missing.length) panel.append(make("p", {}, "There is no record of this encoder on this task."));
    return panel;
  }
  const body = make("tbody"), lower = make("div");
  const metrics = [...new Set(runs.flatMap((run) => Object.values(run.record.scores).flatMap((split) => Object.keys(split))))];
  const head = ["Seed", "Status", ...metrics.map((metric) => `${metric}`), "Best step", "Ended", "Record", ""];
  for (const run of runs) {
    const button = run.shared ? make("button", { type: "button" }, "config and record") : make("span");
    const line = make("tr", {},
      make("td", {}, String(run.seed)),
      make("td", {}, run.status.replaceAll("_", " ") + (run.reason ? `: ${run.reason}` : "")),
      ...metrics.map((metric) => make("td", { class: "number" }, metricOf(data, run, metric, column))),
      make("td", { class: "number" }, run.record.best_step === null ? "–" : String(run.record.best_step)),
      make("td", {}, run.record.ended),
      make("td", {}, make("a", { href: run.href, title: run.path }, run.record.id)),
      make("td", {}, button));
    button.addEventListener("click", () => select(run, line));
    body.append(line);
  }
  function select(run, line) {
    for (const each of body.children) each.setAttribute("aria-current", String(each === line));
    lower.replaceChildren(...texts(data, run));
  }
  panel.append(make("table", {}, make("thead", {}, make("tr", {}, ...head.map((word) => make("th", { scope: "col" }, word)))), body), lower);
  select(runs[0], body.firstElementChild);
  return panel;
}

// The metric over the board's split where the record has it, else over any: as a number of the headline's own scale.
function metricOf(data, run, metric, column) {
  const score = (run.record.scores[data.split] || {})[metric];
  if (!score || score.value === null) return "–";
  const own = data.columns[column];
  return metric === own.metric ? scored(score.value, own) : String(Number(score.value.toPrecision(4)));
}

function texts(data, run) {
  const again = run.again ? make("p", {}, "Again: ", make("code", {}, run.again)) : null;
  if (!run.shared) return [again, make("p", { class: "hint" }, "On a board of so many runs, config and record stand in the record's own file.")].filter(Boolean);
  const shared = Object.fromEntries(Object.entries(run.shared).map(([name, number]) => [name, data.parts[number]]));
  const record = { ...run.record, ...shared };
  const config = `seed: ${run.seed}\n${data.parts[run.config]}`;
  const pair = make("div", { class: "pair" },
    make("div", {}, make("p", {}, `Resolved config, seed ${run.seed}`), make("pre", { class: "config", tabindex: 0 }, config)),
    make("div", {}, make("p", {}, "Record, without its config and curves"), make("pre", { class: "record", tabindex: 0 }, JSON.stringify(record, null, 2))));
  return [again, pair].filter(Boolean);
}
