/** Reading a .nii or .nii.gz, as the server writes them: what the slices and the comparison of two masks need. */

const TYPES = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array, 768: Uint32Array };
const RGB = 128;

/** Undo gzip if there is any. */
async function plain(buffer) {
  const start = new Uint8Array(buffer, 0, Math.min(2, buffer.byteLength));
  if (start[0] !== 0x1f || start[1] !== 0x8b) return buffer;
  return new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/**
 * Read a volume; its voxels stay as they are stored.
 * @returns {Promise<{size: number[], spacing: number[], values: TypedArray, rgb: boolean, affine: number[][]}>}
 *   x runs fastest; a colour picture has three values for each voxel; the affine leads from voxels to mm.
 */
export async function readNifti(buffer) {
  const bytes = await plain(buffer);
  const head = new DataView(bytes);
  if (bytes.byteLength < 352 || head.getInt32(0, true) !== 348) throw new Error("not a little-endian NIfTI-1 file");
  const size = [1, 2, 3].map((axis) => (axis <= head.getInt16(40, true) ? head.getInt16(40 + 2 * axis, true) : 1));
  const spacing = [1, 2, 3].map((axis) => Math.abs(head.getFloat32(76 + 4 * axis, true)) || 1);
  const code = head.getInt16(70, true);
  const Type = TYPES[code === RGB ? 2 : code];
  if (!Type) throw new Error(`voxels of NIfTI type ${code} cannot be shown`);
  const start = head.getFloat32(108, true);
  const count = size[0] * size[1] * size[2] * (code === RGB ? 3 : 1);
  const values = start % Type.BYTES_PER_ELEMENT ? new Type(bytes.slice(start, start + count * Type.BYTES_PER_ELEMENT)) : new Type(bytes, start, count);
  const affine = [280, 296, 312].map((row) => [0, 4, 8, 12].map((column) => head.getFloat32(row + column, true)));
  return { size, spacing, values, rgb: code === RGB, affine };
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
