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

  // the map and the neighbourhoods: sets of texts, each with the number of its neighbourhood, in the order of the dots
  const LONG = 700, FEW = 3;
  const cut = (element, text, most, filled = (part) => { element.append(part); }) => {
    if (text.length <= most) return filled(text);
    const more = make("button", "show all", "more");
    more.type = "button";
    more.addEventListener("click", () => { element.replaceChildren(); filled(text); });
    filled(`${text.slice(0, most - 100)}…`);
    element.append(more);
  };
  const mapped = document.getElementById("map-data");
  if (mapped) {
    const sets = JSON.parse(mapped.textContent);
    const plot = document.querySelector(".plot"), find = document.getElementById("find");
    const covered = document.querySelector(".places details"), opened = covered.open;
    const cards = [...document.querySelectorAll("article")];
    const buttons = cards.map((card) => card.querySelector("button"));
    const layers = ["line1", "line0"].map((look) => {
      const all = plot.querySelector(`path.dots.${look}`), some = all.cloneNode();
      some.classList.add("found");
      some.removeAttribute("d");
      all.after(some);
      return { dots: all.getAttribute("d").match(/M[^M]+/g), some };
    });
    // a list item with the text, in which what was searched for stands out
    const item = (text, wanted) => {
      const line = make("li");
      line.dir = "auto";
      cut(line, text, 300, (part) => {
        const low = part.toLowerCase(), plain = low.length === part.length; // else places would differ
        let from = 0;
        for (let at = low.indexOf(wanted); wanted && plain && at >= 0; at = low.indexOf(wanted, from)) {
          line.append(part.slice(from, at), make("mark", part.slice(at, at + wanted.length)));
          from = at + wanted.length;
        }
        line.append(part.slice(from));
      });
      return line;
    };
    const draw = () => {
      const wanted = find.value.trim().toLowerCase();
      const chosen = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
      const says = sets.map(({ texts }) => texts.map((text) => text.toLowerCase().includes(wanted)));
      const asked = wanted !== "" || chosen >= 0;
      plot.classList.toggle("searched", asked);
      layers.forEach(({ dots, some }, side) => some.setAttribute("d",
        dots.filter((_, i) => asked && says[side][i] && (chosen < 0 || sets[side].near[i] === chosen)).join("")));
      cards.forEach((card, place) => {
        let there = 0;
        card.querySelectorAll("ul").forEach((list, side) => {
          const { texts, near } = sets[side];
          const own = texts.filter((_, i) => near[i] === place && says[side][i]);
          const shown = own.slice(0, FEW).map((text) => item(text, wanted));
          if (wanted && own.length > FEW) shown.push(make("li", `and ${own.length - FEW} more`, "note"));
          if (!own.length) shown.push(make("li", "none", "note"));
          list.replaceChildren(...shown);
          there += own.length;
        });
        card.hidden = there === 0;
      });
      const count = says.map((of) => of.filter(Boolean).length.toLocaleString("en"));
      document.getElementById("found").textContent =
        wanted ? `${count[0]} real and ${count[1]} released texts say it.` : "";
    };
    find.addEventListener("input", () => {
      covered.open = find.value.trim() !== "" || opened;
      draw();
    });
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const was = button.getAttribute("aria-pressed") === "true";
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button && !was));
        draw();
      });
    }
    draw();
  }

  // the texts to browse: rows are [text, label, ..., number of words]
  const source = document.getElementById("samples-data");
  if (!source) return;
  const { columns, rows } = JSON.parse(source.textContent);
  const PAGE = 25;
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
    cut(cell, text, LONG);
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
