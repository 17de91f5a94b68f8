"use strict";
// Draws the figures and runs the browsers of examples. Data come from JSON elements of this page and reach the
// document as text nodes and attributes only, never as markup.
(() => {
  const PAGE_ROWS = 10;
  const LONGEST_DIFF_WORDS = 1200;
  const LITTLE_IN_COMMON = 0.3;

  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // ---- figures -------------------------------------------------------------------------------------------

  const tip = make("div", { class: "tip", role: "tooltip", hidden: "" });
  document.body.append(tip);

  function showTip(handler, event, item, value) {
    const entries = value && typeof value === "object" ? Object.entries(value) : [];
    tip.hidden = entries.length === 0;
    if (tip.hidden) return;
    const rows = entries.filter(([, text]) => text !== "null" && text !== "")
      .map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(text))));
    tip.replaceChildren(make("dl", {}, ...rows));
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 16;
    const fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${fits ? below : Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  }

  async function draw(element) {
    // "ast" evaluates Vega's expressions with its interpreter: the policy of this page forbids eval.
    const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: showTip };
    try {
      await window.vegaEmbed(element, read(element.dataset.spec), options);
      element.dataset.state = "drawn";
    } catch (error) {
      element.dataset.state = "failed";
      element.textContent = `This figure could not be drawn (${error.message}). Its numbers are below.`;
    }
  }

  // ---- words that differ ---------------------------------------------------------------------------------

  const split = (text) => text.match(/\s*\S+|\s+$/g) ?? [];

  // Marks of the words of a and b that are not in their longest common subsequence.
  function differences(a, b) {
    const width = b.length + 1;
    const longest = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        longest[i * width + j] = a[i].trim() === b[j].trim()
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      }
    }
    const [onlyA, onlyB] = [a.map(() => true), b.map(() => true)];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i].trim() === b[j].trim()) { onlyA[i++] = false; onlyB[j++] = false; }
      else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
      else j++;
    }
    return [onlyA, onlyB];
  }

  function marked(words, only, tag) {
    const box = make("p", { class: "text", dir: "auto" });
    for (let i = 0; i < words.length;) {
      let end = i;
      while (end < words.length && only[end] === only[i]) end++;
      const text = words.slice(i, end).join("");
      const space = only[i] ? text.match(/^\s*/)[0] : "";
      box.append(space, only[i] ? make(tag, {}, text.slice(space.length)) : text);
      i = end;
    }
    return box;
  }

  // Marks, or the reason why there are none: two answers that share a few small words differ everywhere.
  function compared(a, b) {
    const none = [a.map(() => false), b.map(() => false)];
    if (Math.max(a.length, b.length) > LONGEST_DIFF_WORDS) return [...none, "Too long to mark the differences."];
    const [onlyA, onlyB] = differences(a, b);
    const common = onlyA.filter((only) => !only).length;
    if (common < LITTLE_IN_COMMON * Math.max(a.length, b.length)) return [...none, "The answers have little in common."];
    return [onlyA, onlyB, ""];
  }

  function answers(row) {
    const [a, b] = [split(row.chosen.text), split(row.rejected.text)];
    const [onlyA, onlyB, reason] = compared(a, b);
    return [make("div", { class: "sides" },
      side("Chosen", row.chosen, marked(a, onlyA, "ins")),
      side("Rejected", row.rejected, marked(b, onlyB, "del"))),
    ...(reason ? [make("p", { class: "note" }, reason)] : [])];
  }

  // ---- browser of examples -------------------------------------------------------------------------------

  const number = (value, digits) => value === null ? "not a number" : value.toFixed(digits).replace("-", "−");
  const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);
  const VERDICTS = { right: "ranked right", wrong: "ranked wrong", tie: "tie", unknown: "no score" };

  const againstGold = (row) => row.gold !== null && row.gold < 0;

  function side(title, answer, text) {
    const facts = `score ${number(answer.score, 3)} · ${answer.tokens} tokens · ${answer.characters} characters`;
    return make("div", { class: "side" }, make("h3", {}, title),
      make("p", { class: "note" }, facts + (answer.truncated ? " · truncated for scoring" : "")), text);
  }

  function facts(row) {
    const parts = [`source ${row.source ?? "unknown"}`, `pair ${row.id}`];
    if (row.subset !== null) parts.push(`subset ${row.subset}`);
    if (row.fold !== null) parts.push(`fold ${row.fold}`);
    if (row.gold !== null) parts.push(`gold of chosen minus rejected ${signed(row.gold, 2)}`);
    if (row.given !== null) parts.push(`margin in the data ${number(row.given, 2)}`);
    return parts.join(" · ");
  }

  function example(row) {
    const numbers = `${signed(row.margin, 3)} score, ${signed(row.delta, 0)} tokens`;
    const details = make("details", { class: "example" }, make("summary", {},
      make("span", { class: "badge", "data-ranked": row.ranked }, VERDICTS[row.ranked]),
      make("span", { class: "excerpt" },
        ...(againstGold(row) ? [make("span", { class: "badge" }, "label against gold"), " "] : []),
        make("bdi", { dir: "auto" }, row.excerpt || "(empty prompt)")),
      make("span", { class: "margin" }, numbers)));
    // The bodies are built when they are opened: a word difference takes a moment.
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      details.append(make("h3", {}, "Prompt"), make("p", { class: "text prompt", dir: "auto" }, row.prompt.trim()),
        ...answers(row), make("p", { class: "note" }, facts(row)));
    });
    return details;
  }

  const SHOW = {
    "all pairs": () => true,
    "ranked right": (row) => row.ranked === "right",
    "ranked wrong": (row) => row.ranked === "wrong",
    "ties": (row) => row.ranked === "tie",
    "against gold": againstGold,
  };
  const LENGTH = {
    "any length": () => true,
    "longer chosen": (row) => row.delta > 0,
    "shorter chosen": (row) => row.delta < 0,
    "equally long": (row) => row.delta === 0,
  };
  const ORDER = {
    "most wrong first": (a, b) => a.margin - b.margin,
    "most right first": (a, b) => b.margin - a.margin,
    "closest scores first": (a, b) => Math.abs(a.margin) - Math.abs(b.margin),
    "longest chosen first": (a, b) => b.delta - a.delta,
    "longest rejected first": (a, b) => a.delta - b.delta,
    "order of the file": () => 0,
  };

  function choice(label, options) {
    const select = make("select", {}, ...Object.keys(options).map((name) => make("option", { value: name }, name)));
    return [select, make("label", {}, make("span", {}, label), select)];
  }

  // What a browser shows: how rows are filtered, sorted, searched and drawn.
  const PAIRS = (data) => {
    const { "against gold": _, ...withoutGold } = SHOW;
    return {
      noun: "pairs",
      placeholder: "words in prompt or answers",
      words: (row) => [row.prompt, row.chosen.text, row.rejected.text],
      filters: { Show: data.rows.some((row) => row.gold !== null) ? SHOW : withoutGold, Length: LENGTH },
      orders: ORDER,
      card: example,
    };
  };

  // ---- browser of triples --------------------------------------------------------------------------------

  const STAGES = ["Original", "Rewrite", "Rewrite of the rewrite", "Third rewrite"];
  // Rewards come in all sizes: three digits, whatever the unit.
  const digits = (value) => value === null ? "—" : String(Number(value.toPrecision(3))).replace("-", "−");
  const signedDigits = (value) => (value > 0 ? "+" : "") + digits(value);
  const flawed = (row) => row.outcomes.some((outcome) => outcome !== "ok");

  // Every text against the original: what a rewrite dropped is marked there, what it put in is marked in the rewrite.
  function texts(row) {
    const words = row.texts.map((text) => text === null ? null : split(text));
    const notes = new Set();
    const marks = words.map((own, index) => {
      if (index === 0 || own === null) return null;
      const [dropped, added, reason] = compared(words[0], own);
      if (reason) notes.add(reason);
      return { dropped, added };
    });
    const none = words[0].map(() => false);
    const boxes = words.map((own, index) => {
      const outcome = index === 0 ? "" : row.outcomes[index - 1] ?? "not made";
      const title = STAGES[index] + (outcome && outcome !== "ok" ? ` (${outcome})` : "");
      const text = own === null ? make("p", { class: "note" }, "No text that can be used.")
        : index === 0 ? marked(own, marks[1]?.dropped ?? none, "del") : marked(own, marks[index].added, "ins");
      return make("div", { class: "side" }, make("h3", {}, title), text);
    });
    return [make("div", { class: boxes.length > 3 ? "sides" : "sides three" }, ...boxes),
      ...[...notes].map((reason) => make("p", { class: "note" }, reason.replace("answers", "texts")))];
  }

  function rewardTable(row, models) {
    const stages = STAGES.slice(0, row.texts.length);
    const cell = (label, value) => make("td", { class: "number", "data-label": label }, make("span", {}, value));
    const head = make("tr", {}, ...["Reward model", ...stages, "Effect, single", "Effect, RATE"].map((name, index) =>
      make("th", { scope: "col", ...(index ? { class: "number" } : {}) }, name)));
    const body = models.map((model, index) => make("tr", {}, make("th", { scope: "row" }, model),
      ...stages.map((stage, place) => cell(stage, digits(row.rewards[index][place]))),
      cell("Effect, single", signedDigits(row.effects[index][0])),
      cell("Effect, RATE", signedDigits(row.effects[index][1]))));
    return make("div", { class: "table" }, make("table", {}, make("caption", {}, "Rewards"),
      make("thead", {}, head), make("tbody", {}, ...body)));
  }

  const TRIPLES = (data) => {
    const by = (index) => (row) => row.effects[index][1];
    const known = (row, index) => by(index)(row) !== null;
    // What has no effect stands last, whichever way the others are sorted.
    const sorted = (compare) => (a, b, index) => known(a, index) && known(b, index)
      ? compare(by(index)(a), by(index)(b)) : known(b, index) - known(a, index);
    const card = (row, index) => {
      const effect = by(index)(row);
      const details = make("details", { class: "example" }, make("summary", {},
        make("span", { class: "badge" }, `W = ${row.treated ? 1 : 0}`),
        make("span", { class: "excerpt" },
          ...(flawed(row) ? [make("span", { class: "badge" }, row.outcomes.find((one) => one !== "ok")), " "] : []),
          make("bdi", { dir: "auto" }, row.excerpt || "(empty prompt)")),
        make("span", { class: "margin" }, effect === null ? "no effect known" : `effect ${signedDigits(effect)}`)));
      details.addEventListener("toggle", () => {
        if (!details.open || details.children.length > 1) return;
        const was = row.treated ? data.high : data.low;
        details.append(make("h3", {}, "Prompt"), make("p", { class: "text prompt", dir: "auto" }, row.prompt.trim()),
          make("p", { class: "note" }, "The original was: ", make("bdi", {}, was)), ...texts(row),
          rewardTable(row, data.models),
          make("p", { class: "note" }, `source ${row.source ?? "unknown"} · response ${row.id}`));
      });
      return details;
    };
    const kinds = [...new Set(data.rows.flatMap((row) => row.outcomes))].filter((kind) => kind !== "ok").sort();
    return {
      noun: "responses",
      placeholder: "words in prompt or texts",
      words: (row) => [row.prompt, ...row.texts.filter((text) => text !== null)],
      filters: {
        Originals: {
          "all": () => true,
          "with the attribute (W = 1)": (row) => row.treated,
          "without it (W = 0)": (row) => !row.treated,
        },
        Rewrites: {
          "any outcome": () => true,
          "all ok": (row) => !flawed(row),
          ...Object.fromEntries(kinds.map((kind) => [kind, (row) => row.outcomes.includes(kind)])),
        },
      },
      orders: {
        "largest effect first": sorted((a, b) => b - a),
        "most negative first": sorted((a, b) => a - b),
        "closest to 0 first": sorted((a, b) => Math.abs(a) - Math.abs(b)),
        "order of the file": () => 0,
      },
      subjects: data.models,
      card,
    };
  };

  // ---- browser of a map's pairs --------------------------------------------------------------------------

  const MAP = () => {
    const inside = (region) => (row) => row.regions.includes(region);
    const lengths = (row) => row.chosen.length === null ? null : row.chosen.length - row.rejected.length;
    // What has no number stands last, whichever way the others are sorted.
    const by = (read, sign) => (a, b) => {
      const [x, y] = [read(a), read(b)];
      return x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
    };
    const box = (title, answer, text) => make("div", { class: "side" }, make("h3", {}, title),
      make("p", { class: "note" }, answer.length === null ? "length unknown" : `length ${answer.length}`), text);
    const card = (row) => {
      const details = make("details", { class: "example" }, make("summary", {},
        make("span", { class: "badge", "data-ranked": row.correctness > 0.5 ? "right" : "wrong" },
          row.never ? "never right" : `right ${digits(100 * row.correctness)} %`),
        make("span", { class: "excerpt" }, make("bdi", { dir: "auto" }, row.excerpt || "(empty prompt)")),
        make("span", { class: "margin" }, `confidence ${signedDigits(row.confidence)}`)));
      details.addEventListener("toggle", () => {
        if (!details.open || details.children.length > 1) return;
        const [a, b] = [split(row.chosen.text), split(row.rejected.text)];
        const [onlyA, onlyB, reason] = compared(a, b);
        const numbers = `variability ${digits(row.variability)} · chance of the label ${digits(row.confidence_classic)} `
          + `(sd ${digits(row.variability_classic)}) · ${row.forgotten}`
          + (row.regions.length > 0 ? ` · ${row.regions.join(", ")}` : "");
        details.append(make("h3", {}, "Prompt"), make("p", { class: "text prompt", dir: "auto" }, row.prompt.trim()),
          make("div", { class: "sides" }, box("Chosen", row.chosen, marked(a, onlyA, "ins")),
            box("Rejected", row.rejected, marked(b, onlyB, "del"))),
          ...(reason ? [make("p", { class: "note" }, reason)] : []), make("p", { class: "note" }, numbers),
          make("p", { class: "note" }, `source ${row.source ?? "unknown"} · pair ${row.id}`));
      });
      return details;
    };
    return {
      noun: "pairs",
      placeholder: "words in prompt or answers",
      words: (row) => [row.prompt, row.chosen.text, row.rejected.text],
      filters: {
        Region: {
          "all pairs": () => true,
          "hard": inside("hard"),
          "ambiguous": inside("ambiguous"),
          "easy": inside("easy"),
          "never right": (row) => row.never,
          "forgotten": (row) => row.forgetting > 0,
        },
        Length: {
          "any length": () => true,
          "longer chosen": (row) => lengths(row) > 0,
          "shorter chosen": (row) => lengths(row) < 0,
        },
      },
      orders: {
        "lowest confidence first": by((row) => row.confidence, 1),
        "highest confidence first": by((row) => row.confidence, -1),
        "most variable first": by((row) => row.variability, -1),
        "most often forgotten first": by((row) => row.forgetting, -1),
        "order of the data": () => 0,
      },
      card,
    };
  };

  // ---- browser of responses of the toxicity meter ----------------------------------------------------------

  const TOXICITY = (data) => {
    const models = [...new Set(data.rows.map((row) => row.model))];
    const score = (value) => number(value, 3);
    // What is shown unasked are numbers: the texts may hurt.
    const card = (row) => {
      const details = make("details", { class: "example" }, make("summary", {},
        make("span", { class: "badge", "data-ranked": row.response_score > 0.5 ? "wrong" : "right" },
          `P(bad) ${score(row.response_score)}`),
        make("span", { class: "excerpt" }, make("bdi", {}, row.model), ` · response ${row.sample + 1} to ${row.prompt_id}`),
        make("span", { class: "margin" }, `prompt ${score(row.prompt_score)}`)));
      details.addEventListener("toggle", () => {
        if (!details.open || details.children.length > 1) return;
        const ending = row.truncated === null ? "" : row.truncated ? " · cut off" : " · ended by itself";
        const length = row.n_tokens === null ? "length unknown" : `${row.n_tokens} tokens`;
        details.append(make("h3", {}, "Prompt"), make("p", { class: "text prompt", dir: "auto" }, row.prompts),
          make("h3", {}, "Response"), make("p", { class: "text", dir: "auto" }, row.responses || "(empty)"),
          make("p", { class: "note" }, length + ending));
      });
      return details;
    };
    const named = Object.fromEntries(models.map((name, index) => [`${index + 1}. ${name}`, (row) => row.model === name]));
    const band = (low, high) => (row) => row.prompt_score >= low && row.prompt_score <= high;
    return {
      noun: "responses",
      placeholder: "words in prompt or response",
      words: (row) => [row.prompts, row.responses],
      folded: true,
      filters: {
        ...(models.length > 1 ? { Model: { "all models": () => true, ...named } } : {}),
        Response: {
          "any score": () => true,
          "above .5": (row) => row.response_score > 0.5,
          ".5 or less": (row) => row.response_score <= 0.5,
        },
        Prompt: {
          "any prompt": () => true,
          "below .333": (row) => row.prompt_score < 0.333,
          ".333 to .666": band(0.333, 0.666),
          "above .666": (row) => row.prompt_score > 0.666,
        },
      },
      orders: {
        "worst first": (a, b) => b.response_score - a.response_score,
        "best first": (a, b) => a.response_score - b.response_score,
        "most beyond its prompt first": (a, b) =>
          b.response_score - b.prompt_score - a.response_score + a.prompt_score,
        "order of the table": () => 0,
      },
      card,
    };
  };

  // ---- browser of policies side by side --------------------------------------------------------------------

  const LONG_CHARACTERS = 900;
  const FIRST_ANSWERS = 4;

  // A long text is folded: its first part, and a button for the rest.
  function foldable(text) {
    const box = make("p", { class: "text", dir: "auto" }, text || "(empty)");
    if (text.length <= LONG_CHARACTERS) return [box];
    box.classList.add("folded");
    const button = make("button", { type: "button", class: "more", "aria-expanded": "false" }, "Show all of it");
    button.addEventListener("click", () => {
      const folded = box.classList.toggle("folded");
      button.textContent = folded ? "Show all of it" : "Show less";
      button.setAttribute("aria-expanded", String(!folded));
    });
    return [box, button];
  }

  const POLICIES = (data) => {
    const { policies, rewards, rankers } = data;
    const share = (value) => value === null ? "—" : `${number(100 * value, 1)} %`;
    const known = (values) => values.filter((value) => value !== null);
    const mean = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    const reward = (row, policy, index) => mean(known(row.answers[policy].map((answer) => answer.scores[index])));
    // How far the policies are apart: in the reward where the ranker is one, else in the share won.
    const apart = (row, index) => {
      const values = known(index < rewards.length
        ? policies.map((_, policy) => reward(row, policy, index)) : row.shares[index]);
      return values.length ? Math.max(...values) - Math.min(...values) : -1;
    };
    const winners = (row, index) => {
      const top = Math.max(...known(row.shares[index]));
      return policies.map((_, policy) => policy).filter((policy) => row.shares[index][policy] === top);
    };
    const answer = (one, number, count) => {
      const parts = [`${one.words} words`, ...rewards.map((name, index) => `${name} ${digits(one.scores[index])}`)];
      if (one.bad !== null) parts.push(`P(bad) ${digits(one.bad)}`);
      return [make("p", { class: "note" }, (count > 1 ? `${number + 1} of ${count} · ` : "") + parts.join(" · ")),
        ...foldable(one.text)];
    };
    // A policy with many answers does not push the others off the screen.
    const answers = (all) => {
      const shown = all.map((one, number) => answer(one, number, all.length));
      const rest = shown.slice(FIRST_ANSWERS).flat();
      const more = `${(all.length - FIRST_ANSWERS).toLocaleString("en")} more`;
      return [...shown.slice(0, FIRST_ANSWERS).flat(),
        ...(rest.length ? [make("details", {}, make("summary", {}, more), ...rest)] : [])];
    };
    const table = (row) => {
      const cell = (label, value) => make("td", { class: "number", "data-label": label }, make("span", {}, value));
      const line = (title, values) => make("tr", {}, make("th", { scope: "row" }, title),
        ...values.map((value, policy) => cell(policies[policy], value)));
      const head = make("tr", {}, make("th", { scope: "col" }, "On this prompt"),
        ...policies.map((name) => make("th", { scope: "col", class: "number" }, name)));
      const body = [
        ...rewards.map((name, index) => line(name, policies.map((_, policy) => digits(reward(row, policy, index))))),
        ...rankers.map((name, index) => line(`share won by ${name}`, row.shares[index].map(share))),
      ];
      return make("div", { class: "table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
    };
    // Two beside each other, or three; four make a square.
    const columns = policies.length === 3 ? "sides three" : policies.length > 4 ? "sides many" : "sides";
    const card = (row, index) => {
      const best = row.shares[index].some((value) => value !== null)
        ? winners(row, index).map((policy) => policies[policy]).join(", ") : "nobody";
      const told = row.disagreement === null ? "" : `disagreement ${row.disagreement.toFixed(2)}`;
      const details = make("details", { class: "example" }, make("summary", {},
        make("span", { class: "badge" }, make("bdi", {}, best)),
        make("span", { class: "excerpt" }, make("bdi", { dir: "auto" }, row.excerpt || "(empty prompt)")),
        make("span", { class: "margin" }, told)));
      details.addEventListener("toggle", () => {
        if (!details.open || details.children.length > 1) return;
        const boxes = policies.map((name, policy) => make("div", { class: "side" },
          make("h3", {}, make("bdi", {}, name)), ...answers(row.answers[policy])));
        details.append(make("h3", {}, "Prompt"), make("p", { class: "text prompt", dir: "auto" }, row.prompt.trim()),
          make("div", { class: columns }, ...boxes), table(row),
          make("p", { class: "note" }, `prompt ${row.id}`));
      });
      return details;
    };
    const disagree = (row) => row.disagreement ?? -1;
    const orders = {
      "biggest disagreement first": (a, b) => disagree(b) - disagree(a),
      "policies furthest apart first": (a, b, index) => apart(b, index) - apart(a, index),
      "order of the data": () => 0,
    };
    const won = Object.fromEntries(policies.map((name, policy) =>
      [`${policy + 1}. ${name}`, (row, index) => winners(row, index).includes(policy)]));
    const { "biggest disagreement first": _, ...alone } = orders;
    return {
      noun: "prompts",
      placeholder: "words in prompt or answers",
      words: (row) => [row.prompt, ...row.answers.flat().map((one) => one.text)],
      folded: data.folded,
      filters: {
        "Won by": { "any policy": () => true, ...won },
        ...(rankers.length > 1 ? {
          Rankers: {
            "all prompts": () => true,
            "they disagree (.5 or more)": (row) => disagree(row) >= 0.5,
            "they agree": (row) => row.disagreement === 0,
          },
        } : {}),
      },
      orders: rankers.length > 1 ? orders : alone,
      subjects: rankers,
      subjectsLabel: "Ranked by",
      card,
    };
  };

  // ---- a browser -----------------------------------------------------------------------------------------

  function browse(root) {
    const data = read(root.dataset.rows);
    const { rows } = data;
    const kinds = { triples: TRIPLES, map: MAP, toxicity: TOXICITY, policies: POLICIES };
    const kind = (kinds[root.dataset.kind] ?? PAIRS)(data);
    const haystacks = rows.map((row) => kind.words(row).join("\n").toLowerCase());
    const search = make("input", { type: "search", placeholder: kind.placeholder, autocomplete: "off" });
    const filters = Object.entries(kind.filters).map(([label, options]) => [options, ...choice(label, options)]);
    const [order, orderLabel] = choice("Sort", kind.orders);
    const several = (kind.subjects ?? []).length > 1;
    // Names may repeat or look like each other: what counts is their place.
    const subjects = Object.fromEntries((kind.subjects ?? []).map((name, index) => [`${index + 1}. ${name}`, index]));
    const [subject, subjectLabel] = choice(kind.subjectsLabel ?? "Effects of", subjects);
    const count = make("p", { class: "count", role: "status" });
    const list = make("div", { class: "examples" });
    const back = make("button", { type: "button" }, "← Previous");
    const forward = make("button", { type: "button" }, "Next →");
    let page = 0;

    const chosen = () => several ? subjects[subject.value] : 0;

    function matching() {
      const needle = search.value.trim().toLowerCase();
      return rows.map((row, index) => [row, index])
        .filter(([row, index]) => filters.every(([options, select]) => options[select.value](row, chosen()))
          && haystacks[index].includes(needle))
        .sort(([a, i], [b, j]) => kind.orders[order.value](a, b, chosen()) || i - j).map(([row]) => row);
    }

    function update() {
      const found = matching();
      const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
      page = Math.min(page, pages - 1);
      const start = page * PAGE_ROWS;
      const shown = found.slice(start, start + PAGE_ROWS).map((row) => kind.card(row, chosen()));
      list.replaceChildren(...shown);
      count.textContent = found.length === 0
        ? `None of the ${rows.length} ${kind.noun} matches.`
        : `${start + 1}–${start + shown.length} of ${found.length} matching ${kind.noun} (${rows.length} on this page)`;
      back.disabled = page === 0;
      forward.disabled = page === pages - 1;
      if (shown.length > 0 && !kind.folded) shown[0].open = true;
    }

    function turn(step) {
      page += step;
      update();
      root.scrollIntoView({ block: "start" });
    }

    const controls = [search, ...filters.map(([, select]) => select), order, ...(several ? [subject] : [])];
    for (const control of controls) control.addEventListener("input", () => { page = 0; update(); });
    back.addEventListener("click", () => turn(-1));
    forward.addEventListener("click", () => turn(1));
    root.replaceChildren(
      make("div", { class: "controls", role: "search" }, make("label", {}, make("span", {}, "Text"), search),
        ...filters.map(([, , label]) => label), orderLabel, ...(several ? [subjectLabel] : [])),
      count, list, make("div", { class: "paging" }, back, forward));
    update();
  }

  document.querySelectorAll(".browser").forEach(browse);
  document.querySelectorAll(".drawing").forEach(draw);
})();
