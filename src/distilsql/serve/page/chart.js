// Draws the chart that the server chose, as SVG. Everything that comes from the database is a text node or a number.

const WIDEST = 900, NARROWEST = 300;
let width = NARROWEST; // as wide as there is room, so that texts keep their size on a phone
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function short(text, length) {
  const whole = String(text);
  return whole.length > length ? whole.slice(0, length - 1) + "…" : whole;
}

const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, notation: "compact" });

function scale(from, to, start, end) {
  const span = to - from || 1;
  return (value) => start + ((value - from) / span) * (end - start);
}

function bars(result, labels, values) {
  const row = 22, left = Math.min(150, width / 3), right = 50;
  const height = values.length * row + 8;
  const picture = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const at = scale(Math.min(0, ...values), Math.max(0, ...values), left, width - right);
  values.forEach((value, index) => {
    const top = index * row + 4;
    picture.append(make("text", { x: left - 8, y: top + 13, "text-anchor": "end" }, short(labels[index], Math.floor(left / 7))));
    const bar = make("rect", {
      class: "bar", x: Math.min(at(0), at(value)), y: top, height: row - 6, rx: 2,
      width: Math.max(Math.abs(at(value) - at(0)), 1),
    });
    bar.append(make("title", {}, `${labels[index]}: ${value}`));
    picture.append(bar);
    picture.append(make("text", { x: Math.max(at(0), at(value)) + 6, y: top + 13 }, compact.format(value)));
  });
  return picture;
}

function plane(xs, ys, xLabel, yLabel, ticks) {
  const height = 260, left = 60, bottom = 40, top = 24, right = 20;
  const picture = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const x = scale(Math.min(...xs), Math.max(...xs), left, width - right);
  const y = scale(Math.min(...ys), Math.max(...ys), height - bottom, top);
  picture.append(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  picture.append(make("line", { class: "axis", x1: left, x2: left, y1: top, y2: height - bottom }));
  for (const value of [Math.min(...ys), Math.max(...ys)]) {
    picture.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, compact.format(value)));
  }
  for (const [value, text, anchor] of ticks) {
    picture.append(make("text", { x: x(value), y: height - bottom + 16, "text-anchor": anchor }, text));
  }
  picture.append(make("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, short(xLabel, 60)));
  picture.append(make("text", { x: left, y: 14 }, short(yLabel, 60)));
  return [picture, x, y];
}

function line(result, labels, values) {
  const order = labels.map((_, index) => index).sort((a, b) => (labels[a] < labels[b] ? -1 : 1));
  const xs = order.map((_, place) => place);
  const ys = order.map((index) => values[index]);
  const ticks = [[0, short(labels[order[0]], 20), "start"], [xs.length - 1, short(labels[order[xs.length - 1]], 20), "end"]];
  const { x: xColumn, y: yColumn } = result.chart;
  const [picture, x, y] = plane(xs, ys, result.columns[xColumn], result.columns[yColumn], ticks);
  const points = xs.map((place) => `${x(place)},${y(ys[place])}`).join(" ");
  picture.append(make("polyline", { class: "trend", points }));
  return picture;
}

function points(result, xs, ys) {
  const lowest = Math.min(...xs), highest = Math.max(...xs);
  const ticks = [[lowest, compact.format(lowest), "start"], [highest, compact.format(highest), "end"]];
  const { x: xColumn, y: yColumn } = result.chart;
  const [picture, x, y] = plane(xs, ys, result.columns[xColumn], result.columns[yColumn], ticks);
  xs.forEach((value, index) => picture.append(make("circle", { class: "dot", cx: x(value), cy: y(ys[index]), r: 3.5 })));
  return picture;
}

/** Put the chart of `result` into `figure`; hide the figure where there is none. */
export function drawChart(figure, result) {
  figure.replaceChildren();
  figure.hidden = !result.chart;
  if (!result.chart) return;
  width = Math.min(Math.max(figure.clientWidth, NARROWEST), WIDEST);
  const labels = result.rows.map((row) => row[result.chart.x]);
  const values = result.rows.map((row) => Number(row[result.chart.y]));
  const draw = { bar: bars, line, points }[result.chart.kind];
  const picture = draw(result, result.chart.kind === "points" ? labels.map(Number) : labels, values);
  picture.setAttribute("aria-label", `${result.columns[result.chart.y]} by ${result.columns[result.chart.x]}`);
  figure.append(picture);
}
