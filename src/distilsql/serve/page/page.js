import { drawChart } from "./chart.js";
import { chosenText, countText, element, matchedText, rowsTable, tablesList } from "./show.js";

const at = (id) => document.getElementById(id);
const KEY = "distilsql-key";
const MOST_REMEMBERED = 50;
let described = null; // what /api/database says
let answered = null; // the last answer: question, sql

// ---- talking to the server ----

class Problem extends Error {}

async function call(path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Problem("The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    at("key-form").hidden = false;
    at("key").focus();
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({ error: `The server answered with status ${response.status}.` }));
  throw new Problem(said.error);
}

/** Do something that takes a moment: one thing at a time, its state said, its problem shown. */
async function doing(what, work) {
  const buttons = [...document.querySelectorAll("main button")].filter((button) => !button.disabled);
  buttons.forEach((button) => { button.disabled = true; });
  document.body.setAttribute("aria-busy", "true");
  at("status").classList.remove("problem");
  at("status").textContent = what;
  try {
    at("status").textContent = (await work()) || "";
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    at("status").classList.add("problem");
    at("status").textContent = error.message;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    document.body.setAttribute("aria-busy", "false");
  }
}

// ---- question, SQL, rows ----

function showResult(result) {
  const carriedOut = result.outcome === "rows" || result.outcome === "too many rows";
  at("result").hidden = false;
  at("problem").hidden = carriedOut;
  at("problem").textContent = carriedOut ? "" : `Not carried out (${result.outcome}): ${result.message}`;
  at("count").textContent = carriedOut ? countText(result) : "";
  at("csv").hidden = !carriedOut;
  at("rows").replaceChildren(...(carriedOut && result.columns.length ? [rowsTable(result)] : []));
  drawChart(at("chart"), carriedOut ? result : { chart: null });
}

function showSql() {
  const area = at("sql");
  const isEdited = answered !== null && area.value.trim() !== answered.sql.trim();
  at("edited").hidden = at("restore").hidden = at("correct").hidden = !isEdited;
  at("right").hidden = isEdited;
  area.rows = Math.min(Math.max(area.value.split("\n").length, Math.ceil(area.value.length / 60), 2), 14);
}

function resetVerdict() {
  at("verdict-said").textContent = "Is it right?";
  at("right").hidden = at("wrong").hidden = false;
}

async function ask(question) {
  await doing("Writing SQL …", async () => {
    const response = await call("/api/ask", { question });
    const answer = await response.json();
    answered = { question, sql: answer.sql };
    at("answer").hidden = false;
    at("sql").value = answer.sql;
    at("times").textContent = `written in ${seconds(answer.writing_s)}, run in ${seconds(answer.result.seconds)}${chosenText(answer)}`;
    at("matched").textContent = matchedText(answer.matched);
    at("matched").hidden = !answer.matched.length;
    resetVerdict();
    showSql();
    showResult(answer.result);
    remember(question, answer.sql);
  });
}

async function run() {
  await doing("Running …", async () => {
    const response = await call("/api/run", { sql: at("sql").value });
    const result = await response.json();
    at("times").textContent = `run in ${seconds(result.seconds)}`;
    showResult(result);
  });
}

const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);

async function download() {
  await doing("Preparing the file …", async () => {
    const response = await call("/api/csv", { sql: at("sql").value });
    const link = element("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `${described ? described.database : "rows"}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

async function say(verdict) {
  await doing("Keeping it …", async () => {
    const body = { question: answered.question, sql: answered.sql, verdict };
    if (verdict === "corrected") body.right = at("sql").value;
    const response = await call("/api/feedback", body);
    const kept = await response.json();
    at("verdict-said").textContent = { right: "Kept as right.", wrong: "Kept as wrong.", corrected: "Your SQL is kept." }[verdict];
    if (verdict !== "wrong") at("right").hidden = at("wrong").hidden = at("correct").hidden = true;
    return verdict === "wrong" ? "Edit the SQL until it is right, and keep it: the next training learns from it." : `Added to ${kept.kept_in}`;
  });
}

// ---- history, in this browser alone ----

const historyName = () => `distilsql-history ${described ? described.database : ""}`;

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(historyName())) || [];
  } catch {
    return [];
  }
}

function remember(question, sql) {
  const others = remembered().filter((each) => each.question !== question);
  localStorage.setItem(historyName(), JSON.stringify([{ question, sql }, ...others].slice(0, MOST_REMEMBERED)));
  showHistory();
}

function showHistory() {
  const items = remembered().map(({ question }) => {
    const button = element("button", "", question);
    button.type = "button";
    button.addEventListener("click", () => { at("question").value = question; ask(question); });
    return element("li", "", button);
  });
  at("asked").replaceChildren(...items);
  at("forget").hidden = !items.length;
}

// ---- the database ----

async function describe() {
  await doing("", async () => {
    described = await (await call("/api/database")).json();
    at("key-form").hidden = true;
    at("database").textContent = described.database;
    document.title = `Ask ${described.database}`;
    at("model").textContent = `${described.model} · distilsql ${described.version}`;
    at("table-count").textContent = described.tables.length.toLocaleString("en");
    at("tables").replaceChildren(...tablesList(described.tables, ""));
    at("suggestions").replaceChildren(...described.suggestions.map((question) => {
      const chip = element("button", "", question);
      chip.type = "button";
      chip.addEventListener("click", () => { at("question").value = question; ask(question); });
      return chip;
    }));
    showHistory();
  });
}

// ---- what people do ----

at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question) ask(question);
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value);
  describe();
});
at("sql").addEventListener("input", showSql);
at("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
at("run").addEventListener("click", run);
at("restore").addEventListener("click", () => { at("sql").value = answered.sql; showSql(); run(); });
at("csv").addEventListener("click", download);
for (const verdict of ["right", "wrong"]) at(verdict).addEventListener("click", () => say(verdict));
at("correct").addEventListener("click", () => say("corrected"));
at("find").addEventListener("input", () => {
  if (described) at("tables").replaceChildren(...tablesList(described.tables, at("find").value));
});
at("forget").addEventListener("click", () => { localStorage.removeItem(historyName()); showHistory(); });
if (matchMedia("(max-width: 52rem)").matches) at("schema").open = false;
describe();
