// Labelled images for /evaluate, from what the user drops: an archive, files with a CSV of labels, or a folder.

import { parseCsv, plural } from "./format.js";
import { readZip } from "./zip.js";

const ARCHIVE = /\.(zip|npz)$/i;
const TABLE = /\.(csv|tsv)$/i;
const IGNORED = /(^|\/)(\.|Thumbs\.db$|desktop\.ini$)/;

// Returns { title, form(), call(path), picture(mistake) }. Raises Error with a sentence for the user.
export async function readLabelled(files) {
  const archive = files.find(({ name }) => ARCHIVE.test(name));
  if (archive) {
    if (files.length > 1) throw new Error("Drop one archive alone: it contains its labels.");
    return fromArchive(archive);
  }
  const tables = files.filter(({ name }) => TABLE.test(name));
  const images = files.filter((file) => !TABLE.test(file.name) && !IGNORED.test(pathOf(file)));
  if (!images.length)
    throw new Error("There is no image. Drop a zip of class folders, or images with a CSV of labels.");
  if (tables.length > 1) throw new Error(`Drop one CSV of labels, not ${tables.length}.`);
  if (tables.length) return fromFiles(images, labelsByFile(images, parseCsv(await tables[0].text())));
  return fromFiles(images, images.map(labelOfFolder));
}

const pathOf = (file) => file.webkitRelativePath || file.name;

async function fromArchive(file) {
  const pictures = await readZip(file);
  return {
    title: file.name,
    form: () => form([["archive", file]]),
    call: (path, query) => ({ path, query, files: [{ field: "archive", name: file.name }] }),
    picture: ({ name }) => pictures.get(name)?.(),
  };
}

function fromFiles(images, labels) {
  return {
    title: plural(images.length, "file"),
    form: () => form([...images.map((file) => ["files", file]), ...labels.map((label) => ["labels", label])]),
    call: (path, query) => ({
      path,
      query,
      files: images.map(({ name }) => ({ field: "files", name })),
      fields: labels.map((label) => ["labels", label]),
    }),
    picture: ({ index }) => images[index],
  };
}

function form(entries) {
  const made = new FormData();
  for (const [name, value] of entries) made.append(name, value);
  return made;
}

function labelOfFolder(file) {
  const parts = pathOf(file).split("/");
  if (parts.length < 2)
    throw new Error(
      `${file.name} has no label. Add a CSV with the columns file and label, or choose a folder of class folders.`,
    );
  return parts.at(-2);
}

// The columns are named file (or image, filename, path) and label (or class); without a header they are the first two.
function labelsByFile(images, rows) {
  if (!rows.length) throw new Error("The CSV is empty. Give it the columns file and label, and a row for each image.");
  const head = rows[0].map((name) => name.toLowerCase());
  const file = head.findIndex((name) => ["file", "image", "filename", "path", "name"].includes(name));
  const label = head.findIndex((name) => ["label", "class"].includes(name));
  const hasHead = file >= 0 && label >= 0;
  const [from, to] = hasHead ? [file, label] : [0, 1];
  const named = Map.groupBy(
    rows.slice(hasHead ? 1 : 0).map((row) => ({ path: (row[from] ?? "").replaceAll("\\", "/"), label: row[to] })),
    ({ path }) => path.split("/").at(-1),
  );
  const labels = images.map((image) => labelOf(image, named.get(image.name) ?? []));
  const missing = images.filter((_, i) => !labels[i]);
  if (missing.length)
    throw new Error(
      `The CSV has no label for ${missing[0].name}${missing.length > 1 ? ` and ${missing.length - 1} more files` : ""}.`,
    );
  return labels;
}

// rows: the rows of files of this name. Those whose folders agree with the image's count, if there are any.
function labelOf(image, rows) {
  const agree = (a, b) => `/${a}`.endsWith(`/${b}`) || `/${b}`.endsWith(`/${a}`);
  const inFolder = rows.filter(({ path }) => agree(path, pathOf(image)));
  const [label, other] = new Set((inFolder.length ? inFolder : rows).map((row) => row.label));
  if (other)
    throw new Error(
      `The CSV labels ${image.name} as ${label} and as ${other}. Name each image with its folder, and choose the folder.`,
    );
  return label;
}
