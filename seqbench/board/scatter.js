// Quality against cost, a mark for each row, its interval, and the front of those that nothing beats in both.
function drawScatter(data, visible) {
  const figure = document.getElementById("scatter"), place = figure.querySelector(".plot");
  const hint = figure.querySelector(".hint");
  const task = Number(document.getElementById("scatter-task").value), column = data.columns[task];
  const cost = data.costs.find((each) => each.key === document.getElementById("scatter-cost").value);
  const machine = Number(document.getElementById("scatter-machine").value);
  const log = document.getElementById("scatter-log").checked;
  const apart = cost.ofMachine && data.machines.length > 1;
  document.getElementById("scatter-machine-label").hidden = !apart;
  const here = data.cells.filter((cell) => cell.column === task && cell.mean !== null && visible(cell.row));
  const floors = here.filter((cell) => data.rows[cell.row].trivial);
  const points = [];
  for (const cell of here.filter((each) => !data.rows[each.row].trivial)) {
    const line = cell.costs.find((each) => (!apart || each.machine === machine) && each[cost.key] !== null);
    if (line && (!log || line[cost.key] > 0)) points.push({ cell, row: data.rows[cell.row], x: line[cost.key] });
  }
  const left = here.length - floors.length - points.length;
  hint.textContent = left ? `${left} of ${here.length - floors.length} rows have no such cost${apart ? " on this machine" : ""}` : "";
  if (!column || !points.length) return empty(place, "No row has both a score and this cost.");
  markFront(points, column.best === "max" ? 1 : -1, cost.better === "less" ? 1 : -1);
  const ends = [...points.map((p) => p.cell), ...floors].flatMap((cell) => [cell.mean, cell.low ?? cell.mean, cell.high ?? cell.mean]);
  const xs = points.map((p) => p.x);
  const x = axis(Math.min(...xs), Math.max(...xs), LEFT + 8, W - RIGHT - 8, { log, count: 6 });
  const y = axis(Math.min(...ends), Math.max(...ends), H - BOTTOM, TOP);
  const name = `${column.metric}${column.unit ? `, ${column.unit}` : ""}  (better: ${column.best === "max" ? "up" : "down"})`;
  const side = cost.better === "less" ? "left" : "right";
  const svg = chart(`${column.label}: ${column.metric} against ${cost.title}`, x, y, `${cost.title}  (better: ${side})`, name, short, (t) => short(t * column.factor));
  const taken = [];
  const named = []; // floors whose names would cover each other share one
  for (const cell of [...floors].sort((a, b) => y.at(a.mean) - y.at(b.mean))) {
    const at = y.at(cell.mean), last = named.at(-1), label = data.rows[cell.row].label;
    svg.append(draw("line", { class: "floorline", x1: LEFT, x2: W - RIGHT, y1: at, y2: at }));
    if (last && at - last.at < 15) last.label += `, ${label}`;
    else named.push({ at, label });
  }
  for (const { at, label } of named) {
    const low = at - 16 < TOP; // no room above the line
    svg.append(draw("text", { class: "floorname", x: W - RIGHT - 2, y: low ? at + 13 : at - 4, "text-anchor": "end" }, label));
    taken.push({ x: W - RIGHT - 7 * label.length, y: low ? at + 2 : at - 14, w: 7 * label.length, h: 14 });
  }
  svg.append(draw("path", { class: "front", d: frontPath(points.filter((p) => p.front), x, y, cost.better === "less") }));
  const families = [...new Set(data.rows.map((row) => row.family))];
  for (const p of points) taken.push({ x: x.at(p.x) - 7, y: y.at(p.cell.mean) - 7, w: 14, h: 14 });
  for (const p of [...points].sort((a, b) => b.front - a.front)) { // names of the front find room first
    const [px, py] = [x.at(p.x), y.at(p.cell.mean)], group = draw("g", { class: colour(data, p.cell.row) });
    if (p.cell.low !== null) group.append(draw("line", { class: "error", x1: px, x2: px, y1: y.at(p.cell.low), y2: y.at(p.cell.high) }));
    const between = p.cell.low === null ? "" : ` [${scored(p.cell.low, column)}, ${scored(p.cell.high, column)}]`;
    const words = `${p.row.label} (${p.row.family})\n${column.metric} ${scored(p.cell.mean, column)}${between}\n${cost.title}: ${short(p.x)}${p.front ? "\non the front" : ""}`;
    const mark = draw("path", { class: p.front ? "mark" : "mark dominated", d: shape(families.indexOf(p.row.family), px, py), tabindex: 0, role: "img", "aria-label": words });
    mark.addEventListener("pointermove", (event) => showTip(words, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", hideTip);
    mark.addEventListener("focus", () => { const box = mark.getBoundingClientRect(); showTip(words, box.right, box.bottom); });
    mark.addEventListener("blur", hideTip);
    group.append(mark);
    const spot = free(px, py, p.row.label, taken);
    if (spot) group.append(draw("text", { class: "name", x: spot.x, y: spot.y + 11 }, p.row.label));
    svg.append(group);
  }
  place.replaceChildren(svg);
}

// On the front: no other point is at least as good in both and better in one.
function markFront(points, quality, cheap) {
  for (const p of points) {
    p.front = !points.some((o) => {
      const better = quality * (o.cell.mean - p.cell.mean), less = cheap * (p.x - o.x);
      return better >= 0 && less >= 0 && (better > 0 || less > 0);
    });
  }
}

function frontPath(front, x, y, cheapLeft) {
  const ordered = [...front].sort((a, b) => (cheapLeft ? a.x - b.x : b.x - a.x));
  return ordered.map((p, i) => (i ? `H${x.at(p.x)}V${y.at(p.cell.mean)}` : `M${x.at(p.x)} ${y.at(p.cell.mean)}`)).join("");
}

function shape(kind, x, y) {
  const r = 6;
  return [
    `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    `M${x - 5} ${y - 5}h10v10h-10Z`,
    `M${x} ${y - 7}l6.5 12h-13Z`,
    `M${x} ${y - 7}l7 7l-7 7l-7 -7Z`,
    `M${x} ${y + 7}l-6.5 -12h13Z`,
    `M${x - 2} ${y - 6.5}h4v4.5h4.5v4h-4.5v4.5h-4v-4.5h-4.5v-4h4.5Z`,
  ][kind % 6];
}

// A place for a name beside its mark that covers nothing; none if there is none.
function free(px, py, text, taken) {
  const w = Math.min(6.4 * text.length, 240), h = 14;
  for (const [x, y] of [[px + 10, py - 7], [px - 10 - w, py - 7], [px - w / 2, py - 23], [px - w / 2, py + 9], [px + 8, py - 20], [px + 8, py + 6], [px - w + 6, py - 24], [px - w + 6, py + 10], [px - w / 2, py - 36], [px - w / 2, py + 22]]) {
    const inside = x >= LEFT && x + w <= W - 2 && y >= 0 && y + h <= H - BOTTOM;
    if (inside && !taken.some((o) => x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h)) {
      taken.push({ x, y, w, h });
      return { x, y };
    }
  }
  return null;
}
