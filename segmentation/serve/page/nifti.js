/** Reading a .nii or .nii.gz, as the server writes them: what the slices and the comparison of two masks need. */

const TYPES = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array, 768: Uint32Array };
const RGB = 128;

/** Undo gzip if there is any. */
async function plain(buffer) {
  const start = new Uint8Array(buffer, 0, Math.min(2, buffer.byteLength));
  if (start[0] !== 0x1f || start[1] !== 0x8b) return buffer;
  return new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** What to read of a header, of NIfTI-1 or NIfTI-2 and in either byte order; `one` and `two` say where a field starts in each. */
function fieldsOf(bytes) {
  const view = new DataView(bytes);
  const sizes = bytes.byteLength < 352 ? [] : [true, false].map((little) => view.getInt32(0, little));
  const order = sizes.findIndex((size) => size === 348 || size === 540);
  if (order < 0 || bytes.byteLength < sizes[order]) throw new Error("not a NIfTI file");
  const [little, second] = [order === 0, sizes[order] === 540];
  return {
    little,
    type: view.getInt16(second ? 12 : 70, little),
    start: second ? Number(view.getBigInt64(168, little)) : view.getFloat32(108, little),
    size: (axis) => (second ? Number(view.getBigInt64(16 + 8 * axis, little)) : view.getInt16(40 + 2 * axis, little)),
    form: (one, two) => (second ? view.getInt32(two, little) : view.getInt16(one, little)),
    real: (one, two, nth) => (second ? view.getFloat64(two + 8 * nth, little) : view.getFloat32(one + 4 * nth, little)),
  };
}

/** From voxels to mm: the sform, else the qform, else the sizes of the voxels. */
function affineOf({ form, real }, spacing) {
  if (form(254, 348) > 0) return [0, 4, 8].map((row) => [0, 1, 2, 3].map((column) => real(280, 400, row + column)));
  const turned = form(252, 344) > 0;
  const [b, c, d, ...shift] = [0, 1, 2, 3, 4, 5].map((nth) => (turned ? real(256, 352, nth) : 0));
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const turn = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  const sizes = [spacing[0], spacing[1], turned && real(76, 104, 0) < 0 ? -spacing[2] : spacing[2]];
  return turn.map((row, axis) => [...row.map((part, nth) => part * sizes[nth]), shift[axis]]);
}

/**
 * Read a volume; its voxels stay as they are stored.
 * @returns {Promise<{size: number[], spacing: number[], values: TypedArray, rgb: boolean, affine: number[][]}>}
 *   x runs fastest; a colour picture has three values for each voxel; the affine leads from voxels to mm.
 */
export async function readNifti(buffer) {
  const bytes = await plain(buffer);
  const head = fieldsOf(bytes);
  const size = [1, 2, 3].map((axis) => (axis <= head.size(0) ? head.size(axis) : 1));
  const spacing = [1, 2, 3].map((axis) => Math.abs(head.real(76, 104, axis)) || 1);
  const rgb = head.type === RGB;
  const Type = TYPES[rgb ? 2 : head.type];
  if (!Type) throw new Error(`voxels of NIfTI type ${head.type} cannot be shown`);
  const width = Type.BYTES_PER_ELEMENT;
  const count = size[0] * size[1] * size[2] * (rgb ? 3 : 1);
  const own = head.start % width || !head.little ? bytes.slice(head.start, head.start + count * width) : bytes;
  if (!head.little && width > 1) {
    const all = new Uint8Array(own);
    for (let at = 0; at < all.length; at += width) all.subarray(at, at + width).reverse();
  }
  return { size, spacing, values: new Type(own, own === bytes ? head.start : 0, count), rgb, affine: affineOf(head, spacing) };
}

/** Middle of what a mask marks, in mm, or `null` where it marks nothing. */
export function middleOf({ size, values, affine }) {
  const sum = [0, 0, 0];
  let count = 0;
  for (let z = 0, at = 0; z < size[2]; z += 1) {
    for (let y = 0; y < size[1]; y += 1) {
      for (let x = 0; x < size[0]; x += 1, at += 1) {
        if (values[at] === 0) continue;
        sum[0] += x;
        sum[1] += y;
        sum[2] += z;
        count += 1;
      }
    }
  }
  return count ? affine.map((row) => row[3] + (row[0] * sum[0] + row[1] * sum[1] + row[2] * sum[2]) / count) : null;
}

/** Dice of each label between two masks on one grid, `null` where neither holds it; `null` in all where the grids differ. */
export function agreement(one, other, labels) {
  if (one.size.join() !== other.size.join()) return null;
  const most = Math.max(...labels) + 1;
  const [ours, theirs, both] = [0, 1, 2].map(() => new Float64Array(most));
  for (let at = 0; at < one.values.length; at += 1) {
    const [a, b] = [one.values[at], other.values[at]];
    ours[a] += 1;
    theirs[b] += 1;
    if (a === b) both[a] += 1;
  }
  return new Map(labels.map((value) => [value, ours[value] + theirs[value] ? (2 * both[value]) / (ours[value] + theirs[value]) : null]));
}
