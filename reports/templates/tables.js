// Tables: sorted by a click on a heading, searched, filtered by method and network.
for (const table of document.querySelectorAll("main table:not(#ranking)")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("n");
      const key = (row) => row.cells[column].dataset.sort;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is missing stays last
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
  if (table.tBodies[0].rows.length > 5) addFilters(table, heads);
}

function addFilters(table, heads) {
  const rows = () => [...table.tBodies[0].rows];
  const form = element("form", "", { class: "filters", role: "search", "aria-label": "Filter the table" });
  const field = (words, input) => {
    const label = element("label", `${words} `);
    label.append(input);
    form.append(label);
    return input;
  };
  const search = field("Search", element("input", "", { type: "search", size: 14 }));
  const selects = [];
  heads.forEach((head, column) => {
    if (!["method", "network"].includes(head.dataset.filter)) return;
    const values = [...new Set(rows().map((row) => row.cells[column].textContent))];
    if (values.length < 2) return;
    const select = field(head.dataset.filter, element("select", ""));
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    selects.push([column, select]);
  });
  const count = element("output", "");
  form.append(count);
  form.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || !selects.every(([column, select]) => !select.value || row.cells[column].textContent === select.value);
      shown += !row.hidden;
    }
    count.textContent = shown < rows().length ? `${shown} of ${rows().length} rows` : "";
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  table.parentElement.before(form);
}

for (const link of document.querySelectorAll("a[data-runs]")) {
  link.addEventListener("click", () => {
    const runs = new Set(link.dataset.runs.split(" ").map((run) => `run-${run}`));
    for (const row of document.querySelectorAll("#table-runs tbody tr")) row.classList.toggle("shown", runs.has(row.id));
  });
}
