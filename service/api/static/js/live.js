// Live: rates and quantiles of the last seconds, from the counters at /metrics.

import { getText, NEEDS_KEY } from "./api.js";
import { lineChart } from "./charts.js";
import { $, h, say } from "./dom.js";
import { count, duration, fixed } from "./format.js";
import { parseMetrics, quantile, total } from "./prometheus.js";

const PERIOD = 2000; // milliseconds
const KEPT = 60; // samples in a chart
// Health checks, pages and this tab's own requests are no load.
const INFERENCE = ({ route = "" }) => /(predict|evaluate|infer)$/.test(route);

const FIGURES = [
  {
    name: "Requests per second",
    of: ({ requests, seconds }) => requests / seconds,
    format: (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0)),
  },
  { name: "Latency, median", of: ({ latency }) => quantile(latency, 0.5), format: duration },
  { name: "Latency, p99", of: ({ latency }) => quantile(latency, 0.99), format: duration },
  { name: "Images in the queue", of: ({ queue }) => queue, format: (value) => count(value) },
  {
    name: "Images per batch",
    of: ({ batches, images }) => (batches ? images / batches : NaN),
    format: (value) => fixed(value, 1),
  },
  {
    name: "Failed requests per second",
    of: ({ failed, seconds }) => failed / seconds,
    format: (value) => value.toFixed(1),
  },
];

let before = null;
let watch = 0; // numbers the starts: the loop of an earlier one ends
const history = FIGURES.map(() => []);

export async function start() {
  stop();
  const mine = watch;
  while (mine === watch) {
    if (!document.hidden) await sample(mine);
    await new Promise((resolve) => setTimeout(resolve, PERIOD));
  }
}

export function stop() {
  watch++;
  before = null;
}

async function sample(mine) {
  try {
    const now = { at: performance.now(), samples: parseMetrics(await getText("metrics")) };
    if (mine !== watch) return; // the tab was left meanwhile
    if (before) record(change(before, now));
    before = now;
    say($("live-message"));
  } catch (error) {
    if (mine !== watch) return;
    before = null;
    if (NEEDS_KEY.includes(error.status)) stop();
    say($("live-message"), error.message, true);
  }
}

function change(then, now) {
  const rise = (name, when) => total(now.samples, name, when) - total(then.samples, name, when);
  const bounds = [
    ...new Set(
      now.samples.filter(({ name }) => name === "convoy_request_seconds_bucket").map(({ labels }) => labels.le),
    ),
  ];
  return {
    seconds: (now.at - then.at) / 1000,
    requests: rise("convoy_requests_total", INFERENCE),
    failed: rise("convoy_requests_total", (labels) => INFERENCE(labels) && labels.status >= "5"),
    latency: bounds.map((le) => [
      le === "+Inf" ? Infinity : Number(le),
      rise("convoy_request_seconds_bucket", (labels) => INFERENCE(labels) && labels.le === le),
    ]),
    queue: total(now.samples, "convoy_images_waiting"),
    batches: rise("convoy_batch_images_count"),
    images: rise("convoy_batch_images_sum"),
  };
}

function record(sample) {
  const tiles = FIGURES.map(({ name, of, format }, i) => {
    history[i] = [...history[i], of(sample)].slice(-KEPT);
    const values = Array(KEPT - history[i].length)
      .fill(NaN)
      .concat(history[i]);
    const latest = history[i].at(-1);
    const text = Number.isFinite(latest) ? format(latest) : "–";
    const chart = lineChart([{ values, kind: "live" }], {
      label: `${name} over the last two minutes, now ${text}`,
      format,
      from: 0,
      height: 70,
    });
    return h("section", { className: "card live" }, h("h3", {}, name), h("p", { className: "figure" }, text), chart);
  });
  $("live-figures").replaceChildren(...tiles);
}
