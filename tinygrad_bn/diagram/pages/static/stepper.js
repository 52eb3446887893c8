// Shows one of the scenes, and what is computed and lit by then. All numbers are in the page.
{
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const id = (name) => document.getElementById(name);
  const scenes = all(".scene");
  const lines = all(".code li");
  const links = all(".steps a");
  const wires = all(".graph .wire");
  const boxes = all(".graph .box");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const desk = matchMedia("(min-width: 901px)"); // the panes are beside each other
  const framed = location.protocol === "about:"; // in a notebook, where there is no address
  const turn = scenes.findIndex((scene) => scene.dataset.half === "backward");
  let now = 0;
  let timer = null; // while it plays
  let address = null; // while the address is about to change

  // The rows of a box with numbers: when each comes to be seen, and its running sums.
  const rows = boxes.flatMap((box) =>
    all(".column", box).flatMap((column, k) =>
      all(".row", column)
        .filter((row) => row.querySelector(".value, .state"))
        .map((row) => ({
          row,
          box: box.id,
          place: `${box.id}.${k}`,
          slope: row.classList.contains("backward"),
          states: all(".state", row),
        })),
    ),
  );
  const computed = new Set(scenes.map((scene) => scene.dataset.box));

  // What is shown while the pointer rests on a box: all that the scenes tell of it.
  const aboutOf = (box) => {
    const about = document.createElement("article");
    const title = document.createElement("h2");
    title.textContent = box.querySelector("title").textContent;
    const formula = all(`.scene[data-half="forward"][data-box="${box.id}"] math`);
    const table = document.createElement("table");
    table.append(...all(`tr[data-about~="${box.id}"]`).map((row) => row.cloneNode(true)));
    about.append(title, ...formula.map((math) => math.cloneNode(true)), table);
    return about;
  };
  const abouts = boxes.map(aboutOf);
  scenes[0].parentElement.append(...abouts);

  const showArticle = (article) => {
    for (const other of [...scenes, ...abouts]) other.hidden = other !== article;
    article.parentElement.scrollTop = 0;
  };

  const showRows = () => {
    const values = new Set();
    const slopes = new Map();
    for (const { dataset } of scenes.slice(0, now + 1)) {
      if (dataset.half === "forward") values.add(dataset.box);
      for (const write of dataset.writes?.split(" ") ?? []) {
        const [box, column, state] = write.split(".");
        slopes.set(`${box}.${column}`, Number(state));
      }
    }
    for (const { row, box, place, slope, states } of rows) {
      const seen = slope ? slopes.has(place) : values.has(box) || !computed.has(box);
      row.classList.toggle("off", !seen);
      states.forEach((state, k) => {
        if (k === (slopes.get(place) ?? 0)) state.removeAttribute("visibility");
        else state.setAttribute("visibility", "hidden");
      });
    }
  };

  const show = (k) => {
    now = Math.max(0, Math.min(scenes.length - 1, k));
    const { half, box, line, wires: lit = "" } = scenes[now].dataset;
    showArticle(scenes[now]);
    showRows();
    document.body.classList.toggle("backwards", half === "backward");
    boxes.forEach((one) => one.classList.toggle("now", one.id === box));
    wires.forEach((one) => one.classList.toggle("now", lit.split(" ").includes(one.id)));
    lines.forEach((one, i) => one.classList.toggle("now", String(i) === line));
    links.forEach((link, i) => {
      if (i === now) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
    });
    id("line").textContent = lines[line]?.textContent ?? "";
    id("step").value = now;
    id("position").value = `${now} / ${scenes.length - 1}`;
    const [heading, sentence] = links[now].closest("tr").cells;
    id("said").textContent = `${heading.textContent}: ${sentence.textContent}`;
    clearTimeout(address); // browsers refuse to change it very often
    if (!framed) address = setTimeout(() => history.replaceState(null, "", `#step=${now}`), 150);
    if (desk.matches) lines[line]?.scrollIntoView({ block: "nearest" });
    const behavior = still.matches ? "auto" : "smooth";
    id(box)?.scrollIntoView({ block: "nearest", inline: "nearest", behavior });
  };

  const pause = () => {
    clearInterval(timer);
    timer = null;
    id("play").setAttribute("aria-pressed", "false");
  };
  const tick = () => {
    if (now < scenes.length - 1) show(now + 1);
    if (now === scenes.length - 1) pause();
  };
  const play = () => {
    if (now === scenes.length - 1) show(0);
    id("play").setAttribute("aria-pressed", "true");
    timer = setInterval(tick, Number(id("speed").value));
  };
  const toggle = () => (timer === null ? play() : pause());
  const move = (k) => {
    pause();
    show(k);
  };

  id("first").onclick = () => move(0);
  id("back").onclick = () => move(now - 1);
  id("next").onclick = () => move(now + 1);
  id("last").onclick = () => move(scenes.length - 1);
  id("turn").onclick = () => move(turn);
  id("play").onclick = toggle;
  id("step").oninput = () => move(Number(id("step").value));
  id("speed").onchange = () => {
    if (timer !== null) {
      clearInterval(timer);
      timer = setInterval(tick, Number(id("speed").value));
    }
  };

  const keys = {
    ArrowRight: () => move(now + 1),
    ArrowLeft: () => move(now - 1),
    Home: () => move(0),
    End: () => move(scenes.length - 1),
    b: () => move(turn),
    " ": toggle,
  };
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    const own = target.closest?.("button, select, input, summary, a, .box");
    if (event.ctrlKey || event.altKey || event.metaKey || !(key in keys)) return;
    if (own?.matches("select, input") && key !== " " && key !== "b") return;
    if (own && !own.matches("input") && key === " ") return;
    event.preventDefault();
    keys[key]();
  });

  const asked = () => {
    const match = /^#step=(\d+)$/.exec(location.hash);
    return match ? Number(match[1]) : 0;
  };
  addEventListener("hashchange", () => move(asked()));
  links.forEach((link, k) =>
    link.addEventListener("click", (event) => {
      event.preventDefault();
      move(k);
    }),
  );

  // The nodes: one is in the order of Tab, the arrows ↑ and ↓ go from it to the others.
  const stepThrough = (box) => {
    const halves = now < turn ? ["forward"] : ["backward", "forward"];
    for (const half of halves) {
      const k = scenes.findIndex(({ dataset }) => dataset.box === box.id && dataset.half === half);
      if (k >= 0) return move(k);
    }
  };
  const focusOn = (k) => {
    const box = boxes[Math.max(0, Math.min(boxes.length - 1, k))];
    boxes.forEach((other) => other.setAttribute("tabindex", other === box ? 0 : -1));
    box.focus();
  };
  boxes.forEach((box, k) => {
    const about = abouts[k];
    const told = all("tr", about).map((row) => [...row.cells].map((cell) => cell.textContent));
    box.setAttribute("role", "button");
    box.setAttribute("tabindex", k ? -1 : 0);
    box.setAttribute("aria-label", told.map((cells) => cells.join(" = ")).join("; "));
    const enter = () => showArticle(about);
    const leave = () => showArticle(scenes[now]);
    box.addEventListener("mouseenter", enter);
    box.addEventListener("mouseleave", leave);
    box.addEventListener("focus", enter);
    box.addEventListener("blur", leave);
    box.addEventListener("click", () => stepThrough(box));
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) focusOn(k + step);
      else if (event.key === "Enter" || event.key === " ") stepThrough(box);
      else return;
      event.preventDefault();
    });
  });

  const steps = document.querySelector(".steps");
  steps.open = false;
  addEventListener("beforeprint", () => (steps.open = true));
  document.querySelector(".graph > .diagram").setAttribute("role", "group");
  document.querySelector(".controls").hidden = false;
  id("step").max = scenes.length - 1;
  show(asked());
  document.body.getBoundingClientRect(); // rows are hidden by now: they shall not fade out
  document.body.classList.add("ready");
}
