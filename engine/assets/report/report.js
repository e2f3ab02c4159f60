"use strict";

// What hovering over a bar, or coming to its row with the keyboard, tells.
const tip = document.getElementById("tip");

function showTip(bar, step, x, y) {
  const [name, ...facts] = bar.dataset.tip.split("\n");
  tip.textContent = [name, ...(step ? ["▸ " + step.dataset.step] : []), ...facts].join("\n");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(x + 14, innerWidth - box.width - 8);
  const below = y + 18 + box.height < innerHeight;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = Math.max(8, below ? y + 18 : y - box.height - 12) + "px";
}

function showFocused() {
  const bars = document.activeElement.closest(".chart li")?.querySelectorAll("[data-tip]");
  tip.hidden = true;
  if (!bars?.length) return;
  const box = bars[bars.length - 1].getBoundingClientRect();
  showTip(bars[bars.length - 1], null, box.left, box.bottom - 10);
}

addEventListener("mousemove", (event) => {
  const bar = event.target.closest("[data-tip]");
  if (bar) showTip(bar, event.target.closest("[data-step]"), event.clientX, event.clientY);
  else showFocused();
});
addEventListener("focusin", showFocused);
addEventListener("focusout", () => { tip.hidden = true; });
addEventListener("scroll", showFocused, { passive: true, capture: true });
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});

// The timeline with the critical path only.
for (const box of document.querySelectorAll("[data-critical]")) {
  box.addEventListener("change", () => box.closest("section").classList.toggle("only-critical", box.checked));
}

// Tables sort by the column whose head is clicked, numbers largest first.
for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const isNumber = button.dataset.sort === "number";
    const first = isNumber && column > 0 ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.ariaSort === first ? other : first;
    for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
    head.ariaSort = order;
    const value = (row) => row.cells[column].dataset.value;
    const compare = isNumber ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b));
    const sign = order === "ascending" ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
  });
}

// Tables show the rows that hold all words of the filter.
for (const input of document.querySelectorAll("[data-filter]")) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of input.closest("section").querySelector("table").tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// A link to a task that the filter hides shows it again; one in a folded run unfolds it.
addEventListener("hashchange", () => {
  const row = document.getElementById(location.hash.slice(1));
  if (!row) return;
  row.hidden = false;
  row.closest("details.run")?.setAttribute("open", "");
  row.scrollIntoView({ block: "center" });
});

// On paper, logs are unfolded.
addEventListener("beforeprint", () => {
  for (const log of document.querySelectorAll("details.log")) log.open = true;
});
