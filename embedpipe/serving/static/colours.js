// Ten hues that readers with colour-blindness can tell apart, for light and for dark paper; the rest is grey.

const LIGHT = ["#0077bb", "#ee7733", "#57761a", "#ec0e44", "#3aaadd", "#6515b7", "#f1ad16", "#a03c7a", "#8d2103", "#bf7b8d"];
const DARK = ["#4da6e0", "#f79a5e", "#92b84a", "#ff6385", "#7fd0f5", "#a877e6", "#f6c54e", "#d47fb4", "#c9694f", "#dba3b2"];
const dark = matchMedia("(prefers-color-scheme: dark)");

export const GREY = () => (dark.matches ? "#6a7178" : "#b4b4b0");
export const PLAIN = () => (dark.matches ? "#7fb4dc" : "#3b6fa0");
export const onTheme = (run) => dark.addEventListener("change", run);

/** The colour of a class by its place; those without a value, and those after the palette, are grey. */
export function classColour(place) {
  const palette = dark.matches ? DARK : LIGHT;
  return place >= 0 && place < palette.length ? palette[place] : GREY();
}

/** The colour of a number, 0 to 255. */
export function scaleColour(level) {
  const t = level / 255;
  const ends = dark.matches ? [[46, 66, 110], [247, 214, 110]] : [[222, 214, 190], [20, 62, 110]];
  return `rgb(${ends[0].map((low, i) => Math.round(low + t * (ends[1][i] - low))).join(",")})`;
}
