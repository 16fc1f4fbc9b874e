/** The 468-point face mesh of MediaPipe, reduced to what the crop and the eye region need. */

import { middle, type FivePoints, type Point } from "./geometry";

// Indices of the canonical mesh; "right" is right in the picture, which is the person's left.
const RIGHT_EYE_OUTER = 263;
const RIGHT_EYE_INNER = 362;
const LEFT_EYE_OUTER = 33;
const LEFT_EYE_INNER = 133;
const NOSE_BASE = 2;
const NOSE_TIP = 1;
const MESH_POINTS = 468;

/** A mesh, in pixels of the picture; depth is not read. */
export type Mesh = readonly (readonly [x: number, y: number, z?: number])[];

/** dlib's five points of a mesh. @throws RangeError it has fewer points than the mesh has. */
export function fivePoints(mesh: Mesh): FivePoints {
  return [
    pick(mesh, RIGHT_EYE_OUTER),
    pick(mesh, RIGHT_EYE_INNER),
    pick(mesh, LEFT_EYE_OUTER),
    pick(mesh, LEFT_EYE_INNER),
    pick(mesh, NOSE_BASE),
  ];
}

/**
 * How far the head is turned: where the tip of the nose lies along the line between the eyes, from their middle,
 * in distances between the eye centres. 0 is straight ahead; above 0 the nose points to the picture's right, which
 * is the person's left.
 */
export function headTurn(mesh: Mesh): number {
  const five = fivePoints(mesh);
  const right = middle(five[0], five[1]);
  const left = middle(five[2], five[3]);
  const centre = middle(left, right);
  const [dx, dy] = [right[0] - left[0], right[1] - left[1]];
  const tip = pick(mesh, NOSE_TIP);
  return ((tip[0] - centre[0]) * dx + (tip[1] - centre[1]) * dy) / (dx * dx + dy * dy);
}

function pick(mesh: Mesh, index: number): Point {
  if (mesh.length < MESH_POINTS) throw new RangeError(`a mesh has ${MESH_POINTS} points, got ${mesh.length}`);
  return [mesh[index][0], mesh[index][1]];
}
