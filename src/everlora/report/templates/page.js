"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("page-data"), texts = read("page-texts");
  const title = document.title.replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase().slice(0, 60);
  const make = (tag, text, kind) => {
    const one = document.createElement(tag);
    if (text !== undefined) one.textContent = text;
    if (kind) one.className = kind;
    return one;
  };

  // Downloads: made here of what the page shows, so that they need no server.
  const save = (name, content, kind) => {
    const link = make("a");
    link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (rows) => rows.map((row) => row.map((cell) => quoted(String(cell))).join(",")).join("\n") + "\n";
  const number = (text) => text.replace(/^−/, "-");
  const cells = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => number(cell.textContent.trim())));
  const standing = (drawn) => {
    const copy = drawn.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return new XMLSerializer().serializeToString(copy);
  };
  const picture = (drawn, name) => {
    const box = drawn.viewBox.baseVal, scale = 2;
    const image = new Image();
    image.onload = () => {
      const canvas = make("canvas");
      canvas.width = box.width * scale;
      canvas.height = box.height * scale;
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#ffffff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(`${name}.png`, blob));
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(standing(drawn));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const figure = button.closest("figure");
    if (button.dataset.save) {
      const drawn = figure.querySelector("svg"), name = `${title}-${figure.dataset.name}`;
      if (button.dataset.save === "svg") save(`${name}.svg`, standing(drawn), "image/svg+xml");
      else if (button.dataset.save === "png") picture(drawn, name);
      else save(`${name}.csv`, csv(cells(figure.querySelector("table"))), "text/csv");
    } else if (button.dataset.table) {
      const found = [...document.querySelectorAll(`table[data-name^="${button.dataset.table}"]`)];
      if (found.length) save(`${title}.csv`, found.map((one) => csv(cells(one))).join("\n"), "text/csv");
    } else if (button.dataset.file) {
      save(button.dataset.file, texts[button.dataset.file], "text/plain");
    } else if (button.id === "record") {
      save(`${title}.json`, JSON.stringify(data.record, null, 1), "application/json");
    } else if ("copy" in button.dataset) {
      const code = button.parentElement.querySelector("code");
      const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, () => getSelection().selectAllChildren(code));
      else getSelection().selectAllChildren(code);
    }
  });

  // The browser of answers.
  const browser = document.getElementById("browser");
  if (!browser || !data.answers) return;
  browser.hidden = false;
  const { strings, tasks } = data.answers, form = browser.querySelector("form"), PAGE = 25;
  const [head, body] = [browser.querySelector("thead"), browser.querySelector("tbody")];
  const field = (name) => form.elements[name];
  const options = (select, names) => select.replaceChildren(...names.map((name, k) => { const one = make("option", name); one.value = k; return one; }));
  options(field("task"), tasks.map((one) => one.name));
  let place = 0, rows = [];
  const right = (mark) => mark === "1" || (mark >= "f" && mark <= "j");
  const chosen = () => tasks[+field("task").value];
  const stages = () => options(field("after"), ["any task", ...chosen().stages.slice(1).map((one) => one.after)]);
  const fits = (task, k, fate, after, words) => {
    const marks = task.stages.map((one) => right(one.marks[k]));
    const last = marks[marks.length - 1];
    if (fate === "right" && !last) return false;
    if (fate === "wrong" && last) return false;
    if (fate === "lost" && (last || !marks.includes(true))) return false;
    if (fate === "gained" && !(last && marks[0] === false)) return false;
    if (after && !(marks[after - 1] && !marks[after])) return false;
    return !words || [...task.texts.slice(k, k + 1), task.targets[k], ...task.stages.map((one) => one.answers[k])].some((n) => strings[n].toLowerCase().includes(words));
  };
  const show = () => {
    const task = chosen(), shown = rows.slice(place, place + PAGE);
    const line = make("tr");
    const asked = task.texts.length ? ["text"] : [];
    for (const name of ["row", ...asked, "target", ...task.stages.map((one) => `after ${one.after}`)]) {
      const one = make("th");
      one.scope = "col";
      one.append(make("bdi", name));
      line.append(one);
    }
    head.replaceChildren(line);
    body.replaceChildren(...shown.map((k) => {
      const row = make("tr"), first = make("th", String(k));
      first.scope = "row";
      row.append(first);
      for (const [n, kind] of [...asked.map(() => [task.texts[k], "text"]), [task.targets[k]]]) {
        const cell = make("td", undefined, kind);
        cell.append(make("bdi", strings[n]));
        row.append(cell);
      }
      for (const one of task.stages) {
        const mark = one.marks[k], kind = mark === "1" ? "right" : mark === "0" ? "wrong" : "part";
        const cell = make("td", undefined, kind);
        cell.append(make("bdi", strings[one.answers[k]]));
        cell.title = kind === "part" ? "partly right" : kind;
        row.append(cell);
      }
      return row;
    }));
    const range = rows.length ? `${place + 1} to ${place + shown.length} of ` : "";
    document.getElementById("found").textContent = `${range}${rows.length.toLocaleString("en")} rows (${task.targets.length.toLocaleString("en")} in all)`;
    document.getElementById("before").disabled = place === 0;
    document.getElementById("later").disabled = place + PAGE >= rows.length;
  };
  const search = () => {
    const task = chosen(), fate = field("fate").value, after = +field("after").value, words = field("words").value.trim().toLowerCase();
    rows = task.targets.map((_, k) => k).filter((k) => fits(task, k, fate, after, words));
    place = 0;
    show();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => { if (event.target.name === "task") stages(); search(); });
  document.getElementById("before").addEventListener("click", () => { place -= PAGE; show(); });
  document.getElementById("later").addEventListener("click", () => { place += PAGE; show(); });
  document.getElementById("rows-csv").addEventListener("click", () => {
    const task = chosen(), heads = ["row", ...(task.texts.length ? ["text"] : []), "target", ...task.stages.flatMap((one) => [`after ${one.after}`, "right"])];
    const made = rows.map((k) => [k, ...task.texts.slice(k, k + 1).map((n) => strings[n]), strings[task.targets[k]], ...task.stages.flatMap((one) => [strings[one.answers[k]], one.marks[k]])]);
    save(`${title}-answers-${task.name}.csv`, csv([heads, ...made]), "text/csv");
  });
  stages();
  search();
})();
