// Numbers and tables as text.

export const percent = (rate, digits = 1) => (rate == null ? "–" : `${(100 * rate).toFixed(digits)} %`);
export const count = (number) => number.toLocaleString("en");
export const fixed = (number, digits = 3) => (number == null ? "–" : number.toFixed(digits));
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
export const interval = ({ lower, upper }) => `${percent(lower)} to ${percent(upper)}`;

export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  if (seconds < 1) return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return seconds < 120 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(0)} min`;
}

export const dateTime = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

// RFC 4180. A spreadsheet would run a cell that begins like a formula, so such text gets an apostrophe.
export function csv(rows) {
  const cell = (value) => {
    let text = value == null ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// Returns the rows of a CSV text, with quoted cells; the separator is a comma, a semicolon or a tab.
export function parseCsv(text) {
  const separator = [",", ";", "\t"].find((each) => text.split(/\r?\n/, 1)[0].includes(each)) ?? ",";
  const rows = [[]];
  const pattern = new RegExp(`"((?:[^"]|"")*)"|([^${separator}\\r\\n]+)|(${separator})|(\\r?\\n)`, "g");
  let cell = "";
  for (const [, quoted, plain, isSeparator, isEnd] of `${text.replace(/^\ufeff/, "")}\n`.matchAll(pattern)) {
    if (isSeparator || isEnd) {
      rows.at(-1).push(cell.trim());
      cell = "";
      if (isEnd) rows.push([]);
    } else cell += quoted === undefined ? plain : quoted.replaceAll('""', '"');
  }
  return rows.filter((row) => row.some((value) => value));
}
