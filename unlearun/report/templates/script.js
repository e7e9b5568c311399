"use strict";
// Without this script the page shows everything at once; with it tables sort, filter and turn pages.

const words = (element) => element.textContent.toLowerCase();

function sortBy(table, column, header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const numeric = header.querySelector("button").dataset.kind === "number";
  const key = (row) => {
    const cell = row.cells[column];
    return numeric ? Number.parseFloat(cell.dataset.value) : words(cell).trim();
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (numeric) {
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // the unknown last, always
      return ascending ? x - y : y - x;
    }
    return ascending ? x.localeCompare(y) : y.localeCompare(x);
  });
  table.tBodies[0].append(...rows);
  show(table);
}

function show(table) {
  const of = (kind) => document.querySelector(`[data-${kind}="${table.id}"]`);
  const [filter, choose, changed, count] = ["filter", "choose", "changed", "count"].map(of);
  const wanted = (filter?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  const kept = rows.filter((row) => (!choose || row.dataset.set === choose.value)
    && (!changed?.checked || row.dataset.changed === "yes")
    && wanted.every((word) => words(row).includes(word)));
  const size = Number(table.dataset.pages ?? 0);
  const pages = size ? Math.max(1, Math.ceil(kept.length / size)) : 1;
  const page = Math.min(Number(table.dataset.page ?? 0), pages - 1);
  const visible = new Set(size ? kept.slice(page * size, (page + 1) * size) : kept);
  for (const row of rows) row.hidden = !visible.has(row);
  if (count) count.value = wanted.length || changed?.checked ? `${kept.length} found` : "";
  const pager = of("pager");
  if (pager) {
    pager.querySelector("output").value = `page ${page + 1} of ${pages}`;
    const [back, on] = pager.querySelectorAll("button");
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  }
  table.dataset.page = page;
  const chosen = of("chosen");
  if (chosen && choose) chosen.value = choose.value;
}

function pager(table, place) {
  const turn = (label, by) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => {
      table.dataset.page = Number(table.dataset.page ?? 0) + by;
      show(table);
    });
    return button;
  };
  place.append(turn("back", -1), document.createElement("output"), turn("on", 1));
}

for (const table of document.querySelectorAll("table[id]")) {
  for (const button of table.querySelectorAll("th button")) {
    const header = button.closest("th");
    button.addEventListener("click", () => sortBy(table, header.cellIndex, header));
  }
  const place = document.querySelector(`[data-pager="${table.id}"]`);
  if (place) pager(table, place);
  for (const kind of ["filter", "choose", "changed"]) {
    document.querySelector(`[data-${kind}="${table.id}"]`)?.addEventListener("input", () => {
      table.dataset.page = 0;
      show(table);
    });
  }
  show(table);
}
// Paper has no pages to turn: all rows of the chosen set are printed.
addEventListener("beforeprint", () => {
  for (const table of document.querySelectorAll("table[data-pages]")) {
    table.dataset.shown = table.dataset.pages;
    table.dataset.pages = 0;
    show(table);
  }
});
addEventListener("afterprint", () => {
  for (const table of document.querySelectorAll("table[data-shown]")) {
    table.dataset.pages = table.dataset.shown;
    delete table.dataset.shown;
    show(table);
  }
});
