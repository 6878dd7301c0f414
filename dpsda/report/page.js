"use strict";
// Texts reach the page by textContent only.
(() => {
  const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const direction = (header) => {
    const next = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", next);
    return next === "ascending" ? 1 : -1;
  };

  // tables whose header sorts them; what has no figure comes last in both directions
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const sign = direction(header);
        const value = (row) => row.cells[column].textContent.trim();
        const figure = (text) => (text === "inf" ? Infinity : parseFloat(text.replace(/,/g, "")));
        const missing = (text) => text === "" || text === "n/a";
        const numeric = [...body.rows].every((row) => missing(value(row)) || !Number.isNaN(figure(value(row))));
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (missing(x) || missing(y)) return missing(x) - missing(y);
          return sign * (numeric ? (figure(x) > figure(y)) - (figure(x) < figure(y)) : order.compare(x, y));
        });
        body.append(...rows);
      });
    });
  }

  // the texts to browse: rows are [text, label, ..., number of words]
  const source = document.getElementById("samples-data");
  if (!source) return;
  const { columns, rows } = JSON.parse(source.textContent);
  const PAGE = 25, LONG = 700;
  const box = document.getElementById("samples");
  const controls = box.querySelector(".controls"), body = box.querySelector("tbody");
  const shown = document.getElementById("shown");
  const previous = document.getElementById("previous"), next = document.getElementById("next");
  const search = document.getElementById("search");
  const last = columns.length - 1;
  let found = rows, page = 0, sorted = null;

  const selects = columns.slice(1, last).map((name, i) => {
    const values = [...new Set(rows.map((row) => row[i + 1]))].sort(order.compare);
    const label = make("label", name), select = make("select");
    select.dataset.column = name;
    select.append(make("option", "all"), ...values.map((value) => make("option", value)));
    label.append(select);
    controls.append(label);
    return { select, values: [null, ...values] }; // compared by position: an option trims what it says
  });

  const textCell = (text) => {
    const cell = make("td");
    cell.dir = "auto";
    if (text.length <= LONG) {
      cell.textContent = text;
      return cell;
    }
    const part = make("span", text.slice(0, LONG - 100) + "…"), more = make("button", "show all", "more");
    more.type = "button";
    more.addEventListener("click", () => { part.textContent = text; more.remove(); });
    cell.append(part, more);
    return cell;
  };
  const draw = () => {
    const from = page * PAGE, some = found.slice(from, from + PAGE);
    body.replaceChildren(...some.map((row) => {
      const line = make("tr");
      line.append(textCell(row[0]));
      row.slice(1).forEach((value, i) => line.append(make("td", String(value), i + 1 === last ? "number" : "")));
      return line;
    }));
    const count = found.length.toLocaleString("en");
    shown.textContent = found.length
      ? `${(from + 1).toLocaleString("en")} to ${(from + some.length).toLocaleString("en")} of ${count}`
      : "no text is like that";
    previous.disabled = page === 0;
    next.disabled = from + PAGE >= found.length;
  };
  const find = () => {
    const wanted = search.value.toLowerCase();
    found = rows.filter((row) =>
      (!wanted || row[0].toLowerCase().includes(wanted)) &&
      selects.every(({ select, values }, i) => !select.selectedIndex || row[i + 1] === values[select.selectedIndex]));
    if (sorted) {
      const { column, sign } = sorted;
      found = [...found].sort((a, b) =>
        sign * (column === last ? a[column] - b[column] : order.compare(a[column], b[column])));
    }
    page = 0;
    draw();
  };
  [...box.querySelectorAll("th")].forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      sorted = { column, sign: direction(header) };
      find();
    });
  });
  search.addEventListener("input", find);
  for (const { select } of selects) select.addEventListener("change", find);
  previous.addEventListener("click", () => { page -= 1; draw(); });
  next.addEventListener("click", () => { page += 1; draw(); });
  draw();
})();
