// Success ranges [start, stop) of an episode, and what a key does to them. No page, no state.

/** From `frame` on it is success (or not), until the next change. */
export function paint(ranges, frame, frames, success) {
  const changes = ranges.flat().filter((edge) => edge > frame);
  const until = changes.length ? Math.min(...changes) : frames;
  const inside = contains(ranges, frame);
  if (success === inside) {  // it is so already: on until the change after, so that pressing again extends
    const later = changes.filter((edge) => edge > until);
    return set(ranges, frame, changes.length ? (later.length ? Math.min(...later) : frames) : frames, success);
  }
  return set(ranges, frame, until, success);
}

export function contains(ranges, frame) { return ranges.some(([start, stop]) => start <= frame && frame < stop); }

/** All edges, for jumping from one to the next. */
export function edges(ranges) { return ranges.flatMap(([start, stop]) => [start, stop - 1]).sort((a, b) => a - b); }

function set(ranges, from, to, success) {
  const kept = [];
  for (const [start, stop] of ranges) {
    if (start < from) kept.push([start, Math.min(stop, from)]);
    if (stop > to) kept.push([Math.max(start, to), stop]);
  }
  if (success) kept.push([from, to]);
  kept.sort((a, b) => a[0] - b[0]);
  const joined = [];
  for (const [start, stop] of kept) {
    const last = joined.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], stop); else joined.push([start, stop]);
  }
  return joined;
}
