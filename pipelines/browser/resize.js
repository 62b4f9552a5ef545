// The resize of embedpipe in JavaScript: the same bytes as torch's antialiased kernels for uint8, which follow Pillow's.
const FILTERS = {
  bilinear: [1, x => Math.max(0, 1 - x)],
  bicubic: [2, x => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0)],
}

// The pixels that a network takes, RGB, of an upright photo {width, height, data} with channels R, G, B and one more.
export function resize(photo, {resize: [side, across], crop: [height, width], fit, crop_rounding, interpolation}) {
  const short = Math.min(photo.width, photo.height), scaled = length => Math.trunc((side * length) / short)
  const [h, w] = across ? [side, across] : [scaled(photo.height), scaled(photo.width)]
  if (!(interpolation in FILTERS) || (across && fit !== "squash") || h < height || w < width)
    throw new Error(`this resize is not written in JavaScript: ${interpolation}, ${fit}, ${[h, w]} to ${[height, width]}`)
  const wide = scale(photo.data, photo.height, photo.width, 4, w, interpolation, 1)
  const all = scale(wide, photo.height, w, 3, h, interpolation, 0)
  const start = (length, kept) => {
    const half = (length - kept) / 2, down = Math.floor(half)
    return half - down === 0.5 && (crop_rounding === "even") ? down + (down % 2) : down
  }
  const top = start(h, height), left = start(w, width), pixels = new Uint8Array(height * width * 3)
  for (let row = 0; row < height; row++)
    pixels.set(all.subarray(((top + row) * w + left) * 3, ((top + row) * w + left + width) * 3), row * width * 3)
  return pixels
}

// Rows x columns with another number of columns (axis 1) or rows (axis 0): sums of bytes by 16-bit weights, rounded.
function scale(bytes, rows, columns, channels, length, name, axis) {
  const before = axis ? columns : rows, [radius, filter] = FILTERS[name]
  const step = before / length, wider = Math.max(step, 1), weights = []
  for (let place = 0; place < length; place++) {
    const centre = step * (place + 0.5)
    const first = Math.max(0, Math.trunc(centre - radius * wider + 0.5))
    const last = Math.min(before, Math.trunc(centre + radius * wider + 0.5))
    const taps = Array.from({length: last - first}, (_, tap) => filter(Math.abs(tap + first - centre + 0.5) * (step >= 1 ? 1 / step : 1)))
    const sum = taps.reduce((a, b) => a + b, 0)
    weights.push([first, taps.map(tap => tap / sum)])
  }
  const largest = weights.reduce((most, [, taps]) => taps.reduce((a, b) => Math.max(a, b), most), 0)
  let bits = 0
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++
  const [height, width] = axis ? [rows, length] : [length, columns]
  const result = new Uint8ClampedArray(height * width * 3)
  const along = axis ? channels : columns * channels, beside = axis ? columns * channels : channels
  for (let place = 0; place < length; place++) {
    const [first, taps] = weights[place]
    const whole = taps.map(tap => Math.trunc(tap * 2 ** bits + (tap < 0 ? -0.5 : 0.5)))
    for (let other = 0; other < (axis ? rows : columns); other++)
      for (let colour = 0; colour < 3; colour++) {
        let sum = 2 ** (bits - 1)
        for (let tap = 0; tap < whole.length; tap++)
          sum += whole[tap] * bytes[other * beside + (first + tap) * along + colour]
        result[((axis ? other : place) * width + (axis ? place : other)) * 3 + colour] = Math.floor(sum / 2 ** bits)
      }
  }
  return result
}
