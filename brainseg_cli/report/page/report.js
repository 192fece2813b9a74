"use strict";
// Sorts and filters the two tables, and opens slices large. Names are only ever set as text.

const PAGE_ROWS = 100;
const THIN_SPACE = "\u202f";
const order = new Intl.Collator("en", { numeric: true }).compare;

function formatNumber(value, kind) {
  if (value === null) return "\u2013";
  if (kind === "text") return value;
  const size = Math.abs(value);
  if (kind === "count") return size < 10000 ? String(value) : value.toLocaleString("en").replaceAll(",", THIN_SPACE);
  if (size === 0 || (kind === "share" && size === 1)) return String(value);
  if (kind === "distance" && size >= 1) return value.toFixed(size >= 100 ? 1 : 2);
  if (size < 0.01) return String(Number(value.toPrecision(3)));
  if (size >= 0.9995 && size < 1) return String(Math.floor(value * 1e5) / 1e5);
  return value.toFixed(3);
}

// ---- tables

function startTable(section, openPicture) {
  const { columns, rows, pictures } = JSON.parse(section.querySelector("script").textContent);
  const at = Object.fromEntries(columns.map((column, index) => [column.name, index]));
  const texts = columns.flatMap((column, index) => (column.kind === "text" ? [index] : []));
  const words = rows.map((row) => texts.map((index) => row[index]).join("\n").toLowerCase());
  const of = (row, name) => rows[row][at[name]];
  const KEEP = {
    all: () => true,
    tumour: (row) => of(row, "reference_px") > 0,
    missed: (row) => of(row, "reference_px") > 0 && of(row, "fn") === of(row, "reference_px"),
    false: (row) => of(row, "reference_px") === 0 && of(row, "prediction_px") > 0,
  };
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("thead th")];
  const more = section.querySelector(".more");
  const search = section.querySelector("input");
  const chips = [...section.querySelectorAll("[data-keep]")];
  const sorting = { column: null, direction: 1 };
  let keep = "all";
  let matching = [];
  let shown = 0;

  function buildRow(number) {
    const line = document.createElement("tr");
    columns.forEach(({ name, kind }, index) => {
      const value = rows[number][index];
      const cell = document.createElement("td");
      cell.className = kind;
      if (name === "image") {
        const place = number in pictures ? document.createElement("button") : document.createElement("span");
        if (number in pictures) {
          place.type = "button";
          place.className = "link";
          line.addEventListener("click", () => openPicture(pictures[number]));
        }
        place.textContent = value.split("/").pop();
        cell.append(place);
      } else {
        cell.textContent = formatNumber(value, kind);
      }
      cell.title = value === null ? "not defined" : value;
      line.append(cell);
    });
    return line;
  }

  function showMore() {
    const next = matching.slice(shown, shown + PAGE_ROWS);
    body.append(...next.map(buildRow));
    shown += next.length;
    const left = matching.length - shown;
    const part = left ? `, the first ${formatNumber(shown, "count")} shown` : "";
    section.querySelector(".tally").textContent =
      `${formatNumber(matching.length, "count")} of ${formatNumber(rows.length, "count")} ${section.id}${part}`;
    more.hidden = left === 0;
    more.textContent = `show ${Math.min(left, PAGE_ROWS)} more`;
  }

  function compareRows(first, second) {
    const a = rows[first][sorting.column];
    const b = rows[second][sorting.column];
    if (a === null || b === null) return (a === null) - (b === null);
    return sorting.direction * (typeof a === "string" ? order(a, b) : a - b);
  }

  function update() {
    const wanted = search.value.trim().toLowerCase();
    matching = [];
    for (let row = 0; row < rows.length; row += 1) {
      if (words[row].includes(wanted) && KEEP[keep](row)) matching.push(row);
    }
    if (sorting.column !== null) matching.sort(compareRows);
    body.replaceChildren();
    shown = 0;
    showMore();
  }

  heads.forEach((head, index) => {
    head.setAttribute("aria-sort", "none");
    head.firstElementChild.addEventListener("click", () => {
      sorting.direction = sorting.column === index ? -sorting.direction : 1;
      sorting.column = index;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sorting.direction > 0 ? "ascending" : "descending");
      update();
    });
  });
  chips.forEach((chip) => {
    chip.addEventListener("click", () => {
      keep = chip.dataset.keep;
      chips.forEach((other) => other.setAttribute("aria-pressed", String(other === chip)));
      update();
    });
  });
  search.addEventListener("input", update);
  more.addEventListener("click", showMore);
  update();
}

// ---- slices

function startGallery(gallery) {
  const figures = [...gallery.querySelectorAll("figure")];
  const dialog = gallery.querySelector("dialog");
  if (!dialog) return () => {};
  const stage = dialog.querySelector(".stage");
  let open = 0;

  function show(number) {
    open = (number + figures.length) % figures.length;
    const caption = [...figures[open].querySelectorAll(".whose, .place, .score")].map((part) => part.textContent);
    dialog.querySelector("#opened").textContent = `${caption.join(", ")} (${open + 1} of ${figures.length})`;
    stage.replaceChildren(figures[open].querySelector("svg").cloneNode(true));
    if (!dialog.open) dialog.showModal();
  }

  function choose(view) {
    gallery.dataset.view = view;
    gallery.querySelectorAll("button[data-view]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    });
  }

  // the same buttons and legend once more, where the large slice covers the others
  const bar = gallery.querySelector(".viewbar");
  dialog.querySelector(".below").append(...[...bar.children].map((child) => child.cloneNode(true)));
  gallery.querySelectorAll("button[data-view]").forEach((button) => {
    button.addEventListener("click", () => choose(button.dataset.view));
  });
  figures.forEach((figure, number) => {
    figure.querySelector(".open").addEventListener("click", () => show(number));
  });
  dialog.querySelector(".previous").addEventListener("click", () => show(open - 1));
  dialog.querySelector(".next").addEventListener("click", () => show(open + 1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      show(open + step);
    }
  });
  return show;
}

const openPicture = startGallery(document.querySelector("#gallery"));
document.querySelectorAll(".browse").forEach((section) => startTable(section, openPicture));
