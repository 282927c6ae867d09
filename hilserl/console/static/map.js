// The workspace from above and from the side: bounds, where the cube starts, the tool's path, the last episodes.
import { svg } from "./dom.js";

const WIDTH = 420, GAP = 22, MARGIN = 8;

export class WorkspaceMap {
  /** `hello` says the bounds [m]. */
  constructor(place, hello) {
    const [low, high] = [hello.workspace_min_m, hello.workspace_max_m];
    const pad = 0.02, spanX = high[0] - low[0] + 2 * pad, spanY = high[1] - low[1] + 2 * pad, spanZ = high[2] - low[2] + 2 * pad;
    const scale = Math.min((WIDTH - GAP - 2 * MARGIN) / (spanY + spanX), 700), height = Math.max(spanX, spanZ) * scale + 2 * MARGIN + 14;
    const left = MARGIN, right = MARGIN + spanY * scale + GAP, top = MARGIN + 14;
    this.above = (p) => [left + (high[1] + pad - p[1]) * scale, top + (high[0] + pad - p[0]) * scale];  // forward is up, left is left
    this.side = (p) => [right + (p[0] - low[0] + pad) * scale, top + (high[2] + pad - p[2]) * scale];   // forward is right, up is up
    this.root = svg("svg", { viewBox: `0 0 ${right + spanX * scale + MARGIN} ${height}`, class: "map", role: "img", "aria-label": "workspace with the tool's path" });
    const box = (view, a, b, name) => { const [x1, y1] = view(a), [x2, y2] = view(b); return svg("rect", { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x1 - x2), height: Math.abs(y1 - y2), class: name }); };
    this.cubes = svg("g", {});
    this.paths = [svg("path", { class: "path" }), svg("path", { class: "path" })];
    this.tools = [svg("circle", { r: 5, class: "tool" }), svg("circle", { r: 5, class: "tool" })];
    this.root.append(box(this.above, low, high, "bounds"), box(this.side, low, high, "bounds"));
    if (hello.cube_x_m && hello.cube_y_m) this.root.append(box(this.above, [hello.cube_x_m[0], hello.cube_y_m[0], 0], [hello.cube_x_m[1], hello.cube_y_m[1], 0], "start"));
    const label = (x, text) => { const made = svg("text", { x, y: MARGIN + 6 }); made.textContent = text; return made; };
    this.root.append(this.cubes, ...this.paths, ...this.tools, label(left, "from above, forward is up"), label(right, "from the side"));
    this.bounds = [low, high];
    place.replaceChildren(this.root);
  }

  /** Show a path, [[x, y, z], ...] in m, and the tool at its end. */
  path(points, isHuman = false) {
    [this.above, this.side].forEach((view, number) => {
      this.paths[number].setAttribute("d", points.map((point, index) => `${index ? "L" : "M"}${view(point).map((value) => value.toFixed(1)).join(" ")}`).join(""));
      const last = points.at(-1), tool = this.tools[number];
      tool.setAttribute("visibility", last ? "visible" : "hidden");
      if (!last) return;
      const [x, y] = view(last);
      tool.setAttribute("cx", x);
      tool.setAttribute("cy", y);
      tool.setAttribute("class", `tool${isHuman ? " human" : ""}${this.isAtBound(last) ? " edge" : ""}`);
    });
  }

  isAtBound(point) { return point.some((value, axis) => value < this.bounds[0][axis] + 0.002 || value > this.bounds[1][axis] - 0.002); }

  /** Show where the cube was in the last episodes, and what became of it. */
  starts(episodes) {
    this.cubes.replaceChildren(...episodes.filter((episode) => episode.cube_m).map((episode) => {
      const [x, y] = this.above(episode.cube_m), size = 4;
      const mark = episode.success ? svg("circle", { cx: x, cy: y, r: size, class: "cube success" }) : svg("path", { d: `M${x - size} ${y - size}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}`, class: "cube failure" });
      const title = svg("title", {});
      title.textContent = `episode ${episode.number}: ${episode.success ? "success" : "no success"}`;
      mark.append(title);
      return mark;
    }));
  }
}
