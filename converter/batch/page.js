
"use strict";
(() => {
  const form = document.getElementById("filter");
  const find = document.getElementById("find");
  const state = document.getElementById("state");
  const found = document.getElementById("found");
  const body = document.querySelector("#list tbody");
  const rows = [...body.rows];
  const texts = new Map();
  let printing = false;

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      if (words.length && !texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      const shown = (!state.value || row.classList.contains(state.value))
        && words.every((word) => texts.get(row).includes(word));
      row.hidden = !shown;
      count += shown;
    }
    const number = (value) => value.toLocaleString("en");
    found.textContent = count === rows.length ? "" : number(count) + " of " + number(rows.length);
  };

  // #find=web&state=failed is a link to what is shown; others are places in the page.
  const follow = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (wanted.has("find") || wanted.has("state")) {
      find.value = wanted.get("find") || "";
      state.value = wanted.get("state") || "";
      filter();
      return;
    }
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) {
      find.value = state.value = "";
      filter();
      row.scrollIntoView();
    }
  };
  const changed = () => {
    const wanted = new URLSearchParams();
    if (find.value) wanted.set("find", find.value);
    if (state.value) wanted.set("state", state.value);
    history.replaceState(null, "", wanted.size ? "#" + wanted : location.pathname + location.search);
    filter();
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent;
    return column >= 2 && column <= 6 ? Number(text) : text.trim();
  };
  const sort = (heading) => {
    const column = heading.cellIndex;
    const numbers = column >= 2 && column <= 6;
    // Of numbers the largest are looked for first.
    const before = heading.getAttribute("aria-sort") || (numbers ? "ascending" : "descending");
    const order = before === "ascending" ? "descending" : "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const keys = new Map(rows.map((row) => [row, key(row, column)]));
    rows.sort((a, b) => sign * (numbers ? keys.get(a) - keys.get(b) : compare(keys.get(a), keys.get(b))));
    body.append(...rows);
  };
  for (const heading of document.querySelectorAll("#list thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading));
    heading.append(button);
  }

  // A note that several machines have stands once in the page: its text comes to where it is looked at.
  const tell = (details) => {
    for (const link of details.querySelectorAll("li > a")) {
      const text = document.querySelector(link.getAttribute("href") + " .text");
      if (text) link.after(" " + text.textContent);
    }
  };
  const told = new WeakSet();
  body.addEventListener("toggle", (event) => {
    if (printing || !event.target.open || told.has(event.target)) return;
    told.add(event.target);
    tell(event.target);
  }, true);

  // On paper a machine's notes are open; long lists of names are not: each machine has its notes.
  let opened = [];
  addEventListener("beforeprint", () => {
    printing = true;
    opened = [...document.querySelectorAll("#list details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    setTimeout(() => { printing = false; });
  });

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", changed);
  state.addEventListener("change", changed);
  addEventListener("hashchange", follow);
  follow();
})();
