// A canvas for models of single drawn characters: white ink on black, as in MNIST.

import { $ } from "./dom.js";

const SIZE = 280;
const PEN = 22;
const STEP = 8; // pixels that an arrow key moves the pen

// onDrawing gets a PNG file after each stroke.
export function bindCanvas(canvas, inputSize, onDrawing) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  let pen = { x: SIZE / 2, y: SIZE / 4, down: false };

  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIZE, SIZE);
  };
  const moveTo = (x, y) => {
    if (pen.down) {
      context.beginPath();
      context.moveTo(pen.x, pen.y);
      context.lineTo(x, y);
      context.stroke();
    }
    pen = { ...pen, x, y };
    for (const [side, value] of [
      ["left", x],
      ["top", y],
    ])
      $("pen-mark").style.setProperty(side, `${(100 * value) / SIZE}%`);
  };
  const lift = () => {
    if (!pen.down) return;
    pen.down = false;
    asFile(canvas, inputSize()).then((file) => file && onDrawing(file));
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIZE, ((event.clientY - box.top) / box.height) * SIZE];
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    moveTo(...place(event));
    pen.down = true;
    moveTo(...place(event)); // a dot
  });
  canvas.addEventListener("pointermove", (event) => moveTo(...place(event)));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, lift);

  canvas.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (event.key === " ") pen.down ? lift() : (pen.down = true);
    else if (dx != null) moveTo(pen.x + STEP * dx, pen.y + STEP * dy);
    else return;
    event.preventDefault();
    $("pen").textContent = pen.down ? "The pen is down." : "The pen is up.";
  });
  canvas.addEventListener("blur", lift);
  clear();
  moveTo(pen.x, pen.y);
  return { clear };
}

// The ink, scaled and centred as in the data sets: MNIST leaves a margin of 4 of 28 pixels, the 8x8 digits leave none.
async function asFile(canvas, inputSize) {
  const ink = inkBox(canvas);
  if (!ink) return null;
  const side = Math.ceil(SIZE / inputSize) * inputSize;
  const inner = side * (inputSize < 16 ? 1 : 20 / 28);
  const scale = inner / Math.max(ink.width, ink.height);
  const [width, height] = [ink.width * scale, ink.height * scale];
  const made = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = made.getContext("2d");
  context.fillRect(0, 0, side, side);
  const target = [(side - width) / 2, (side - height) / 2, width, height];
  context.drawImage(canvas, ink.x, ink.y, ink.width, ink.height, ...target);
  const blob = await new Promise((resolve) => made.toBlob(resolve, "image/png"));
  return new File([blob], "drawing.png", { type: "image/png" });
}

function inkBox(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIZE, SIZE);
  const [xs, ys] = [[], []];
  for (let i = 0; i < SIZE * SIZE; i++) {
    if (data[4 * i] > 127) {
      xs.push(i % SIZE);
      ys.push(Math.floor(i / SIZE));
    }
  }
  if (!xs.length) return null;
  const range = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [SIZE, 0]);
  const [[left, right], [top, bottom]] = [range(xs), range(ys)];
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}
