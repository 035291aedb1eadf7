"use strict";
// The agent's dream, in a browser: V's decoder, M and C as in models/, and the page around them.
// Nothing here allocates while the dream runs, so that no frame waits for the collector.

// ---- the numbers ------------------------------------------------------------------------------

// IEEE half-precision bits, as base64 -> Float32Array.
function halves(base64) {
  const bytes = atob(base64), numbers = new Float32Array(bytes.length / 2);
  const scale = Array.from({ length: 32 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = scale[exponent] * (fraction + (exponent ? 1024 : 0));
    numbers[i] = bits & 0x8000 ? -size : size;
  }
  return numbers;
}

// { name: [shape, where it begins] } -> { name: Float32Array with its shape }.
function tensors(table, numbers) {
  const named = {};
  for (const [name, [shape, at]] of Object.entries(table)) {
    const size = shape.reduce((a, b) => a * b, 1);
    named[name] = Object.assign(numbers.subarray(at, at + size), { shape });
  }
  return named;
}

// out[at + k] = bias[k] + weight[k] . input, where the input is `runs` stretches of `run` numbers,
// `stride` apart. Everything in V, M and C is this; four rows at once read the input only once.
function affine(out, at, weight, bias, input, start, run, runs, stride) {
  const outputs = bias.length, width = run * runs;
  let k = 0;
  for (; k + 3 < outputs; k += 4) {
    let a = bias[k], b = bias[k + 1], c = bias[k + 2], d = bias[k + 3], row = k * width;
    for (let r = 0; r < runs; r++) {
      const from = start + r * stride;
      for (let j = from; j < from + run; j++, row++) {
        const x = input[j];
        a += x * weight[row];
        b += x * weight[row + width];
        c += x * weight[row + 2 * width];
        d += x * weight[row + 3 * width];
      }
    }
    out[at + k] = a;
    out[at + k + 1] = b;
    out[at + k + 2] = c;
    out[at + k + 3] = d;
  }
  for (; k < outputs; k++) {
    let a = bias[k], row = k * width;
    for (let r = 0; r < runs; r++) {
      const from = start + r * stride;
      for (let j = from; j < from + run; j++, row++) a += input[j] * weight[row];
    }
    out[at + k] = a;
  }
}

function relu(numbers) {
  for (let i = 0; i < numbers.length; i++) if (numbers[i] < 0) numbers[i] = 0;
}

function clamp(x, least, most) {
  return Math.max(least, Math.min(most, x));
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// ---- models/vae.py ----------------------------------------------------------------------------

// Places of a layer lie as (row, column, channel) with a border of zeros, so that what a filter
// sees of a row is one stretch of numbers.
function places(side, channels) {
  const wide = (side + 2) * channels;
  return { side, channels, wide, x: new Float32Array((side + 2) * wide) };
}

// nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), ReLU. Of the 4x4 weights each pixel meets 2x2,
// others for even and odd rows and columns: four small convolutions, none of them with zeros.
class Up {
  constructor(weight, bias, input) {
    const [a, b] = weight.shape;
    this.input = input;
    this.output = places(2 * input.side, b);
    this.bias = bias;
    this.weights = [0, 1, 2, 3].map((parity) => {
      const py = parity >> 1, px = parity & 1, laidOut = new Float32Array(b * 4 * a);
      for (let o = 0, to = 0; o < b; o++)
        for (let ty = 0; ty < 2; ty++)
          for (let tx = 0; tx < 2; tx++)
            for (let i = 0; i < a; i++)
              laidOut[to++] = weight[((i * b + o) * 4 + 3 - py - 2 * ty) * 4 + 3 - px - 2 * tx];
      return laidOut;
    });
  }

  run() {
    const { input, output, weights, bias } = this;
    for (let y = 0; y < output.side; y++)
      for (let x = 0; x < output.side; x++) {
        const weight = weights[((y & 1) << 1) | (x & 1)];
        const start = ((y + 1) >> 1) * input.wide + ((x + 1) >> 1) * input.channels;
        const at = (y + 1) * output.wide + (x + 1) * output.channels;
        affine(output.x, at, weight, bias, input.x, start, 2 * input.channels, 2, input.wide);
      }
    relu(output.x);
  }
}

class Decoder {
  constructor(weights) {
    const numbers = Object.values(weights);  // weight and bias of layer after layer
    [this.linearWeight, this.linearBias] = numbers;
    const [pixelWeight, pixelBias] = numbers.slice(-2);
    this.flat = new Float32Array(this.linearBias.length);
    this.first = places(4, this.flat.length / 16);
    this.ups = [];
    let last = this.first;
    for (let i = 2; i < numbers.length - 2; i += 2) {
      this.ups.push(new Up(numbers[i], numbers[i + 1], last));
      last = this.ups[this.ups.length - 1].output;
    }
    this.last = last;
    const [outputs, inputs] = pixelWeight.shape;  // nn.Conv2d(inputs, outputs, 3, padding=1)
    this.pixelWeight = new Float32Array(pixelWeight.length);
    this.pixelBias = pixelBias;
    for (let o = 0, to = 0; o < outputs; o++)
      for (let tap = 0; tap < 9; tap++)
        for (let i = 0; i < inputs; i++)
          this.pixelWeight[to++] = pixelWeight[(o * inputs + i) * 9 + tap];
    this.block = new Float32Array(outputs);
    this.side = 2 * last.side;
    this.image = new Float32Array(this.side * this.side * 3);  // (row, column, colour), 0 to 1
  }

  // z -> this.image
  decode(z) {
    const { flat, first, last, block, image, side, pixelWeight, pixelBias } = this;
    affine(flat, 0, this.linearWeight, this.linearBias, z, 0, z.length, 1, 0);
    relu(flat);
    for (let c = 0, from = 0; c < first.channels; c++)
      for (let y = 1; y <= 4; y++)
        for (let x = 1; x <= 4; x++)
          first.x[y * first.wide + x * first.channels + c] = flat[from++];
    for (let i = 0; i < this.ups.length; i++) this.ups[i].run();
    for (let y = 0; y < last.side; y++)
      for (let x = 0; x < last.side; x++) {
        const start = y * last.wide + x * last.channels;
        affine(block, 0, pixelWeight, pixelBias, last.x, start, 3 * last.channels, 3, last.wide);
        for (let i = 0; i < block.length; i++) {  // nn.PixelShuffle(2), nn.Sigmoid()
          const colour = i >> 2, row = 2 * y + ((i >> 1) & 1), column = 2 * x + (i & 1);
          image[(row * side + column) * 3 + colour] = sigmoid(block[i]);
        }
      }
  }
}

// ---- models/dream.py --------------------------------------------------------------------------

const LEAST_LOG_SIGMA = -7, MOST_LOG_SIGMA = 5;

// The random numbers of one frame.
class Luck {
  constructor(sizes) {
    this.gumbel = new Float32Array(sizes.latent_dim * sizes.mixtures);  // they choose the mixtures
    this.normal = new Float32Array(sizes.latent_dim);
  }

  draw() {
    const { gumbel, normal } = this;
    for (let i = 0; i < gumbel.length; i++) gumbel[i] = -Math.log(-Math.log(Math.random() || 0.5));
    for (let i = 0; i < normal.length; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
      normal[i] = radius * Math.cos(2 * Math.PI * Math.random());
    }
  }
}

// M: it takes an action and says what is seen next, and what it is worth.
class World {
  constructor(weights, sizes) {
    const hidden = sizes.hidden, width = sizes.latent_dim + sizes.action_dim;
    const fromInput = weights["lstm.weight_ih_l0"], fromH = weights["lstm.weight_hh_l0"];
    const hBias = weights["lstm.bias_hh_l0"];
    this.sizes = sizes;
    this.weight = new Float32Array(fromInput.length + fromH.length);
    this.bias = weights["lstm.bias_ih_l0"].map((inputBias, k) => inputBias + hBias[k]);
    for (let k = 0; k < 4 * hidden; k++) {
      const at = k * (width + hidden);
      this.weight.set(fromInput.subarray(k * width, (k + 1) * width), at);
      this.weight.set(fromH.subarray(k * hidden, (k + 1) * hidden), at + width);
    }
    this.mixtureWeight = weights["mixture.weight"];
    this.mixtureBias = weights["mixture.bias"];
    this.outcomeWeight = weights["outcome.weight"];
    this.outcomeBias = weights["outcome.bias"];
    this.input = new Float32Array(width + hidden);
    this.gates = new Float32Array(4 * hidden);
    this.mixture = new Float32Array(this.mixtureBias.length);
    this.outcome = new Float32Array(2);
    this.h = new Float32Array(hidden);
    this.c = new Float32Array(hidden);
  }

  forget() {
    this.h.fill(0);
    this.c.fill(0);
  }

  // Take in z and the action chosen on seeing it: h and c afterwards.
  remember(z, action) {
    const { h, c, input, gates } = this, hidden = h.length;
    input.set(z);
    input.set(action, z.length);
    input.set(h, z.length + action.length);
    affine(gates, 0, this.weight, this.bias, input, 0, input.length, 1, 0);
    for (let k = 0; k < hidden; k++) {
      const i = sigmoid(gates[k]), f = sigmoid(gates[hidden + k]);
      const g = Math.tanh(gates[2 * hidden + k]), o = sigmoid(gates[3 * hidden + k]);
      c[k] = f * c[k] + i * g;
      h[k] = o * Math.tanh(c[k]);
    }
  }

  // h, having taken in frame and action -> z of the next frame (in place), the reward expected,
  // and the probability that the race is over.
  imagine(z, luck, temperature) {
    const { h, mixture, outcome } = this, K = this.sizes.mixtures, count = z.length * K;
    affine(mixture, 0, this.mixtureWeight, this.mixtureBias, h, 0, h.length, 1, 0);
    affine(outcome, 0, this.outcomeWeight, this.outcomeBias, h, 0, h.length, 1, 0);
    for (let d = 0; d < z.length; d++) {
      let chosen = d * K, most = -Infinity;
      for (let k = d * K; k < (d + 1) * K; k++) {
        const chance = temperature === 0 ? mixture[k] : luck.gumbel[k] + mixture[k] / temperature;
        if (chance > most) {
          most = chance;
          chosen = k;
        }
      }
      z[d] = mixture[count + chosen];
      if (temperature > 0) {
        const sigma = Math.exp(clamp(mixture[2 * count + chosen], LEAST_LOG_SIGMA, MOST_LOG_SIGMA));
        z[d] += luck.normal[d] * sigma * Math.sqrt(temperature);
      }
    }
    this.reward = outcome[0];
    this.ended = sigmoid(outcome[1]);
  }
}

// ---- models/controller.py ---------------------------------------------------------------------

class Controller {
  constructor(parameters) {
    const width = parameters.length / 3 - 1;  // of [z, h]; after each row of weights, its bias
    this.weight = new Float32Array(3 * width);
    this.bias = new Float32Array(3);
    for (let k = 0, at = 0; k < 3; k++, at += width + 1) {
      this.weight.set(parameters.subarray(at, at + width), k * width);
      this.bias[k] = parameters[at + width];
    }
    this.features = new Float32Array(width);
  }

  // [z, h] -> action: steering -1..1, gas 0..1, brake 0..1.
  act(z, h, action) {
    this.features.set(z);
    this.features.set(h, z.length);
    affine(action, 0, this.weight, this.bias, this.features, 0, this.features.length, 1, 0);
    squash(action);
  }
}

function squash(action) {
  for (let i = 0; i < 3; i++) action[i] = Math.tanh(action[i]);
  action[1] = (action[1] + 1) / 2;
  action[2] = Math.max(action[2], 0);
}

// ---- utils/evolution/dreaming.py, with one dream, in which anybody may drive -------------------

const PACE_KEPT = 0.95;  // of the average reward in each frame, so that it looks back 20 frames
const LOST = 0.15;  // points a frame; below it the road is lost

class Dream {
  constructor({ sizes, dreaming_sizes, starts, seen, table, numbers }) {
    const named = tensors(table, halves(numbers));
    const of = (network) => Object.fromEntries(
      Object.keys(named).filter((name) => name.startsWith(network + "."))
        .map((name) => [name.slice(network.length + 1), named[name]]),
    );
    this.decoder = new Decoder(of("decoder"));
    this.memory = new World(of("rnn"), sizes);  // C reads its h
    this.world = dreaming_sizes ? new World(of("dreaming"), dreaming_sizes) : this.memory;
    this.controller = new Controller(named.controller);
    this.starts = starts;
    this.seen = seen;  // frames of each start that there are, after as many zeros as are missing
    this.mu = named["starts.mu"];
    this.actions = named["starts.action"];
    this.z = new Float32Array(sizes.latent_dim);
    this.action = new Float32Array(3);
    this.luck = new Luck(this.world.sizes);
    this.temperature = 1;
  }

  // warm_up: M sees the second before a real moment, and the dream goes on from there.
  begin(start) {
    const Z = this.z.length, frames = this.actions.shape[1];
    this.memory.forget();
    this.world.forget();
    for (let t = frames - this.seen[start]; t <= frames; t++) {
      const at = start * (frames + 1) + t, did = (start * frames + t) * 3;
      this.z.set(this.mu.subarray(at * Z, (at + 1) * Z));
      if (t < frames) this.remember(this.actions.subarray(did, did + 3));
    }
    this.action.fill(0);
    this.frame = 0;
    this.reward = 0;
    this.return = 0;
    this.running = 1;  // probability that the race is not over yet
    this.pace = 1;
  }

  remember(action) {
    this.world.remember(this.z, action);
    if (this.memory !== this.world) this.memory.remember(this.z, action);
  }

  think() {
    this.controller.act(this.z, this.memory.h, this.action);
  }

  // A frame further, by this.action and this.luck.
  step() {
    this.remember(this.action);
    this.world.imagine(this.z, this.luck, this.temperature);
    this.reward = this.world.reward;
    this.return += this.reward;
    this.running *= 1 - this.world.ended;
    this.pace = PACE_KEPT * this.pace + (1 - PACE_KEPT) * this.reward;
    this.frame++;
  }
}

// ---- utils/drivers/keyboard.py ----------------------------------------------------------------

const MOST_BRAKE = 0.8;  // at 0.9 the wheels lock and the car no longer steers
const RATES = [0.08, 0.06, 0.06];  // how far steering, gas and brake move in a frame while held
const RELEASE_RATE = 0.2;
const KEYS = {
  ArrowLeft: "left", KeyA: "left", ArrowRight: "right", KeyD: "right",
  ArrowUp: "up", KeyW: "up", ArrowDown: "down", KeyS: "down",
};

class Driver {
  constructor(picture) {
    this.held = { left: false, right: false, up: false, down: false };
    this.finger = null;
    this.wanted = new Float32Array(3);
    const follow = (event) => {
      const box = picture.getBoundingClientRect();
      const x = (2 * (event.clientX - box.left)) / box.width - 1;
      const y = (2 * (event.clientY - box.top)) / box.height - 1;
      this.finger = { id: event.pointerId, x: clamp(1.5 * x, -1, 1), y: clamp(1.5 * y, -1, 1) };
    };
    const leave = (event) => {
      if (this.finger && event.pointerId === this.finger.id) this.finger = null;
    };
    picture.addEventListener("pointerdown", (event) => {
      picture.setPointerCapture(event.pointerId);
      if (!this.finger) follow(event);
    });
    picture.addEventListener("pointermove", (event) => {
      if (this.finger && event.pointerId === this.finger.id) follow(event);
    });
    picture.addEventListener("pointerup", leave);
    picture.addEventListener("pointercancel", leave);
    picture.addEventListener("contextmenu", (event) => event.preventDefault());  // a long touch
    window.addEventListener("keyup", (event) => {
      if (KEYS[event.code]) this.held[KEYS[event.code]] = false;
    });
    window.addEventListener("blur", () => this.release());
  }

  press(code) {
    this.held[KEYS[code]] = true;
  }

  release() {
    for (const side in this.held) this.held[side] = false;
    this.finger = null;
  }

  get drives() {
    const { left, right, up, down } = this.held;
    return left || right || up || down || this.finger !== null;
  }

  // The action one frame nearer to the wanted one: gently on, quickly off or back.
  act(action) {
    const { held, finger, wanted } = this;
    wanted[0] = finger ? finger.x : held.right - held.left;
    wanted[1] = finger ? Math.max(0, -finger.y) : +held.up;
    wanted[2] = MOST_BRAKE * (finger ? Math.max(0, finger.y) : +held.down);
    for (let i = 0; i < 3; i++) {
      const pressing = wanted[i] !== 0 && action[i] * wanted[i] >= 0;
      const rate = pressing ? RATES[i] : RELEASE_RATE;
      action[i] += clamp(wanted[i] - action[i], -rate, rate);
    }
  }
}

// ---- the page ---------------------------------------------------------------------------------

const FRAME = 1000 / 50;  // ms: CarRacing's own clock, whatever the display's is
const LATE = 5 * FRAME;  // the most that a slow moment makes up for
const RECENT = 250;  // frames of the reward's curve
const LEAST_REWARD = -0.5, MOST_REWARD = 2.5;  // what it spans: in a good lap a frame is worth 1.5
const WIDEST = 3;  // z's bars reach from -3 to 3
const PATIENCE = 150;  // frames until a road on which the agent has nothing to gain makes room
const LAP = 1000;  // points that all the tiles of a road are worth together
const MOST_IN_A_SECOND = 120;  // points; of real races the agent's best second has 102

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("page").textContent);
const dream = new Dream(page);
const driver = new Driver($("picture"));
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
let paused = calm, youDrive = false, overFor = 0;
let road = Math.floor(Math.random() * dream.starts);
let shownFrames = 0, shownSince = 0, rate = 50;

const rewards = new Float32Array(RECENT);
const picture = pixels("picture", dream.decoder.side);
const field = pixels("h", Math.ceil(Math.sqrt(dream.memory.h.length)));
const fieldColours = new Uint32Array(field.image.data.buffer), scale = new Uint32Array(256);
const z = drawing("z"), action = drawing("action"), reward = drawing("reward");
const colours = {};

function pixels(id, side) {
  const canvas = $(id);
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { alpha: id !== "picture" });
  return { context, image: context.createImageData(side, side) };
}

