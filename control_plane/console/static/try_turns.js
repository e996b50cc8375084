// So many at once, the others in the order in which they came.
export class Turns {
  constructor(atOnce) { this.free = atOnce; this.waiting = []; }

  async run(work) {
    if (this.free > 0) this.free -= 1; else await new Promise((go) => this.waiting.push(go));
    try { return await work(); } finally {
      const next = this.waiting.shift();
      if (next) next(); else this.free += 1;
    }
  }
}
