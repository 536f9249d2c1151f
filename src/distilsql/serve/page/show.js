// Shows rows, tables and matched values. Cells and names become text nodes; nothing is ever read as HTML.

/** An element with a class, and children or text. */
export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function compare(kind) {
  return (one, other) => {
    if (one === null || other === null) return (one !== null) - (other !== null);
    if (kind === "number") return one - other;
    return String(one).localeCompare(String(other), undefined, { numeric: true });
  };
}

/** A table of the result whose headers sort it. */
export function rowsTable(result) {
  const table = element("table");
  const body = element("tbody");
  let sorted = { place: -1, up: true };

  function fill(rows) {
    body.replaceChildren(...rows.map((row) => element("tr", "", ...row.map((cell, place) => {
      const made = element("td", result.kinds[place] === "number" ? "number" : "");
      if (cell === null) made.append(element("span", "null", "NULL"));
      else made.textContent = String(cell);
      return made;
    }))));
  }

  const heads = result.columns.map((name, place) => {
    const button = element("button", "", name);
    button.type = "button";
    const head = element("th", result.kinds[place] === "number" ? "number" : "", button);
    head.scope = "col";
    button.addEventListener("click", () => {
      sorted = { place, up: sorted.place === place ? !sorted.up : true };
      const by = compare(result.kinds[place]);
      const rows = [...result.rows].sort((a, b) => (sorted.up ? 1 : -1) * by(a[place], b[place]));
      heads.forEach((each, index) => {
        if (index === place) each.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
        else each.removeAttribute("aria-sort");
        each.firstChild.textContent = result.columns[index] + (index === place ? (sorted.up ? " ↑" : " ↓") : "");
      });
      fill(rows);
    });
    return head;
  });
  fill(result.rows);
  table.append(element("thead", "", element("tr", "", ...heads)), body);
  return table;
}

/** The schema as one folded entry a table; `find` narrows it to what its words are in. */
export function tablesList(tables, find) {
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (text) => words.every((word) => text.toLowerCase().includes(word));
  return tables.filter((table) => {
    return !words.length || has(table.name) || table.columns.some((column) => has(`${table.name} ${column.name} ${column.comment}`));
  }).map((table) => {
    const isNamed = has(table.name);
    const found = table.columns.filter((column) => isNamed || has(`${table.name} ${column.name} ${column.comment}`));
    const columns = found.map((column) => {
      const facts = [column.type, column.is_primary_key ? "key" : "", column.refers_to && `→ ${column.refers_to}`, column.comment];
      const item = element("li", "", column.name, " ", element("span", "type", facts.filter(Boolean).join(" · ")));
      if (column.samples.length) item.append(element("span", "samples", column.samples.join(", ")));
      return item;
    });
    const shown = element("details", "", element("summary", "", table.name + (table.is_view ? " (view)" : "")), element("ul", "", ...columns));
    shown.open = words.length > 0 || tables.length === 1;
    return shown;
  });
}

/** Which values of the database the question spells out; "" where none. */
export function matchedText(matched) {
  const found = matched.map((each) => `${each.table}.${each.column}: ${each.values.join(", ")}`);
  return found.length ? `Found in the question: ${found.join("; ")}` : "";
}

/** How the answer was chosen; "" where there was one query alone. */
export function chosenText(answer) {
  if (answer.retried) return ", after another query failed";
  return answer.candidates > 1 && answer.votes ? `, ${answer.votes} of ${answer.candidates} candidates agree` : "";
}

/** "3 rows", or how they are cut. */
export function countText(result) {
  const count = result.rows.length;
  if (result.outcome === "too many rows") return `The first ${count.toLocaleString("en")} rows; there are more`;
  return count === 1 ? "1 row" : `${count.toLocaleString("en")} rows`;
}
