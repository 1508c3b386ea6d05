"""The page at /docs: it reads /openapi.json and shows it. It is whole in itself and opens without a network."""

DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>sealpool scheduler</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}
details{border:1px solid #cdd6df;border-radius:6px;margin:.4rem 0}summary{cursor:pointer;padding:.45rem .7rem}
details>div{padding:.2rem 1rem 1rem}code,pre,textarea,input,select{font:13px/1.45 ui-monospace,monospace}
pre{background:#f3f6f9;padding:.7rem;overflow:auto;border-radius:6px;max-height:32rem}
textarea{width:100%;box-sizing:border-box}
b.m{display:inline-block;min-width:4.2rem;font:600 13px ui-monospace,monospace}.GET{color:#0b6e4f}.POST{color:#1d4ed8}
.PUT{color:#a15c00}.DELETE{color:#b3261e}label{display:block;margin:.3rem 0}
label span{display:inline-block;min-width:14rem}
h2{margin:1.6rem 0 .4rem}.dim{color:#5b6b7a}
@media (prefers-color-scheme:dark){body{background:#12181f;color:#dbe3ea}pre{background:#1b242d}
details{border-color:#33414e}
.GET{color:#5fd3a8}.POST{color:#8ab4ff}.PUT{color:#f0b25a}.DELETE{color:#ff8a80}.dim{color:#93a4b3}}
</style></head><body><h1>sealpool scheduler</h1><p id="about"></p>
<label><span>Token, where one is asked for</span><input id="token" type="password" size="48" autocomplete="off"></label>
<p class="dim">The document itself: <a href="openapi.json">openapi.json</a></p><main id="operations">…</main>
<h2>Schemas</h2><section id="schemas"></section>
<script>
"use strict";
const make = (name, properties = {}, ...inner) => {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...inner);
  return node;
};
const code = value => make("pre", {textContent: typeof value === "string" ? value : JSON.stringify(value, null, 2)});
const typeOf = schema => schema.$ref ? schema.$ref.split("/").pop()
  : schema.type === "array" ? typeOf(schema.items) + "[]"
  : schema.anyOf ? schema.anyOf.map(typeOf).join(" | ") : schema.type || "any";

function example(api, schema, depth = 0) {
  if (schema.$ref) return example(api, api.components.schemas[schema.$ref.split("/").pop()], depth);
  if (schema.anyOf) return example(api, schema.anyOf[0], depth);
  if (schema.enum) return schema.enum[0];
  if (schema.type === "array") return depth > 3 ? [] : [example(api, schema.items, depth + 1)];
  if (schema.type === "object") return depth > 3 ? {} : Object.fromEntries(
    Object.entries(schema.properties || {}).map(([name, one]) => [name, example(api, one, depth + 1)]));
  return {string: schema.pattern ? "0" : "", integer: 0, number: 0, boolean: false}[schema.type] ?? null;
}

function operation(api, path, method, about) {
  const inputs = {};
  const inner = make("div");
  for (const one of about.parameters || []) {
    inputs[one.name] = {where: one.in, input: make("input", {size: 32})};
    const told = make("span", {}, make("code", {textContent: one.name}), ` ${one.in}: ${typeOf(one.schema)}`);
    inner.append(make("label", {}, told, inputs[one.name].input));
  }
  const schema = about.requestBody?.content["application/json"]?.schema;
  const body = make("textarea", {rows: 8, placeholder: "{}"});
  if (schema) inner.append(make("p", {textContent: "Body: " + typeOf(schema)}), body, make("details", {},
    make("summary", {textContent: "Every field"}), code(example(api, schema))));
  const shown = code("");
  const send = make("button", {textContent: "Send", onclick: async () => {
    const headers = {}, query = new URLSearchParams();
    let address = path;
    for (const [name, {where, input}] of Object.entries(inputs)) {
      if (where === "path") address = address.replace(`{${name}}`, encodeURIComponent(input.value));
      else if (input.value && where === "query") query.append(name, input.value);
      else if (input.value && where === "header") headers[name] = input.value;
    }
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = "Bearer " + token;
    if (schema) headers["Content-Type"] = "application/json";
    const answer = await fetch(address + (query.size ? "?" + query : ""),
      {method: method.toUpperCase(), headers, body: schema ? body.value || "{}" : undefined});
    shown.textContent = answer.status + " " + answer.statusText + "\\n";
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; reader && !(part = await reader.read()).done;) shown.textContent += part.value;
    try {
      const [line, ...rest] = shown.textContent.split("\\n");
      shown.textContent = line + "\\n" + JSON.stringify(JSON.parse(rest.join("\\n")), null, 2);
    } catch { /* events, or nothing */ }
  }});
  const answers = make("ul");
  for (const [status, one] of Object.entries(about.responses)) {
    const told = Object.values(one.content || {})[0]?.schema;
    const type = status < "300" && told ? " — " + typeOf(told) : "";
    answers.append(make("li", {}, make("code", {textContent: status}), ` ${one.description ?? ""}${type}`));
  }
  inner.append(make("p", {}, send), shown, make("p", {textContent: "Answers"}), answers);
  const name = make("b", {className: "m " + method.toUpperCase(), textContent: method.toUpperCase()});
  return make("details", {}, make("summary", {}, name, make("code", {textContent: path}), " ",
    make("span", {className: "dim", textContent: about.summary ?? ""})), inner);
}

fetch("openapi.json").then(answer => answer.json()).then(api => {
  document.getElementById("about").textContent = api.info.description ?? "";
  const sections = {};
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, about] of Object.entries(methods)) {
    const tag = about.tags?.[0] ?? "Service";
    (sections[tag] ??= make("section", {}, make("h2", {textContent: tag}))).append(operation(api, path, method, about));
  }
  document.getElementById("operations").replaceChildren(...Object.values(sections));
  for (const [name, schema] of Object.entries(api.components.schemas).sort())
    document.getElementById("schemas").append(make("details", {}, make("summary", {textContent: name}), code(schema)));
});
</script></body></html>
"""
