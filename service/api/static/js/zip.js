// Zip files (APPNOTE.TXT 6.3.10): writes stored entries, reads stored and deflated ones. Without ZIP64.

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const UTF8 = 0x0800;
const DOS_DATE = 0x21; // 1980-01-01: the result depends on the contents alone

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// entries: [{ name, bytes }]. Returns a Blob.
export function writeZip(entries) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of entries) {
    const encoded = new TextEncoder().encode(name);
    const about = [20, UTF8, 0, 0, DOS_DATE].map((value) => [value, 2]);
    const sizes = [
      [crc32(bytes), 4],
      [bytes.length, 4],
      [bytes.length, 4],
      [encoded.length, 2],
      [0, 2],
    ];
    const local = record([LOCAL, 4], ...about, ...sizes);
    parts.push(local, encoded, bytes);
    directory.push(
      record([CENTRAL, 4], [20, 2], ...about, ...sizes, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]),
      encoded,
    );
    offset += local.length + encoded.length + bytes.length;
  }
  const size = directory.reduce((total, part) => total + part.length, 0);
  const n = entries.length;
  const end = record([END, 4], [0, 2], [0, 2], [n, 2], [n, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// Returns little-endian bytes of [value, size] pairs.
function record(...fields) {
  return Uint8Array.from(
    fields.flatMap(([value, size]) => Array.from({ length: size }, (_, i) => (value >>> (8 * i)) & 255)),
  );
}

// Returns a Map from name to a function that resolves to the file's Blob. It is empty if the file is not such a zip.
export async function readZip(file) {
  const tailStart = Math.max(0, file.size - 65557); // the longest end record: 22 bytes and a comment
  const tail = new DataView(await file.slice(tailStart).arrayBuffer());
  const entries = new Map();
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at--;
  if (at < 0) return entries;
  const [n, size, start] = [
    tail.getUint16(at + 10, true),
    tail.getUint32(at + 12, true),
    tail.getUint32(at + 16, true),
  ];
  const directory = new DataView(await file.slice(start, start + size).arrayBuffer());
  for (let i = 0, p = 0; i < n && p + 46 <= directory.byteLength; i++) {
    const entry = centralEntry(directory, p);
    entries.set(entry.name, () => unpack(file, entry));
    p += entry.length;
  }
  return entries;
}

function centralEntry(view, p) {
  const nameLength = view.getUint16(p + 28, true);
  const bytes = new Uint8Array(view.buffer, p + 46, nameLength);
  return {
    name: new TextDecoder().decode(bytes),
    method: view.getUint16(p + 10, true),
    size: view.getUint32(p + 20, true),
    offset: view.getUint32(p + 42, true),
    length: 46 + nameLength + view.getUint16(p + 30, true) + view.getUint16(p + 32, true),
  };
}

async function unpack(file, { method, size, offset }) {
  const head = new DataView(await file.slice(offset, offset + 30).arrayBuffer());
  const start = offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = file.slice(start, start + size);
  if (method === 0) return packed;
  return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
