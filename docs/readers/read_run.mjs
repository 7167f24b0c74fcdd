// Read a run with h5wasm: `npm install h5wasm`, then `node read_run.mjs RUN` checks digests and identity, and prints a
// line for each sample. In a browser the same calls read a shard that was dropped into it; run.h5 alone is empty there.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import h5wasm from "h5wasm/node";

const KNOWN_SCHEMAS = [1, 2];
const TOLERANCE = { fp32: 1e-4, tf32: 5e-3, bf16: 5e-2, fp16: 1e-2 };

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

function refuse(path, reason) {
  console.error(`${path}: ${reason}`);
  process.exit(1);
}

// A document's digest is that of its text without spaces between tokens and without itself; parsing and writing it
// again would not do, as JavaScript writes 1.0 as 1.
function readDocument(path) {
  const text = readFileSync(path, "utf8");
  const lines = text.split("\n").map((line) => line.replace(/^ *("(?:[^"\\]|\\.)*":) /, "$1").replace(/^ +/, ""));
  const digest = lines.find((line) => line.startsWith('"document_sha256":')) ?? "";
  const bare = lines.filter((line) => line !== digest).join("");
  if (digest.replace(",", "") !== `"document_sha256":"${sha256(bare)}"`) refuse(path, "changed after it was written");
  return JSON.parse(text);
}

// The shards in their order, each of which has the recorded SHA-256.
function checkDigests(run, manifest) {
  const folder = join(run, "shards");
  const names = readdirSync(folder).filter((name) => /^shard-\d+\.h5$/.test(name));
  names.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  const lines = names.map((name) => `${sha256(readFileSync(join(folder, name)))}  ${name}\n`);
  let stated = manifest.shards;
  if (Array.isArray(stated)) { // earlier versions
    const recorded = stated.map((each) => `${each.sha256}  ${each.file}\n`);
    stated = { count: recorded.length, sha256: sha256(recorded.join("")) };
  }
  if (names.length !== stated.count || sha256(lines.join("")) !== stated.sha256)
    refuse(folder, "not the shards that manifest.json states");
  return names.map((name) => join(folder, name));
}

// Whether the mean of each CAM, the bias and the offset make the logit, "-" where nothing says so.
function identityOf(arrays, row, plan) {
  const classes = plan.class_names.length;
  const maps = arrays.cam_class.length / arrays.status.length;
  const cells = plan.grid_size[0] * plan.grid_size[1];
  const logits = arrays.logits.subarray(row * classes, (row + 1) * classes);
  let gap = NaN;
  for (let m = row * maps; m < (row + 1) * maps; m++) {
    const k = Number(arrays.cam_class[m]);
    if (k < 0) continue;
    const sum = arrays.cams.subarray(m * cells, (m + 1) * cells).reduce((total, cell) => total + cell, 0);
    const off = Math.abs(sum / cells + arrays["classifier/bias"][k] + (arrays.offset?.[m] ?? 0) - logits[k]);
    gap = Number.isNaN(gap) || Number.isNaN(off) || off > gap ? off : gap;
    if (Number.isNaN(gap)) break;
  }
  if (!plan.identity || !Number.isFinite(gap)) return "-";
  return gap <= TOLERANCE[plan.precision] * logits.reduce((a, b) => Math.max(a, Math.abs(b)), 1) ? "holds" : "FAILS";
}

function printRows(path, plan, runId) {
  const file = new h5wasm.File(path, "r");
  if (file.attrs.run_id.value !== runId) refuse(path, "of another run");
  const names = ["sample_index", "sample_id", "label", "prediction", "confidence", "status", "cam_class", "cams", "logits"];
  const wanted = [...names, "classifier/bias", ...(file.keys().includes("offset") ? ["offset"] : [])];
  const arrays = Object.fromEntries(wanted.map((name) => [name, file.get(name).value]));
  file.close();
  const named = (k) => (k >= 0n ? plan.class_names[Number(k)] : "-");
  let held = true;
  for (let row = 0; row < arrays.status.length; row++) {
    const [confidence, identity] = [arrays.confidence[row], identityOf(arrays, row, plan)];
    const told = Number.isFinite(confidence) ? confidence.toFixed(6) : "-";
    const classes = [named(arrays.label[row]), named(arrays.prediction[row])];
    const fields = [arrays.sample_index[row], arrays.sample_id[row], ...classes, told, identity, arrays.status[row]];
    console.log(fields.map((field) => String(field).replace(/[\x01-\x1f\x7f]/g, "?")).join("\t"));
    held &&= identity !== "FAILS";
  }
  return held;
}

await h5wasm.ready;
const run = process.argv[2];
const [document, manifest] = ["run.json", "manifest.json"].map((name) => readDocument(join(run, name)));
const { plan, run_id: runId } = document;
if (!KNOWN_SCHEMAS.includes(plan.schema_version)) refuse(run, `schema ${plan.schema_version}; this reads ${KNOWN_SCHEMAS}`);
if (manifest.run_id !== runId) refuse(run, "run.json and manifest.json are of two runs");
const shards = checkDigests(run, manifest);
console.log(["index", "id", "label", "prediction", "confidence", "identity", "status"].join("\t"));
process.exitCode = shards.map((path) => printRows(path, plan, runId)).every(Boolean) ? 0 : 1;
