"use strict";
// Sorting: a click, or a fragment such as #sort=3 or #sort=-3, which makes a sorted page something one can link to.
const table = document.getElementById("scores");
const body = table.tBodies[0];
const given = [...body.rows];
function sortBy(column, ascending) {
  const value = row => {
    const text = row.cells[column].dataset.value;
    return text === undefined || text === "" ? null : Number(text);
  };
  const compare = (a, b) => {
    if (column === 0) return (ascending ? 1 : -1) * a.cells[0].dataset.name.localeCompare(b.cells[0].dataset.name);
    const [x, y] = [value(a), value(b)];
    // What has no figure stands last, whichever way.
    if (x === null || y === null) return (x === null) - (y === null);
    return ascending ? x - y : y - x;
  };
  body.append(...[...given].sort(compare));
  for (const head of table.querySelectorAll("th[data-column]")) {
    if (Number(head.dataset.column) === column) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
}
for (const head of table.querySelectorAll("th[data-column]")) {
  head.querySelector("button").addEventListener("click", () => {
    const column = Number(head.dataset.column);
    const now = head.getAttribute("aria-sort");
    const ascending = now === null ? column === 0 : now === "descending";
    sortBy(column, ascending);
    history.replaceState(null, "", "#sort=" + (ascending ? "" : "-") + column);
  });
}
const wanted = /^#sort=(-?)(\d+)$/.exec(location.hash);
if (wanted && Number(wanted[2]) < table.rows[table.tHead.rows.length].cells.length) sortBy(Number(wanted[2]), wanted[1] === "");

// Tips: by mouse, and by touch. The same figures stand in the table and in each plot's text for others.
const tip = document.getElementById("tip");
function show(event) {
  const about = event.target.closest("[data-tip]");
  tip.hidden = !about;
  if (!about) return;
  tip.textContent = about.dataset.tip;
  const [box, size] = [about.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), innerWidth - size.width - 8);
  const above = box.top - size.height - 8;
  tip.style.left = left + "px";
  tip.style.top = (above > 4 ? above : box.bottom + 8) + "px";
}
addEventListener("pointerover", show);
addEventListener("pointerdown", show);
addEventListener("scroll", () => { tip.hidden = true; }, true);
