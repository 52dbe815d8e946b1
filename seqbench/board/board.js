// The page: sorting, filtering, opening rows; and when to draw the charts again.
const data = JSON.parse(document.getElementById("data").textContent);
const filters = { text: "", task: "", family: "", modality: "" };
const byId = (id) => document.getElementById(id);

// -- sorting: a click on a head, or Enter on it; a second turns it round; rows without a value stay last
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(table, heads, index));
  });
}

function sortBy(table, heads, index) {
  const head = heads[index], before = head.getAttribute("aria-sort"), first = "descending" in head.dataset ? "descending" : "ascending";
  const order = before ? (before === "ascending" ? "descending" : "ascending") : first;
  heads.forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("details"));
    const value = (row) => row.cells[index].dataset.sort ?? "";
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const [x, y] = [Number(a), Number(b)];
      return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y);
    };
    rows.sort((a, b) => ("grouped" in head.dataset ? a.dataset.task - b.dataset.task : 0) || compare(value(a), value(b)));
    for (const row of rows) body.append(row, ...(row.opened ? [row.opened] : []));
  }
}

// -- filters: they act on both tables and on the charts
function rowFits(family, text) {
  return (!filters.family || filters.family === family) && text.toLowerCase().includes(filters.text);
}
function taskFits(task, modality) {
  return (!filters.task || filters.task === task) && (!filters.modality || filters.modality === modality);
}
const visible = (row) => !filters.family || filters.family === data.rows[row].family;

function filter() {
  filters.text = byId("filter-text").value.trim().toLowerCase();
  for (const name of ["task", "family", "modality"]) filters[name] = byId(`filter-${name}`).value;
  let shown = 0;
  const named = new Set(); // rows that the search finds through one of their cells
  for (const row of byId("cells").tBodies[0].querySelectorAll("tr.cell")) {
    const { task, family, modality, text } = row.dataset;
    row.hidden = !(taskFits(task, modality) && rowFits(family, text));
    if (row.opened) row.opened.hidden = row.hidden;
    if (!row.hidden) { shown += 1; named.add(row.dataset.row); }
  }
  for (const cell of byId("matrix").querySelectorAll("[data-task]")) cell.hidden = !taskFits(cell.dataset.task, cell.dataset.modality);
  for (const row of byId("matrix").querySelectorAll("tbody tr")) row.hidden = !named.has(row.dataset.row);
  for (const part of document.querySelectorAll("#splits [data-task], #trials figure")) part.hidden = !taskFits(part.dataset.task, part.dataset.modality);
  byId("shown").textContent = `${shown} of ${byId("cells").querySelectorAll("tr.cell").length} cells`;
  if (filters.task) {
    for (const id of ["scatter-task", "curves-task"]) {
      if ([...byId(id).options].some((option) => option.value === filters.task)) byId(id).value = filters.task;
    }
  }
  redraw();
}
byId("filters").addEventListener("input", filter);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => setTimeout(filter));

// -- rows that open
byId("cells").addEventListener("click", (event) => {
  const row = event.target.closest("tr.cell");
  if (!row || event.target.closest("a")) return;
  const open = row.querySelector(".open");
  if (row.opened) {
    row.opened.remove();
    row.opened = null;
  } else {
    const cell = make("td", { colspan: row.cells.length }, detailsOf(data, Number(row.dataset.row), Number(row.dataset.task)));
    row.opened = make("tr", { class: "details" }, cell);
    row.after(row.opened);
  }
  open.setAttribute("aria-expanded", String(Boolean(row.opened)));
});

// -- charts
function redraw() {
  drawScatter(data, visible);
  drawCurves(data, visible);
  drawProfiles(data, visible);
  drawTrials(data, visible);
}
for (const id of ["scatter-task", "scatter-cost", "scatter-machine", "scatter-log"]) byId(id).addEventListener("input", () => drawScatter(data, visible));
for (const id of ["curves-task", "curves-kind", "curves-axis"]) byId(id).addEventListener("input", () => drawCurves(data, visible));
filter();
