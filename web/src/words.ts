/** Every sentence that the page says on its own account. */

import type { Guidance } from "./capture";
import type { Outcome } from "./decision";

export const GUIDANCE: Readonly<Record<Guidance, string>> = {
  "no-face": "No face is to be seen. Bring your face into the picture, in good light.",
  several: "There are several faces in the picture. Only you should be in it.",
  closer: "Come a little closer.",
  straight: "Look straight at the camera.",
  centre: "Move your face to the middle of the picture.",
  "turn-left": "Turn your head slowly to your left, then look straight again.",
  "turn-right": "Turn your head slowly to your right, then look straight again.",
  hold: "Good. Hold still.",
};

/** What went wrong: what happened, and what the person can do. `again`: starting over may help. */
export interface ProblemWords {
  readonly title: string;
  readonly text: string;
  readonly again: boolean;
}

const BROKEN: ProblemWords = {
  title: "Something went wrong",
  text: "The check could not go on. Try again, or ask the site for another way.",
  again: true,
};

const PROBLEMS: Readonly<Record<string, ProblemWords>> = {
  "no-camera": {
    title: "No camera found",
    text: "Connect a camera and try again, or open this page on a phone. The site can also offer another proof.",
    again: true,
  },
  "camera-refused": {
    title: "The camera is not allowed",
    text: "Your browser does not let this page use the camera. Allow it in the browser's settings, then try again.",
    again: true,
  },
  "camera-busy": {
    title: "The camera does not start",
    text: "Another program may be using it. Close that program and try again.",
    again: true,
  },
  "camera-ended": {
    title: "The camera stopped",
    text: "The camera was switched off or unplugged. Nothing was sent.",
    again: true,
  },
  "no-face": {
    title: "No usable face in the picture",
    text: "Sit in good light, look straight at the camera, and try again. Nothing was sent.",
    again: true,
  },
  several: {
    title: "Several faces in the picture",
    text: "Only you should be in the picture. Nothing was sent.",
    again: true,
  },
  network: {
    title: "No connection",
    text: "The service cannot be reached. Check your connection and try again.",
    again: true,
  },
  not_anonymized: {
    title: "The picture was refused",
    text: "The service found that the picture was not hidden well enough. It was not kept. Please take another one.",
    again: true,
  },
  too_many_requests: { title: "Too many tries", text: "Wait a minute, then try again.", again: true },
  busy: { title: "The service is busy", text: "Wait a moment, then try again.", again: true },
  check_expired: {
    title: "This check has expired",
    text: "Go back to the site and start again there.",
    again: false,
  },
  not_found: {
    title: "There is no such check",
    text: "The link is not complete, or the check is long over. Go back to the site and start again there.",
    again: false,
  },
  check_completed: {
    title: "This check is over",
    text: "It has been answered already. Go back to the site.",
    again: false,
  },
};

/** What to say of a problem, by its code. */
export function problemWords(code: string): ProblemWords {
  const same: Readonly<Record<string, string>> = {
    credentials_invalid: "not_found",
    credentials_missing: "not_found",
    unavailable: "busy",
  };
  const name = same[code] ?? code;
  return Object.hasOwn(PROBLEMS, name) ? PROBLEMS[name] : BROKEN;
}

export function outcomeWords(outcome: Outcome, minimumAge: number): { title: string; text: string } {
  switch (outcome) {
    case "allow":
      return { title: "Yes", text: `The answer is that you are at least ${minimumAge}.` };
    case "deny":
      return { title: "No", text: `You look younger than ${minimumAge}. If that is wrong, ask the site for another proof.` };
    case "step_up":
      return { title: "Not sure", text: "The picture does not settle it. The site may ask you for another proof." };
  }
}