function drawing(id) {
  const canvas = $(id), drawn = { context: canvas.getContext("2d"), wide: 0, high: 0 };
  new ResizeObserver(() => {
    const ratio = window.devicePixelRatio || 1;
    drawn.wide = canvas.clientWidth;
    drawn.high = canvas.clientHeight;
    canvas.width = Math.round(drawn.wide * ratio);
    canvas.height = Math.round(drawn.high * ratio);
    drawn.context.scale(ratio, ratio);
    paint();
  }).observe(canvas);
  return drawn;
}

// The style sheet's colours, and between three of them what h's field is painted in.
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "faint", "line", "agent", "you", "low", "middle", "high"])
    colours[name] = style.getPropertyValue("--" + name).trim();
  const [low, middle, high] = [colours.low, colours.middle, colours.high].map((hex) =>
    [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  for (let i = 0; i < 256; i++) {
    const end = i < 128 ? low : high, far = Math.abs(i - 127.5) / 127.5;
    const [r, g, b] = middle.map((from, j) => Math.round(from + (end[j] - from) * far));
    scale[i] = 0xff000000 | (b << 16) | (g << 8) | r;
  }
}

function paint() {
  if (dream.frame === undefined) return;
  paintPicture();
  paintH();
  paintZ();
  paintAction();
  paintReward();
}

function paintPicture() {
  dream.decoder.decode(dream.z);
  const { data } = picture.image, { image } = dream.decoder;
  for (let i = 0, to = 0; i < image.length; to += 4) {
    data[to] = 255 * image[i++];
    data[to + 1] = 255 * image[i++];
    data[to + 2] = 255 * image[i++];
    data[to + 3] = 255;
  }
  picture.context.putImageData(picture.image, 0, 0);
}

function paintH() {
  const { h } = dream.memory;
  for (let k = 0; k < h.length; k++) fieldColours[k] = scale[Math.round(127.5 * (h[k] + 1))];
  field.context.putImageData(field.image, 0, 0);
}

function paintZ() {
  const { context, wide, high } = z, count = dream.z.length, step = wide / count, half = high / 2;
  context.clearRect(0, 0, wide, high);
  context.fillStyle = colours.line;
  context.fillRect(0, half - 0.5, wide, 1);
  context.fillStyle = colours.ink;
  for (let d = 0; d < count; d++) {
    const tall = (clamp(dream.z[d], -WIDEST, WIDEST) / WIDEST) * (half - 1);
    const top = half - Math.max(tall, 0) - 0.5;
    context.fillRect((d + 0.15) * step, top, 0.7 * step, Math.abs(tall) + 1);
  }
}

const CONTROLS = ["steering", "gas", "brake"];

function paintAction() {
  const { context, wide, high } = action, row = high / 3, label = 62, room = wide - label;
  context.clearRect(0, 0, wide, high);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (let i = 0; i < 3; i++) {
    const y = (i + 0.5) * row, zero = i ? label : label + room / 2, reach = i ? room : room / 2;
    context.fillStyle = colours.faint;
    context.fillText(CONTROLS[i], 0, y);
    context.fillStyle = colours.line;
    context.fillRect(label, y - 5, room, 10);
    context.fillStyle = youDrive ? colours.you : colours.agent;
    const long = dream.action[i] * reach;
    context.fillRect(zero + Math.min(long, 0), y - 5, Math.abs(long), 10);
    if (!i) context.fillRect(zero - 1, y - 8, 2, 16);
  }
}

function paintReward() {
  const { context, wide, high } = reward, unit = high / (MOST_REWARD - LEAST_REWARD);
  context.clearRect(0, 0, wide, high);
  context.fillStyle = colours.line;
  context.fillRect(0, MOST_REWARD * unit - 0.5, wide, 1);
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.5;
  context.beginPath();
  const first = Math.max(0, dream.frame - RECENT);
  for (let t = first; t < dream.frame; t++) {
    const points = clamp(rewards[t % RECENT], LEAST_REWARD, MOST_REWARD);
    context.lineTo(((t - first) / (RECENT - 1)) * wide, (MOST_REWARD - points) * unit);
  }
  context.stroke();
}

// What is written changes five times a second: nobody reads faster, and words take memory.
function write() {
  put("seconds", (dream.frame / 50).toFixed(1));
  put("return", dream.return.toFixed(0));
  put("running", (100 * dream.running).toFixed(0) + " %");
  put("rate", paused ? "–" : rate.toFixed(0));
  put("note", note());
}

function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function note() {
  if (paused && calm && dream.frame === 0)
    return "Paused, since your system asks for little motion. Space begins.";
  if (paused) return "Paused.";
  const next = youDrive ? "Enter begins another one." : "Another one begins in a moment.";
  if (dream.pace < LOST) return "The road is lost: M expects no more points here. " + next;
  if (dream.return > LAP)
    return "The dream has gone astray: no lap is worth 1000 points. " + next;
  if (inTheLastSecond() > MOST_IN_A_SECOND)
    return "The dream has gone astray: no car earns 120 points in a second.";
  if (dream.running < 0.5)
    return "By now M thinks the race is more likely over than not. The dream goes on all the same.";
  return "The second before was a real drive. All that you see now is imagined.";
}

function inTheLastSecond() {
  let points = 0;
  for (let t = Math.max(0, dream.frame - 50); t < dream.frame; t++) points += rewards[t % RECENT];
  return points;
}

function showDriver() {
  const drives = driver.drives;
  if (drives === youDrive) return;
  youDrive = drives;
  document.body.classList.toggle("you", youDrive);
  put("driver", youDrive ? "You drive" : "The agent drives");
}

function advance() {
  showDriver();
  if (youDrive) driver.act(dream.action);
  else dream.think();
  dream.luck.draw();
  dream.step();
  rewards[(dream.frame - 1) % RECENT] = dream.reward;
  const over = dream.pace < LOST || dream.return > LAP;
  overFor = over && !youDrive ? overFor + 1 : 0;
  if (overFor > PATIENCE) newRoad();
}

function newRoad() {
  road = (road + 1) % dream.starts;
  dream.begin(road);
  overFor = 0;
  paint();
  write();
}

function pause(wish) {
  paused = wish;
  $("pause").textContent = paused ? "Play" : "Pause";
  write();
}

let before = 0, due = 0;
function tick(now) {
  requestAnimationFrame(tick);
  live(now);
}

function live(now) {
  const waited = now - before;
  due = Math.min(due + waited, LATE);
  before = now;
  showDriver();
  if (paused) due = 0;
  if (paused || waited > 1000) [shownFrames, shownSince] = [0, now];  // no time in which to show any
  if (due < FRAME) return;
  for (; due >= FRAME; due -= FRAME) {
    advance();
    shownFrames++;
  }
  paint();
  if (now - shownSince > 1000) {
    rate = (1000 * shownFrames) / (now - shownSince);
    shownFrames = 0;
    shownSince = now;
  }
  if (dream.frame % 10 < 2) write();
}

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onSlider = event.target.id === "temperature", onButton = event.target.tagName === "BUTTON";
  if (KEYS[event.code] && !(onSlider && event.code.startsWith("Arrow"))) driver.press(event.code);
  else if (event.code === "Space" && !onButton && !event.repeat) pause(!paused);
  else if (event.key === "Enter" && !onButton && !event.repeat) newRoad();
  else return;
  event.preventDefault();
});
$("pause").addEventListener("click", () => pause(!paused));
$("road").addEventListener("click", newRoad);
$("temperature").addEventListener("input", setTemperature);
$("temperature").addEventListener("pointerup", (event) => event.target.blur());  // to drive again
function setTemperature() {
  dream.temperature = Number($("temperature").value);
  put("temperature-now", dream.temperature.toFixed(2));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  paint();
});

put("agent", page.agent);
put("weights", page.weights.toLocaleString("en"));
readColours();
setTemperature();
newRoad();
pause(paused);
requestAnimationFrame((now) => {
  before = shownSince = now;
  tick(now);
});
