"use strict";
(() => {
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const number = cell => (cell && cell.dataset.v !== undefined ? Number(cell.dataset.v) : NaN);
  const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const short = value => {
    for (const [size, unit] of units) if (Math.abs(value) >= size) return +(value / size).toPrecision(3) + unit;
    return String(+value.toPrecision(3));
  };

  const tip = document.getElementById("tip");
  let shownFor = null;
  const hide = () => { if (shownFor) { tip.hidePopover(); shownFor = null; } };
  const show = (place, text) => {
    if (!tip.showPopover) return;
    hide();
    tip.textContent = text;
    tip.showPopover();
    shownFor = place;
    const box = place.getBoundingClientRect(), size = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(box.left, innerWidth - size.width - 8)) + "px";
    tip.style.top = (box.bottom + size.height + 8 > innerHeight ? Math.max(8, box.top - size.height - 6) : box.bottom + 6) + "px";
  };
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { passive: true });

  const setUp = section => {
    const table = section.querySelector("table.board");
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const said = section.querySelector(".said");
    const meanings = new Map([...section.querySelectorAll("dt")].map(dt => [dt.textContent, dt.nextElementSibling.textContent]));

    const sortBy = (place, ascending) => {
      const text = place === 1;
      const value = row => (text ? row.dataset.name : number(row.cells[place]));
      const order = rows.map((row, i) => [value(row), i, row]).sort(([a, i], [b, j]) => {
        if (text) return (ascending ? 1 : -1) * a.localeCompare(b) || i - j;
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b) || i - j;
        return (ascending ? a - b : b - a) || i - j;
      });
      body.append(...order.map(entry => entry[2]));
      heads.forEach((head, i) => head.setAttribute("aria-sort", i === place ? (ascending ? "ascending" : "descending") : "none"));
      said.textContent = "Sorted by " + heads[place].dataset.t + ", " + (ascending ? "ascending." : "descending.");
    };
    heads.forEach((head, place) => {
      head.querySelector(".sort").addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sortBy(place, now === "none" ? head.dataset.first === "up" : now === "descending");
      });
      const why = head.querySelector(".why");
      if (!why) return;
      const text = meanings.get(head.dataset.t) || head.dataset.t;
      why.addEventListener("click", () => (shownFor === why && !why.matches(":hover") ? hide() : show(why, text)));
      why.addEventListener("focus", () => show(why, text));
      why.addEventListener("blur", hide);
      head.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") show(why, text); });
      head.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
    });

    const words = section.querySelector("input[type=search]"), boxes = [...section.querySelectorAll("input[type=checkbox]")];
    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const without = boxes.filter(box => !box.checked).map(box => box.value);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every(word => text.includes(word)) || without.some(kind => row.dataset.kind.split(" ").includes(kind));
        count += !row.hidden;
      }
      said.textContent = count + " of " + rows.length + " rows.";
      draw();
    };
    words.addEventListener("input", filter);
    boxes.forEach(box => box.addEventListener("change", filter));

    const scroll = table.parentElement;
    const lay = () => {
      table.classList.remove("cards");
      table.classList.toggle("cards", table.offsetWidth > scroll.clientWidth + 1);
    };

    const chart = section.querySelector("svg.chart");
    const [up, along] = section.querySelectorAll(".axes select");
    const draw = () => {
      if (!chart) return;
      chart.replaceChildren();
      const width = chart.clientWidth || 640, height = chart.clientHeight || 416;
      const left = 58, right = width - 16, top = 12, bottom = height - 42;
      chart.setAttribute("viewBox", "0 0 " + width + " " + height);
      const points = rows.filter(row => !row.hidden).map(row => {
        const y = number(row.cells[up.value]);
        const x = along.value === "depth" ? Number(row.dataset.i) : number(row.cells[along.value]);
        return { x, y, e: Number(row.cells[up.value].dataset.e || 0), name: row.dataset.name, control: row.dataset.kind.includes("control") };
      }).filter(point => isFinite(point.x) && isFinite(point.y));
      if (!points.length) {
        chart.append(make("text", { x: left, y: height / 2 }, "Nothing to draw for these two."));
        return;
      }
      const xs = points.map(point => point.x);
      const log = along.value !== "depth" && Math.min(...xs) > 0 && Math.max(...xs) > 4 * Math.min(...xs);
      const range = values => {
        let low = Math.min(...values), high = Math.max(...values);
        const size = Math.max(Math.abs(low), Math.abs(high));
        if (high - low <= 1e-9 * size || high === low) { low -= 0.05 * size || 0.5; high += 0.05 * size || 0.5; }
        const margin = 0.08 * (high - low);
        return [low - margin, high + margin];
      };
      const scale = log ? Math.log10 : value => value;
      const [x0, x1] = range(xs.map(scale));
      const [y0, y1] = range(points.flatMap(point => [point.y - point.e, point.y + point.e]));
      const toX = value => left + (scale(value) - x0) / (x1 - x0) * (right - left);
      const toY = value => bottom - (value - y0) / (y1 - y0) * (bottom - top);
      const ticks = (low, high, count) => {
        const rough = (high - low) / count, base = 10 ** Math.floor(Math.log10(rough));
        const step = [1, 2, 5, 10].map(factor => factor * base).find(size => size >= rough);
        const found = [];
        for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(+(i * step).toPrecision(12));
        return found;
      };
      for (const y of ticks(y0, y1, 6)) {
        chart.append(make("line", { x1: left, x2: right, y1: toY(y), y2: toY(y) }));
        chart.append(make("text", { x: left - 6, y: toY(y) + 4, "text-anchor": "end" }, short(y)));
      }
      const marks = log ? [...new Set(xs)].sort((a, b) => a - b) : ticks(x0, x1, Math.max(2, width / 110));
      let last = -Infinity;
      for (const x of marks) {
        if (toX(x) - last < 60 || toX(x) < left || toX(x) > right || (along.value === "depth" && x !== Math.round(x))) continue;
        last = toX(x);
        chart.append(make("line", { x1: last, x2: last, y1: bottom, y2: bottom + 5 }));
        chart.append(make("text", { x: last, y: bottom + 18, "text-anchor": "middle" }, short(x)));
      }
      chart.append(make("line", { x1: left, x2: right, y1: bottom, y2: bottom }));
      const chosen = select => select.options[select.selectedIndex].textContent;
      chart.append(make("text", { x: right, y: height - 6, "text-anchor": "end" }, chosen(along) + (log ? " (log scale)" : "")));
      if (along.value === "depth") {
        const sorted = [...points].sort((a, b) => a.x - b.x);
        chart.append(make("path", { class: "join", d: "M" + sorted.map(point => toX(point.x) + " " + toY(point.y)).join("L") }));
      }
      const taken = points.map(point => [toX(point.x) - 6, toY(point.y) - 6, toX(point.x) + 6, toY(point.y) + 6]);
      for (const point of points) {
        const x = toX(point.x), y = toY(point.y);
        if (point.e) chart.append(make("line", { class: "error", x1: x, x2: x, y1: toY(point.y - point.e), y2: toY(point.y + point.e) }));
        const dot = make("circle", { cx: x, cy: y, r: points.length > 100 ? 3 : 5, class: point.control ? "control" : "" });
        dot.append(make("title", {}, point.name + ": " + chosen(up) + " " + short(point.y) + ", " + chosen(along) + " " + short(point.x)));
        chart.append(dot);
        const text = point.name.length > 30 ? point.name.slice(0, 14) + "\u2026" + point.name.slice(-14) : point.name;
        const wide = 6.6 * text.length;
        const tries = [[x + 9, y + 4], [x - 9 - wide, y + 4], [x - wide / 2, y - 10], [x - wide / 2, y + 19], [x + 7, y - 8], [x - 7 - wide, y + 17]];
        const place = tries.find(([a, b]) => a >= left && a + wide <= width && b - 11 >= 0 && b <= bottom
          && !taken.some(([p, q, r, s]) => a < r && a + wide > p && b - 11 < s && b + 2 > q));
        if (!place) continue;
        taken.push([place[0], place[1] - 11, place[0] + wide, place[1] + 2]);
        chart.append(make("text", { class: "label", x: place[0], y: place[1] }, text));
      }
    };
    if (chart) [up, along].forEach(select => select.addEventListener("change", draw));
    section.querySelectorAll(".controls").forEach(node => { node.hidden = false; });
    const redo = () => { lay(); draw(); };
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redo(); } });
    redo();
  };
  document.querySelectorAll("section.of-board").forEach(setUp);
})();
