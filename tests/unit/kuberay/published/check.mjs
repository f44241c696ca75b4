// In: objects as a JSON array on stdin. Out: what breaks their published schemas, a line each.
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { GRPCRoute, HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { VirtualService } from "@kubernetes-models/istio/networking.istio.io/v1";

const KINDS = { GRPCRoute, HTTPRoute, VirtualService };
const GROUPS = {
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api",
  "networking.istio.io/v1": "@kubernetes-models/istio",
};

// The schemas allow unknown fields, which the API server drops: their names are in the declarations.
function names(group) {
  const folder = fileURLToPath(new URL(`node_modules/${GROUPS[group]}/${group}/`, import.meta.url));
  const files = readdirSync(folder).filter((file) => file.endsWith(".d.ts"));
  const texts = files.map((file) => readFileSync(folder + file, "utf8"));
  return new Set(Array.from(texts.join("\n").matchAll(/"?(\w+)"?\??:/g), (found) => found[1]));
}

function* unknown(value, known) {
  if (Array.isArray(value)) for (const each of value) yield* unknown(each, known);
  else if (value !== null && typeof value === "object")
    for (const [key, each] of Object.entries(value)) {
      if (!known.has(key)) yield key;
      if (key !== "headers") yield* unknown(each, known);
    }
}

for (const each of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    new KINDS[each.kind](each).validate();
  } catch (error) {
    console.log(`${each.kind}: ${error.message}`);
  }
  for (const key of unknown(each.spec, names(each.apiVersion))) console.log(`${each.kind}: no field ${key}`);
}
