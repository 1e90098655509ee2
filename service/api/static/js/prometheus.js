// The text format of Prometheus, version 0.0.4.

// Returns [{ name, labels, value }].
export function parseMetrics(text) {
  const line = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
  const label = /(\w+)="((?:[^"\\]|\\.)*)"/g;
  return text.split("\n").flatMap((each) => {
    const [, name, labels = "", value] = line.exec(each) ?? [];
    if (!name) return [];
    const pairs = [...labels.matchAll(label)].map(([, key, raw]) => [
      key,
      raw.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c)),
    ]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}

// Returns the sum over the series with this name whose labels match.
export function total(samples, name, when = () => true) {
  return samples.reduce((sum, each) => (each.name === name && when(each.labels) ? sum + each.value : sum), 0);
}

// Returns the quantile of cumulative buckets [[upper bound, count], ...], as histogram_quantile() does.
export function quantile(buckets, q) {
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const rank = q * (sorted.at(-1)?.[1] ?? 0);
  if (!rank) return NaN;
  const i = sorted.findIndex(([, cumulative]) => cumulative >= rank);
  const [lower, below] = i ? sorted[i - 1] : [0, 0];
  const [upper, cumulative] = sorted[i];
  if (upper === Infinity) return lower;
  return lower + ((upper - lower) * (rank - below)) / (cumulative - below);
}
